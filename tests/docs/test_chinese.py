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


def examples(page):
    """The commands and lines of Python of a page, without what is said beside them."""
    found = []
    for kind, text in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = [re.sub(r"\s*# .*|\s*--lang zh", "", line).rstrip() for line in text.splitlines()]
        shown = "$ " in text  # an example with its output: the output is in the page's own language
        found.append((kind, [line for line in lines if line and (line.startswith("$ ") or not shown)]))
    return found


def test_the_two_readmes_give_the_same_commands():
    assert examples(ROOT / "README.zh-CN.md") == examples(ROOT / "README.md")


@pytest.mark.parametrize(
    "page", sorted(p.name for p in CHINESE.glob("*.md") if (ROOT / "docs" / p.name).exists()) or [None]
)
def test_a_page_in_two_languages_gives_the_same_examples(page):
    if page is None:
        pytest.skip("no page of the guide is in two languages yet")
    assert examples(CHINESE / page) == examples(ROOT / "docs" / page)


def test_every_method_is_told_in_chinese():
    rows = re.findall(
        r"^\| \[`(.+?)`\]\((.+?)\) \| (.+?) \| (.+?) \| (.+?) \|$", (CHINESE / "methods.md").read_text("utf-8"), re.M
    )
    assert [name for name, *_ in rows] == list(METHODS)
    choose("zh")
    try:
        for name, link, line, cost, trust in rows:
            assert (CHINESE / link).exists()
            assert all(re.search("[一-鿿]", said) for said in (line, trust)), name
            assert cost == translated(METHODS[name].cost)
    finally:
        choose(None)


def test_terms_are_those_of_the_catalogue():
    terms = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", (CHINESE / "terms.md").read_text("utf-8"), re.M))
    english = {e: c for c, e in terms.items()}
    choose("zh")
    try:
        for word in ("faithful", "insertion", "layer", "class"):
            spoken = translated(word)
            assert spoken in english.get(word, "") or any(spoken in c for c in english.values()), word
    finally:
        choose(None)
