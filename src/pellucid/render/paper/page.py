"""How a panel is laid out: a side column for the picture, a section for each target, rows of tiles.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, sqrt

import numpy as np
from matplotlib.figure import Figure

from pellucid.explanation import Explanation, Prediction
from pellucid.media.geometry import Geometry
from pellucid.render.paper.display import DISPLAY_SIZE, Pictured, display_geometry, ground_pixels
from pellucid.render.paper.marks import asked_boxes, is_asked, mark_answers
from pellucid.render.paper.overlay import hatched
from pellucid.render.paper.pairs import others_beside
from pellucid.render.paper.sheet import (
    FAINT,
    INK,
    QUIET,
    TRACK,
    Column,
    Sheet,
    leading,
    plain,
    text_width,
    wrapped,
)
from pellucid.render.paper.tiles import TEXT, TITLE, tile

MARGIN, GAP, _BETWEEN = 0.35, 0.3, 0.32  # inches: around, between columns, between rows
_AREA, MIN_CELL, _WIDEST, _TALLEST = 4.6, 2.15, 2.9, 3.2  # of a picture (square inches), a column, a picture
_HEAD = 11.0  # points

Sections = Sequence[tuple[str, Sequence[Explanation]]]


def page(first: Explanation, sections: Sections, width: float) -> Figure:
    """The figure, at most ``width`` inches wide, of sections (target or "", explanations)."""
    picture = picture_box(display_geometry(first.geometry)[0].source_size)
    cell = Column(MARGIN, MARGIN, max(picture[0], MIN_CELL), picture)
    step = cell.width + GAP
    longest = max(len(group) for _, group in sections)
    fitting = max(1, int((width - 2 * MARGIN + GAP) / step) - 1)
    columns = -(-longest // -(-longest // fitting))  # rows as even as can be
    sheet = Sheet(2 * MARGIN + cell.width + columns * step)
    side = _side(sheet, first, sections, cell)
    bottom = MARGIN - _BETWEEN
    for target, group in sections:
        start = replace(cell, x=MARGIN + step, y=bottom + _BETWEEN)
        bottom = _section(sheet, target, group, start, columns)
    return sheet.finish(max(side, bottom) + MARGIN)


def picture_box(size: tuple[int, ...]) -> tuple[float, float]:
    """(width, height) in inches for the pictures: the same area for any shape, within bounds."""
    aspect = size[-1] / size[-2]
    height = min(sqrt(_AREA / aspect), _WIDEST / aspect, _TALLEST)
    return height * aspect, height


def _section(sheet: Sheet, target: str, group: Sequence[Explanation], at: Column, columns: int) -> float:
    """Rows of tiles under the target's name; where they end."""
    step = at.width + GAP
    known = [p.said(1) for p in group[0].prediction if target == p.label or target.startswith(f"{p.label}: ")]
    top = head(sheet, target or f"{len(group)} targets", "".join(known[:1]), at, columns * step - GAP)
    bottom = top - _BETWEEN
    for start in range(0, len(group), columns):
        row = replace(at, y=top if start == 0 else bottom + _BETWEEN)
        tiles = enumerate(group[start : start + columns])
        bottom = max(tile(sheet, e, replace(row, x=at.x + i * step), target=not target) for i, e in tiles)
    return bottom


def head(sheet: Sheet, text: str, aside: str, at: Column, width: float) -> float:
    """A heading over a rule, on up to three lines where the question is long; where what follows begins."""
    kept = min(text_width(aside, TITLE) + 0.08, width / 2) if aside else 0
    lines = wrapped(plain(text), width - kept, _HEAD, rows=3, bold=True) or [""]  # a label may be a blank
    for number, words in enumerate(lines):
        sheet.line(words, at.x, at.y + number * leading(_HEAD), _HEAD, bold=True)
    last = at.y + (len(lines) - 1) * leading(_HEAD)
    if aside:
        after = at.x + text_width(lines[-1], _HEAD, bold=True) + 0.08
        lower = last + 0.8 * (leading(_HEAD) - leading(TITLE))
        sheet.line(aside, after, lower, TITLE, colour=QUIET, width=at.x + width - after)
    y = last + leading(_HEAD) + 0.04
    sheet.box(at.x, y, width, 0.014, colour=INK)
    return y + 0.11


