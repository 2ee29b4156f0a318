"""Cards as one HTML file that needs nothing else: a summary, the cards, and the viewer's script, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pellucid.render.pages import texts
from pellucid.render.pages.card import Card
from pellucid.render.pages.page import Page, spoken
from pellucid.render.viewer import assets

_ALIVE = ("<pellucid-view", "data-filter=", 'class="ways"')
"""Markup that the script makes something of; a page without any runs none."""


def report_page(title: str, cards: Sequence[Card], lines: Sequence[str] = ()) -> str:
    """The page.

    Args:
        title: heading.
        cards: in order.
        lines: under the heading.
    """
    page = Page(title, script=assets.script() if any(mark in c.markup for c in cards for mark in _ALIVE) else "")
    for line in lines:
        page.say(line)
    if len(cards) > 1:
        page.add(summary(cards))
    for k, card in enumerate(cards):
        heading = "" if len(cards) == 1 and card.title == title else f"<h2>{spoken(card.title)}</h2>"
        page.add(f'<article id="result-{k}">{heading}{card.markup}</article>')
    return str(page)


def summary(cards: Sequence[Card]) -> str:
    """A line a card, to be read in a minute."""
    rows = "".join(
        f'<tr><th scope="row"><a href="#result-{k}">{spoken(c.title)}</a></th><td>{spoken(c.line)}</td>'
        f'<td class="verdict {_mark(c)}">{spoken(c.verdict)}</td></tr>'
        for k, c in enumerate(cards)
    )
    return (
        f'<nav class="card" aria-label="{spoken(texts.SUMMARY)}"><h2>{spoken(texts.SUMMARY)}</h2>'
        f'<div class="scroll"><table>{rows}</table></div></nav>'
    )


def _mark(card: Card) -> str:
    known = card.verdict not in ("", texts.NOT_MEASURED)
    return "good" if card.trusted else "bad" if known else "quiet"


def framed(page: str, text: str, height: int = 640) -> str:
    """A page inside a notebook: in a frame that may run the page's own script and reach nothing else.

    Args:
        page: as `report_page` makes it.
        text: what it shows, for those who cannot see it.
        height: of the frame, in pixels; it can be pulled larger.
    """
    return (
        f'<div class="pellucid"><iframe sandbox="allow-scripts" title="{escape(text, quote=True)}" '
        f'style="width:100%;height:{height}px;border:0;resize:vertical;overflow:auto" '
        f'srcdoc="{escape(page, quote=True)}"></iframe></div>'
    )
