"""How much each player matters, drawn: one picture's ranked bars, or those of a folder's groups with their swarms.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.importance.result import Answer
from pellucid.render.paper.bars import Bars, Scale, pictured, row_height, score_line
from pellucid.render.paper.colour import limits, number
from pellucid.render.paper.display import display_geometry, ground_pixels
from pellucid.render.paper.overlay import overlay
from pellucid.render.paper.page import GAP, MARGIN, MIN_CELL, head, picture_box, side
from pellucid.render.paper.portraits import labels_on, portrait
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
    text_width,
)
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE
from pellucid.render.presence_tree import draw_tree, tree_width

_BARS = 5.6  # inches: the column of bars
_MOST = 12  # players drawn of one picture


def draw(answer: Answer) -> Figure:
    """The figure of an importance, of one picture or of many."""
    if answer.of_a_set:
        from pellucid.render.groups import draw_groups

        return draw_groups(answer)
    picture = picture_box(display_geometry(answer.geometry)[0].source_size)
    cell = Column(MARGIN, MARGIN, max(picture[0], MIN_CELL), picture)
    mapped = "labels" in answer.pictures and answer.picture is not None and len(answer.geometry.source_size) == 2
    start = MARGIN + cell.width + GAP
    bars = start + (cell.width + GAP if mapped else 0)
    wide = bars + _BARS
    if answer.tree is not None:
        wide = max(wide, MARGIN + tree_width(answer.tree))
    sheet = Sheet(wide + MARGIN)
    low = side(sheet, answer, {answer.target}, [], cell)
    aside = f"by {answer.by}" + (f", layer {answer.layer}" if answer.layer else "")
    title = f"{answer.features} for {answer.target}"
    top = head(sheet, title, aside, replace(cell, x=start), bars + _BARS - start)
    bottom = _bars(sheet, answer, bars, top)
    if mapped:
        under = _map(sheet, answer, replace(cell, x=start, y=top))
        low = max(low, _said(sheet, answer, start, under + 0.1, cell.width))
    else:
        bottom = _said(sheet, answer, bars, bottom + 0.06, _BARS)
    bottom = max(low, bottom)
    if answer.tree is not None:
        bottom = draw_tree(sheet, answer, answer.tree, replace(cell, y=bottom + 0.25, width=wide - MARGIN))
    return sheet.finish(bottom + MARGIN)


def _map(sheet: Sheet, answer: Answer, at: Column) -> float:
    """Every region in the colour of its value, the leading ones numbered; where it ends."""
    shown, _ = display_geometry(answer.geometry)
    labels = labels_on(answer.pictures["labels"], shown)
    values = np.append(answer.values.float().numpy(), np.nan)  # -1: never seen
    values = np.where(np.arange(len(values)) < len(answer.names), np.nan_to_num(values), np.nan)
    ends = limits(values[:-1], signed=True)
    image = overlay(
        ground_pixels(answer, shown.source_size), values[labels].astype(np.float32), signed=True, limits=ends
    )
    seen = np.ix_(*(np.flatnonzero((labels >= 0).any(axis)) for axis in (1, 0)))
    image, labels = _outlined(image, labels)[seen], labels[seen]
    width, height = replace(at, picture=(at.width, 1.4 * at.width)).fit(image.shape)
    sheet.image(image, at.x, at.y, width, height)
    inch = width / image.shape[1]
    taken: list[tuple[float, float, float]] = []
    for rank, k in enumerate(answer.ranking()[:_MOST]):
        where = np.argwhere(labels == k)
        if not len(where):
            continue
        y, x = where[np.argmin(((where - where.mean(0)) ** 2).sum(1))]  # the region's own pixel nearest its centre
        text = str(rank + 1)
        wide = text_width(text, SMALL, bold=True) + 0.05
        x, y = at.x + inch * (x + 0.5), at.y + inch * (y + 0.5)
        if any(abs(x - a) < (wide + w) / 2 and abs(y - b) < leading(SMALL) for a, b, w in taken):
            continue  # in regions of a few pixels; the bars have all ranks
        taken.append((x, y, wide))
        sheet.box(x - wide / 2, y - leading(SMALL) / 2, wide, leading(SMALL), colour=PAPER, alpha=0.85)
        sheet.line(text, x, y - leading(SMALL) / 2, SMALL, bold=True, align="center")
    y = at.y + height + 0.06
    against, for_ = f"{number(ends.low)} against", f"for {number(ends.high)}"
    apart = max(width, text_width(against + for_, SMALL) + 0.1)
    sheet.line(against, at.x, y, SMALL, colour=AGAINST)
    sheet.line(for_, at.x + apart, y, SMALL, colour=FOR, align="right")
    y += leading(SMALL)
    return y + sheet.line("what the model saw; numbers: rank, as in the bars", at.x, y, SMALL, colour=FAINT)


def _outlined(image: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Thin light lines between regions."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    out = image.astype(np.float32)
    out[edge] = 0.55 * out[edge] + 0.45 * 255
    return out.round().astype(np.uint8)


def _bars(sheet: Sheet, answer: Answer, x: float, y: float) -> float:
    """Ranked bars beside their pictures, and what is not shown; where they end."""
    share = answer.shares[0]
    order = answer.ranking()
    shown = order[:_MOST]
    images = [portrait(answer.picture, answer.geometry, answer.pictures, k) for k in shown]
    y = Bars(answer.names, share, shown, images).draw(sheet, Column(x, y, _BARS), Scale.over(share, shown))
    rest = order[_MOST:]
    if rest:
        total = float(share.values[rest].sum())
        text = f"the other {len(rest)} {answer.features} together: {number(total)}"
        y += sheet.line(text, x, y, TEXT, colour=QUIET, width=_BARS)
    return y + 0.04 + sheet.line(_legend(answer), x, y, SMALL, colour=FAINT, width=_BARS)


def _said(sheet: Sheet, answer: Answer, x: float, y: float, width: float) -> float:
    """How it adds up, pairs and notes, within ``width`` inches; where they end."""
    y = score_line(sheet, answer, x, y, width)
    if answer.interactions:
        y = _pairs(sheet, answer, x, y + 0.12, width)
    for note in answer.notes:
        sheet.line("⚠", x, y + 0.05, TEXT, colour=WARNING)
        y += 0.05 + sheet.paragraph(note, x + 0.15, y + 0.05, width - 0.15, TEXT, colour=WARNING, rows=6)
    return y


def _legend(answer: Answer) -> str:
    bars = f"bars: what each adds to the score of {answer.target}"
    sampled = bool((answer.high > answer.low).any())
    return f"{bars}; lines: 95 % interval of sampling" if sampled else f"{bars}; nothing was sampled"


def _pairs(sheet: Sheet, answer: Answer, x: float, y: float, width: float) -> float:
    """What pairs of the leading players do together; where it ends."""
    y += 0.03 + sheet.line("pairs, beyond what each adds", x, y, TITLE, bold=True, width=width)
    small = 0.8 * row_height()
    rank = {k: place + 1 for place, k in enumerate(answer.ranking())}
    for i, j, value in answer.interactions:
        left = x
        for k in (i, j):
            left += pictured(sheet, portrait(answer.picture, answer.geometry, answer.pictures, k), left, y, 0.9 * small)
        means = "worth more together" if value > 0 else "they overlap" if value < 0 else "independent"
        colour = FOR if value > 0 else AGAINST if value < 0 else QUIET
        top = y + (row_height() - 2 * leading(TEXT)) / 2
        sheet.line(number(value), left + 0.02, top, TEXT, colour=colour, bold=True)
        text = f"{rank[i]} and {rank[j]}: {means}"
        sheet.line(text, left + 0.02, top + leading(TEXT), TEXT, colour=INK, width=x + width - left - 0.02)
        y += small
    return y


__all__ = ["draw"]
