"""What a page is made of: a card a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A result, or results that belong together, as a part of a page.

    Attributes:
        title: heading.
        line: the whole in a line, for the summary.
        markup: what it shows; escaped already.
        verdict: how far it may be believed, in a word or two; empty where nothing was measured.
        trusted: whether that verdict is a good one.
        size: letters of the markup.
    """

    title: str
    line: str
    markup: str
    verdict: str = ""
    trusted: bool = False

    @property
    def size(self) -> int:
        """Letters of the markup, nearly its bytes."""
        return len(self.markup)
