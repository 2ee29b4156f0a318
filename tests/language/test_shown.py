"""What is shown of results in Chinese holds no English beside names: pages and figures of every kind of result."""

import re
from html import unescape
from pathlib import Path

import pytest
from matplotlib.text import Text

from pellucid import storage
from pellucid.language import speaking, translated
from pellucid.verbs.kinds import REQUESTS
from pellucid.verbs.report import report
from pellucid.verbs.verify import opened

KEPT = Path(__file__).parents[1] / "results" / "kept"
FILES = [f for f in sorted(KEPT.glob("*.json")) if f.stem != "digits.tree"]
CODE = re.compile(r"<(script|style|pre|code)\b.*?</\1>|<!--.*?-->", re.DOTALL)
SHOWN = re.compile(r'\b(?:alt|aria-label|placeholder|title)="([^"]*)"|>([^<>]+)<')
WORD = re.compile(r"(?<![\w.:*/-])[A-Za-z][a-z]{2,}(?![\w.:*/-])")
PAPER = re.compile(r"\b(19|20)\d\d\b|arXiv")
NAMES = {
    *("Pellucid", "Sequential", "Krippendorff", "Python", "json", "npz", "csv", "html", "pellucid", "explain", "check"),
    *("verify", "labels", "samples", "conv", "net", "fourier", "nmf", "rise", "saliency", "srg", "alpha", "entropy"),
    *("cat", "cell", "coffee", "camera", "coins", "clock", "horse", "page", "rocket", "text", "one", "two", "three"),
    *("ablation", "pca", "lrp", "Finder", "square", "squares", "Discs", "disc", "discs", "background"),
}
"""Of models, methods, metrics, pictures, classes, parameters and formats: what has one name in every language."""


def english(texts):
    """The words that are no names, each with the text it stands in."""
    told = [text for text in texts if not PAPER.search(text)]
    return {word: text for text in told for word in WORD.findall(text) if word not in NAMES}


def visible(page):
    """What a reader sees or hears of a page: texts, and what stands in for pictures and fields."""
    found = SHOWN.findall(CODE.sub("", page))
    return [unescape(attribute or text).strip() for attribute, text in found]


@pytest.fixture(scope="module")
def page():
    with speaking("zh"):
        return report(FILES).text


def test_a_report_of_every_kind_of_result_has_no_english_words(page):
    found = visible(page)
    assert sum(bool(re.search("[一-鿿]", text)) for text in found) > 200
    assert english(found) == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_figure_has_no_english_words(file):
    with speaking("zh"):
        figure = opened(storage.read_artefact(file, REQUESTS)).figure()
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any(re.search("[一-鿿]", text) for text in texts)
    assert english(texts) == {}


def test_english_would_be_found():
    assert set(english(visible('<p title="a drawer">回答 is kept</p><code>for this</code>'))) == {"drawer", "kept"}


FIGURES = {
    "a feature sheet": "2.5 x the strongest of 23 natural pictures; random views keep 93%; 1st of its layer; "
    "processed like natural ones 0.30 of 1; 22% fine detail; forced choice 19% right from it, 100% from exemplars: it "
    "does not resemble what excites the unit in nature, so believe the exemplars.",
    "a readable model": "agrees with the teacher on 97% [90%, 99%] of 40 held-out pictures (majority class 29%, random "
    "concepts 93%); right on 95%, the teacher on 98%; 12 leaves",
    "a tree": "if brightness > 0.31:\n    if red > 0.2:\n        x (92%; 40% of rows)\n    else:\n"
    "        y (90%; 20% of rows)\nelse:\n    x (90%; 40% of rows)",
    "rules": "if edges > 0.3 and red ≤ 0.4: x (91%; 35% of rows)\nelse if contrast > 0.45: y (90%; 32% of rows)\n"
    "else: x (70%; 33% of rows)",
    "curves": "brightness: moves x by up to 3.1\nfine detail: moves y by up to 2",
    "prototypes": "x: like picture 3, 12\ny: like picture none",
    "a hierarchy": "4 classes:\n  2 classes:\n    x\n    y",
    "a question": "brightness > 0.31?",
    "an evaluation": "grad-cam has the best mean rank, for 1 forwards and 1 backwards a map, 0.25 s of processor time; "
    "that it beats random order (p = 1) and edges (p = 0.5) by srg is not sure: evaluate more inputs.",
    "an unknown name": "There is no method 'x-cam': did you mean 'is-cam' or 'y-cam'? `pellucid methods` lists them.",
    "a note": "    note: The standard error is 94% of the map's spread: much of this map is noise, raise samples.",
    "an error of the system": "a.csv can't be read (No such file or directory): write a header, then a row for each "
    "picture.",
}


@pytest.mark.parametrize("kind", FIGURES)
def test_what_is_put_together_of_parts_is_chinese_as_a_whole(kind):
    with speaking("zh"):
        shown = translated(FIGURES[kind])
    assert english(re.sub("`[^`]*`|'[^']*'", "", shown).split("\n")) == {}, shown
    for number in set(re.findall(r"\d+", FIGURES[kind])):
        assert number in shown
