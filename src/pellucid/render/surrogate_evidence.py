"""Why a readable model answers what it does for one picture: its reasons, each where it is in the picture.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.interpretable.base import Reason
from pellucid.render.paper.colour import number
from pellucid.render.paper.page import GAP, MARGIN, head
from pellucid.render.paper.sheet import AGAINST, FAINT, FOR, PAPER, QUIET, Column, Sheet, leading
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the picture."""
_SIDE, _ROW, _PICTURE = 3.0, 1.0, 0.92  # inches


@dataclass(frozen=True)
class Match:
    """A picture with a box in it; no box where a word has no place."""

    pixels: Pixels
    box: Box | None = None


@dataclass(frozen=True)
class EvidenceRow:
    """A reason, where it is in the picture explained, and what it is about elsewhere."""

    reason: Reason
    here: Match | None
    there: Sequence[Match]


def evidence_figure(name: str, picture: Match, label: str, probability: float, rows: Sequence[EvidenceRow]) -> Figure:
    """The picture at the left, beside it a row for each reason."""
    wide = 6.6
    sheet = Sheet(2 * MARGIN + _SIDE + GAP + wide)
    at = Column(MARGIN, MARGIN, _SIDE, (_SIDE, _SIDE))
    y = head(sheet, name, "", at, _SIDE)
    y += _match(sheet, picture, at.x, y, _SIDE) + 0.08
    y += sheet.line(f"{label} {probability:.0%}", at.x, y, TITLE, bold=True, width=_SIDE)
    right = Column(MARGIN + _SIDE + GAP, MARGIN, wide, (wide, wide))
    bottom = head(sheet, f"why {label}", "", right, wide)
    largest = max((abs(r.reason.contribution) for r in rows if np.isfinite(r.reason.contribution)), default=1.0) or 1.0
    if not rows:
        bottom += sheet.line("it is left to the last rule, which takes the rest", right.x, bottom, TEXT, colour=QUIET)
    for row in rows:
        bottom = _row(sheet, row, largest, right.down(bottom))
    return sheet.finish(max(y, bottom) + MARGIN)


def _row(sheet: Sheet, row: EvidenceRow, largest: float, at: Column) -> float:
    x = at.x
    for words, matches in (("here", [row.here] if row.here else []), ("as in", list(row.there))):
        for n, match in enumerate(matches):
            if n == 0:
                sheet.line(words, x, at.y, SMALL, colour=FAINT)
            _match(sheet, match, x, at.y + 0.12, _PICTURE)
            x += _PICTURE + 0.06
        x += 0.08 * bool(matches)
    tall = _ROW + 0.12 if x > at.x else 0.3
    label = max(x, at.x)
    middle = at.y + tall / 2 - leading(TEXT)
    sheet.heading(row.reason.text, label, middle, at.x + at.width - label - 0.05, TEXT)
    value = row.reason.contribution
    if np.isfinite(value):
        start, end = label, at.x + at.width - 0.6
        reach = (end - start) / 2 * abs(value) / largest
        zero, y = (start + end) / 2, middle + 2 * leading(TEXT)
        sheet.box(zero - 0.004, y - 0.03, 0.008, 0.16, colour=FAINT)
        sheet.box(zero - reach * (value < 0), y, reach, 0.1, colour=FOR if value > 0 else AGAINST)
        colour = FOR if value > 0 else AGAINST
        sheet.line(number(value), at.x + at.width, y - 0.02, TEXT, colour=colour, align="right")
    return at.y + tall + 0.1


def _match(sheet: Sheet, match: Match, x: float, y: float, side: float) -> float:
    """The picture as large as `side` allows, its box drawn; its height."""
    high, wide = match.pixels.shape[:2]
    scale = side / max(high, wide)
    height, width = high * scale, wide * scale
    sheet.image(match.pixels, x, y, width, height)
    if match.box is not None:
        left, top, right, bottom = match.box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        points = [(x + a * width, y + b * height) for a, b in corners]
        sheet.stroke(points, colour=PAPER, width=3.0)
        sheet.stroke(points, colour=FOR, width=1.6)
    return float(height)
