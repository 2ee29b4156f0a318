"""The sheet of a network's stages: the picture, a map a stage, and how much of the score flows through each.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from matplotlib.figure import Figure

from pellucid.explanation import Explanation
from pellucid.render.paper.colour import limits, number
from pellucid.render.paper.display import Pictured, display, display_geometry
from pellucid.render.paper.page import GAP, MARGIN, MIN_CELL, head, picture_box, side
from pellucid.render.paper.sheet import (
    AGAINST,
    FAINT,
    FOR,
    INK,
    PAPER,
    QUIET,
    WARNING,
    Column,
    Sheet,
    leading,
    plain,
    text_width,
)
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE, banner, colour_bar

_ACROSS = 6  # maps in a row
_CELL = 1.75  # inches, a map
_LEAST = 7.2  # inches, for the sentences of a sheet of few stages
_HIGH, _BAR = 1.25, 0.34  # inches: the trace, a bar of it
_MANY = 400  # cells from which on a few extreme ones would darken the rest of a map
_CONSERVED = 0.01  # of the score: a larger gap is said


class Traced(Pictured, Protocol):
    """A method's maps at several stages."""

    @property
    def maps(self) -> Sequence[Any]:
        """A stage each."""

    method: str
    target: str
    score: float
    conserving: bool
    notes: list[str]

    def at(self, stage: Any) -> Explanation:
        """A stage as an explanation."""

    def gap(self, stage: Any) -> float:
        """How much of the score is missing at a stage."""


def stage_sheet(found: Traced) -> Figure:
    """The input and its prediction; a map for each stage; the trace of relevance below them."""
    box = picture_box(display_geometry(found.geometry)[0].source_size)
    cell = Column(MARGIN, MARGIN, max(box[0], MIN_CELL), box)
    columns = min(len(found.maps), _ACROSS)
    small = replace(cell, width=_CELL, picture=(_CELL, _CELL * box[1] / box[0]))
    wide = max(_LEAST, columns * (_CELL + GAP) - GAP)
    sheet = Sheet(2 * MARGIN + cell.width + GAP + wide)
    bottom = side(sheet, found, {found.target}, [found.geometry], cell)
    left = MARGIN + cell.width + GAP
    y = head(sheet, found.target, f"{found.method}, stage by stage, out of one pass", replace(small, x=left), wide)
    for start in range(0, len(found.maps), columns):
        row = found.maps[start : start + columns]
        tops = [_map(sheet, found, m, replace(small, x=left + i * (_CELL + GAP), y=y)) for i, m in enumerate(row)]
        y = max(tops) + 0.25
    y = _trace(sheet, found, Column(left, y, wide))
    for note in found.notes:
        sheet.line("⚠", left, y + 0.05, TEXT, colour=WARNING)
        y += 0.05 + sheet.paragraph(note, left + 0.15, y + 0.05, wide - 0.15, TEXT, colour=WARNING)
    return sheet.finish(max(bottom, y) + MARGIN)


def _map(sheet: Sheet, found: Traced, stage: Any, at: Column) -> float:
    """A stage's map with its colour bar; where it ends."""
    shown = display(found.at(stage))
    if shown.ground == "picture" and stage.values.numel() >= _MANY:
        shown = replace(shown, limits=limits(stage.values.numpy(), signed=shown.signed, robust=True))
    y = at.y + sheet.line(stage.layer, at.x, at.y, TITLE, bold=True, width=at.width)
    under = " · ".join(filter(None, (stage.layout or "at the input", shown.part)))
    sheet.paragraph(under, at.x, y, at.width, TEXT, colour=QUIET, rows=2)
    y += 0.05 + 2 * leading(TEXT)  # so that all maps of a row begin at one height
    width, height = at.fit(shown.values.shape)
    sheet.image(shown.image(), at.x, y, width, height)
    if shown.problem:
        banner(sheet, shown.problem, at.down(y), height)
    y += height + 0.06
    return colour_bar(sheet, shown, at.down(y)) if shown.limits.low < shown.limits.high else y


def _trace(sheet: Sheet, found: Traced, at: Column) -> float:
    """A bar for what flows through each stage, and what rules behind it absorbed, up to the score; where it ends."""
    title = "how much of the score flows through each stage"
    y = head(sheet, title, f"the line: the score, {number(found.score)}", at, at.width)
    y += _legend(sheet, found, at.down(y)) + 0.18
    ends: list[float] = [0.0, found.score, *(m.flow for m in found.maps), *(m.flow + m.absorbed for m in found.maps)]
    low, high = min(ends), max(ends)
    inch = _HIGH / ((high - low) or 1.0)
    slot = at.width / len(found.maps)

    def height(value: float) -> float:
        return y + inch * (high - value)

    for i, m in enumerate(found.maps):
        x = at.x + (i + 0.5) * slot
        _bar(sheet, x - _BAR, height(0.0), height(m.flow), FOR if m.flow >= 0 else AGAINST)
        if m.absorbed:
            _bar(sheet, x, height(m.flow), height(m.flow + m.absorbed), FAINT)
        inside = abs(m.flow) * inch > 0.2
        at_end = height(m.flow) + (0.03 if (m.flow > 0) == inside else -0.14)
        colour = PAPER if inside else INK
        sheet.line(number(m.flow), x - _BAR / 2, at_end, SMALL, colour=colour, align="center")
        below = y + _HIGH + 0.05
        sheet.line(m.layer, x, below, TEXT, align="center", width=slot - 0.1)
        if found.conserving and found.gap(m) > _CONSERVED:
            missing = f"{found.gap(m):.1%} missing"
            sheet.line(missing, x, below + 0.14, SMALL, colour=WARNING, align="center", width=slot - 0.1)
    sheet.box(at.x, height(0.0) - 0.005, at.width, 0.01, colour=QUIET)
    sheet.box(at.x, height(found.score) - 0.007, at.width, 0.014, colour=INK)
    return y + _HIGH + 0.38


def _legend(sheet: Sheet, found: Traced, at: Column) -> float:
    """What the bars are; the height it takes."""
    flow = "relevance at the stage" if found.conserving else "value x gradient at the stage"
    parts = [(FOR, flow)]
    if any(m.absorbed for m in found.maps):
        parts.append((FAINT, "absorbed by biases and stabilisers behind it"))
    x, tall = at.x, 0.0
    for colour, text in parts:
        sheet.box(x, at.y + 0.035, 0.11, 0.07, colour=colour)
        tall = sheet.line(text, x + 0.17, at.y, SMALL, colour=QUIET)
        x += 0.17 + text_width(plain(text), SMALL) + 0.25
    return tall


def _bar(sheet: Sheet, x: float, start: float, end: float, colour: str) -> None:
    sheet.box(x, min(start, end), _BAR, abs(end - start), colour=colour)
