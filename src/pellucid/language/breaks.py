"""Where a line may end: at spaces, and beside Chinese characters, but not in front of the marks that end a clause."""

from __future__ import annotations

import re
from collections.abc import Callable
from unicodedata import combining, east_asian_width

_CHINESE = "\u2e80-\u9fff\uff01-\uff60"  # ideographs and the marks among them
_OPENING, _ENDING = "（“《", "，。；：、！？）”》…"
_PIECES = re.compile(rf"\s*[{_OPENING}]*(?:[{_CHINESE}]|[^\s{_CHINESE}]+)[{_ENDING}]*")


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(1 + (east_asian_width(c) in "WF") for c in text if not combining(c))


def padded(text: str, width: int) -> str:
    """A text with spaces behind it, up to so many columns."""
    return text + " " * (width - cells(text))


def pieces(text: str) -> list[str]:
    """A text in pieces that stay whole, each with the spaces in front of it."""
    return _PIECES.findall(text)


def line_starts(text: str, width: float, measure: Callable[[str], float]) -> list[int]:
    """Where the lines after the first begin, if none is to be wider than `width` by `measure`."""
    starts, begun, at = [], 0, 0
    for piece in pieces(text):
        if at > begun and measure(text[begun : at + len(piece)].strip()) > width:
            begun = at + len(piece) - len(piece.lstrip())
            starts.append(begun)
        at += len(piece)
    return starts