def _side(sheet: Sheet, first: Explanation, sections: Sections, at: Column) -> float:
    """The original, what the model says of it, and what the hatch means; where it ends."""
    shown = [e for _, group in sections for e in group]
    y = side(sheet, first, {e.target for e in shown}, [e.geometry for e in shown], at, asked_boxes(shown))
    return others_beside(sheet, shown, at.down(y))


def side(
    sheet: Sheet,
    first: Pictured,
    targets: set[str],
    geometries: Sequence[Geometry],
    at: Column,
    boxes: Sequence[Sequence[float]] = (),
) -> float:
    """The original, what the model says of it (explained targets in bold), what the hatch means; where it ends."""
    y = head(sheet, first.name, "", at, at.width)
    y += sheet.line(first.record.model_name, at.x, y, TITLE, bold=True, width=at.width)
    y += sheet.line(_size(first), at.x, y, TEXT, colour=QUIET, width=at.width) + 0.05
    size = display_geometry(first.geometry)[0].source_size[-2:]
    width, height = at.fit(size)
    sheet.image(ground_pixels(first, size), at.x, y, width, height)
    mark_answers(sheet, first, boxes, (at.x, y, width, height))
    y += height + 0.1
    y = bars(sheet, first, targets, at.down(y), boxes)
    if all(display_geometry(g)[0].seen().all() for g in geometries):
        return y
    return never_seen(sheet, at.down(y))


def never_seen(sheet: Sheet, at: Column) -> float:
    """What the hatch means; where that ends."""
    y = at.y
    swatch = hatched(np.full((DISPLAY_SIZE, DISPLAY_SIZE, 3), 110, np.uint8))[:26, :52]
    sheet.image(np.rint(swatch * 255).astype(np.uint8), at.x, y + 0.07, 0.26, 0.13)
    return y + 0.08 + sheet.line("never seen by the model", at.x + 0.34, y + 0.06, TEXT, colour=QUIET)


def bars(sheet: Sheet, first: Pictured, targets: set[str], at: Column, boxes: Sequence[Sequence[float]] = ()) -> float:
    """What the model says (explained targets, or boxes, in bold); where it ends."""
    y = at.y
    for prediction in first.prediction[:5]:
        chosen = prediction.label in targets if prediction.place is None else is_asked(prediction, boxes)
        y = _bar(sheet, prediction, at.down(y), chosen=chosen)
    return y


def _size(e: Pictured) -> str:
    *rest, height, width = e.geometry.source_size
    size = f"{width} × {height} px"
    if e.geometry.unit:
        size = f"{rest[0]} frames, {size}"
    elif rest:
        size = f"{rest[0]} × {size}"
    if not e.geometry.known:
        return f"the model’s own input, {size}"
    return size if e.picture is not None else f"{size}, picture not at hand"


def _bar(sheet: Sheet, p: Prediction, at: Column, *, chosen: bool) -> float:
    """A class, its probability (or its score) as a number and a bar; explained classes stand out. Where it ends."""
    ink = INK if chosen else QUIET
    sheet.line(p.said(1), at.x + at.width, at.y, TEXT, colour=ink, bold=chosen, align="right")
    y = at.y + 0.015 + sheet.line(p.label, at.x, at.y, TEXT, colour=ink, bold=chosen, width=at.width - 0.55)
    if isnan(p.probability):  # a plain value has no scale to be drawn on
        return y + 0.03
    sheet.box(at.x, y, at.width, 0.035, colour=TRACK)
    sheet.box(at.x, y, at.width * min(max(p.probability, 0.0), 1.0), 0.035, colour=INK if chosen else FAINT)
    return y + 0.09
