"""The studio in the visitor's language: chosen on any page, kept by the browser, one answer at a time."""

import asyncio
import re

import pytest

from helpers.loops import run
from pellucid.language import chosen, speaking, translated
from studio.conftest import ORIGIN

HAN = re.compile("[一-鿿]")
PAGES = ("/", "/video", "/importance", "/compare", "/library", "/model", "/jobs")


def asked(visitor, *requests):
    """The answers to one browser's requests, one after the other."""

    async def work():
        async with visitor() as browser:
            return [await browser.request(method, path, headers=ORIGIN, **more) for method, path, more in requests]

    return run(work())


def words(page):
    """What a page says in its own words."""
    page = re.sub(r"<nav.*?</nav>|<details.*?</details>|<option.*?</option>|<script.*?</script>", "", page, flags=re.S)
    told = re.findall(r'(?:placeholder|aria-label)="([^"]+)"|>([^<>]+)<', page)
    return [text.strip() for found in told for text in found if text.strip()]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_chinese_from_when_that_is_chosen_and_english_again(visitor, path):
    ways = ({}, {"lang": "zh"}, {}, {"lang": "en"}, {})
    english, *chinese, back, then = (a.text for a in asked(visitor, *(("GET", path, {"params": p}) for p in ways)))
    for page in chinese:
        assert '<html lang="zh">' in page
        assert not [text for text in words(page) if re.search(r"[A-Za-z]{3,} [a-z]{3,}", text)]
    assert words(english) == words(back) == words(then)
    assert not HAN.search(" ".join(words(english)))
    assert chosen() == "en"


def test_a_visitor_with_nothing_to_compare_is_told_so_in_place_of_an_empty_table(visitor):
    (page,) = asked(visitor, ("GET", "/compare", {}))
    assert "nothing to compare yet" in page.text
    assert "<table" not in page.text


def test_the_other_language_of_a_page_keeps_what_it_asks(visitor):
    (page,) = asked(visitor, ("GET", "/library", {"params": {"q": "cat", "model": "net-a"}}))
    assert 'href="?q=cat&amp;model=net-a&amp;lang=zh"' in page.text


def test_an_unknown_language_changes_nothing(visitor):
    (answer,) = asked(visitor, ("GET", "/", {"params": {"lang": "tlh"}}))
    assert '<html lang="en">' in answer.text
    assert "set-cookie" not in answer.headers


def test_a_refusal_is_told_in_the_language_of_who_asked(visitor):
    form = {"data": {"verb": "explain", "model": "another"}}
    _, answer = asked(visitor, ("GET", "/", {"params": {"lang": "zh"}}), ("POST", "/jobs", form))
    assert answer.status_code == 400
    assert "这个工作台启动时没有那个模型" in answer.text


def test_how_jobs_stand_is_told_in_words_beside_the_state(app, visitor):
    form = {"data": {"verb": "describe", "model": "net-a"}}
    *_, states = asked(
        visitor, ("GET", "/", {"params": {"lang": "zh"}}), ("POST", "/jobs", form), ("GET", "/jobs.json", {})
    )
    assert [(job["state"], job["said"]) for job in states.json()] == [("queued", "排队中")]


def test_two_who_speak_at_once_do_not_disturb_each_other():
    async def told(language):
        with speaking(language):
            await asyncio.sleep(0)
            there = await asyncio.to_thread(translated, "not faithful")
            await asyncio.sleep(0)
            return there, translated("not faithful")

    async def both():
        return await asyncio.gather(told("zh"), told("en"), told("zh"))

    assert run(both()) == [("不忠实",) * 2, ("not faithful",) * 2, ("不忠实",) * 2]
