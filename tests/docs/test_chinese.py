"""The pages in Chinese keep step with those in English: the same commands, every method, fixed terms."""

import re
from pathlib import Path

import pytest

from pellucid.heatmaps import METHODS
from pellucid.language import choose
from pellucid.language.speech import translated

ROOT = Path(__file__).parents[2]
CHINESE = ROOT / "docs" / "zh"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


@pytest.fixture
def chinese():
    choose("zh")
    yield
    choose(None)


def examples(page):
    """The commands and lines of Python of a page, without what is said beside them."""
    found = []
    for kind, text in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = [re.sub(r"\s*# .*|\s*--lang zh", "", line).rstrip() for line in text.splitlines()]
        shown = "$ " in text  # an example with its output: the output is in the page's own language
        found.append((kind, [line for line in lines if line and (line.startswith("$ ") or not shown)]))
    return found


def test_the_two_readmes_give_the_same_examples():
    assert examples(ROOT / "README.zh-CN.md") == examples(ROOT / "README.md")


def test_pages_in_two_languages_give_the_same_examples():
    for page in CHINESE.glob("*.md"):
        if (ROOT / "docs" / page.name).exists():
            assert examples(page) == examples(ROOT / "docs" / page.name), page.name


def test_every_method_is_told_in_chinese(chinese):
    page = (CHINESE / "methods.md").read_text("utf-8")
    rows = re.findall(r"^\| \[`(.+?)`\]\((.+?)\) \| (.+?) \| (.+?) \| (.+?) \|$", page, re.M)
    assert [name for name, *_ in rows] == list(METHODS)
    for name, link, line, cost, trust in rows:
        assert (CHINESE / link).exists()
        assert all(re.search("[一-鿿]", said) for said in (line, trust)), name
        assert cost == translated(METHODS[name].cost)


@pytest.mark.parametrize("word", ["insertion", "deletion", "layer", "class", "frame", "gradients", "concepts"])
def test_terms_are_those_of_the_catalogue(chinese, word):
    terms = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", (CHINESE / "terms.md").read_text("utf-8"), re.M)
    said = [c.split("、")[e.split(", ").index(w)] for c, e in terms for w in (word, word[:-1]) if w in e.split(", ")]
    assert said == [translated(word)]
