"""The pages in Chinese keep step with those in English: the same pages, examples, pictures, messages; fixed terms."""

import re
from pathlib import Path

import pytest

from pellucid.heatmaps import METHODS
from pellucid.language import choose
from pellucid.language.catalogue import catalogue
from pellucid.language.speech import translated

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHINESE = DOCS / "zh"
ENGLISH_ONLY = {"architecture", "benchmarks", "command-line", "extend", "leaderboard", "security"}  # for builders
CHINESE_ONLY = {"from-the-question", "methods", "terms"}
PAGES = sorted({page.stem for page in CHINESE.glob("*.md")} - CHINESE_ONLY)

FENCE = re.compile(r"(<!-- slow -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
COMMENT = re.compile(r"(?<=\s)# .*")
HAN = re.compile("[一-鿿]")


@pytest.fixture
def chinese():
    choose("zh")
    yield
    choose(None)


def text(folder, name):
    return (folder / f"{name}.md").read_text(encoding="utf-8")


def examples(page):
    """The commands and lines of Python of a page, without what is said beside them."""
    found = []
    for slow, kind, block in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = [re.sub(r"\s*# .*|\s*--lang zh", "", line).rstrip() for line in block.splitlines()]
        shown = "$ " in block  # an example with its output: the output is in the page's own language
        found.append((slow, kind, [line for line in lines if line and (line.startswith("$ ") or not shown)]))
    return found


def blocks(page):
    """All that is fenced, with outputs, without comments."""
    return [(slow, kind, COMMENT.sub("#", block)) for slow, kind, block in FENCE.findall(page)]


def levels(page):
    return [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", page), re.M)]


def pictures(page):
    return [
        Path(found).name
        for found in re.findall(r'!\[[^\]]*\]\(([^)]+)\)|src="([^"]+)"', page)
        for found in found
        if found
    ]


def quoted(page):
    """The English messages that a page of troubles is about."""
    return sorted(
        " ".join(found.split()).strip('"')
        for found in re.findall(r'\*\*"([^*]+)"\*\*|\*\*（("[^）]+")）', page)
        for found in found
        if found
    )


def test_the_two_readmes_give_the_same_examples():
    assert examples(ROOT / "README.zh-CN.md") == examples(ROOT / "README.md")


def test_the_two_readmes_have_the_same_headings_pictures_and_methods():
    english, chinese = (text(ROOT, name) for name in ("README", "README.zh-CN"))
    assert levels(chinese) == levels(english)
    assert pictures(chinese) == pictures(english)
    methods = re.compile(r"\[`([^`]+)`\]\(docs/methods/")
    assert methods.findall(chinese) == methods.findall(english)


def test_the_output_that_the_readme_shows_is_the_english_one_translated(chinese):
    (english,), (said,) = (
        [block for _, _, block in FENCE.findall(text(ROOT, name)) if "$ " in block]
        for name in ("README", "README.zh-CN")
    )
    assert [translated(line) for line in english.splitlines()[1:]] == said.splitlines()[1:]


def test_every_page_is_there_in_both_languages():
    english = {page.stem for page in DOCS.glob("*.md")} - ENGLISH_ONLY
    assert set(PAGES) == english


@pytest.mark.parametrize("name", PAGES)
class TestAPage:
    def test_gives_the_same_examples_and_outputs(self, name):
        """So that running those of the English page is running both."""
        assert blocks(text(CHINESE, name)) == blocks(text(DOCS, name))

    def test_has_the_same_headings_and_pictures(self, name):
        assert levels(text(CHINESE, name)) == levels(text(DOCS, name))
        assert pictures(text(CHINESE, name)) == pictures(text(DOCS, name))

    def test_leads_to_the_other_language_at_its_top(self, name):
        assert text(DOCS, name).splitlines()[2] == f"English · [中文](zh/{name}.md)"
        assert text(CHINESE, name).splitlines()[2] == f"[English](../{name}.md) · 中文"

    def test_is_in_chinese_and_leads_to_chinese_pages(self, name):
        rest = text(CHINESE, name).split("\n", 3)[3]
        links = re.findall(r"\]\(\.\./([\w-]+)\.md", rest)
        assert not set(links) & set(PAGES)
        prose = [line for line in FENCE.sub("", rest).splitlines() if re.search(r"[a-z]{3,} [a-z]{3,} [a-z]{3,}", line)]
        assert not [line for line in prose if not HAN.search(line) and not line.startswith(("    ", "<"))]


def test_every_trouble_is_told_in_chinese():
    assert quoted(text(CHINESE, "troubleshooting")) == quoted(text(DOCS, "troubleshooting"))


def test_messages_quoted_in_chinese_are_those_of_the_catalogue():
    known = catalogue("zh")
    told = " ".join([*known.plain.values(), *(t.target for t in (*known.sentences, *known.phrases))])
    told = re.sub(r"\{\w+\}", "…", told)
    parts = (
        p.strip()
        for q in re.findall(r"\*\*“(.+?)”\*\*（", text(CHINESE, "troubleshooting"))
        for p in re.split("[…：；，。？]", q)
    )
    assert not [part for part in parts if len(HAN.findall(part)) > 4 and part not in told]


def test_every_method_is_told_in_chinese(chinese):
    page = text(CHINESE, "methods")
    rows = re.findall(r"^\| \[`(.+?)`\]\((.+?)\) \| (.+?) \| (.+?) \| (.+?) \|$", page, re.M)
    assert [name for name, *_ in rows] == list(METHODS)
    for name, link, line, cost, trust in rows:
        assert (CHINESE / link).exists()
        assert all(HAN.search(said) for said in (line, trust)), name
        assert cost == translated(METHODS[name].cost)


@pytest.mark.parametrize("word", ["insertion", "deletion", "layer", "class", "frame", "gradients", "concepts"])
def test_terms_are_those_of_the_catalogue(chinese, word):
    terms = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", text(CHINESE, "terms"), re.M)
    said = [c.split("、")[e.split(", ").index(w)] for c, e in terms for w in (word, word[:-1]) if w in e.split(", ")]
    assert said == [translated(word)]
