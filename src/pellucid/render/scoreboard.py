"""A scoreboard on one sheet: who to take, every method on every metric, and the curves with their bands.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.evaluation.scores import ScoreData
from pellucid.numerics.agreement import mean_interval
from pellucid.render.paper.colour import number
from pellucid.render.paper.page import MARGIN, head
from pellucid.render.paper.sheet import AGAINST, FAINT, FOR, INK, QUIET, WARNING, Column, Sheet, leading
from pellucid.render.paper.tiles import SMALL, TEXT

_NAME, _CELL, _ROW = 2.0, 1.08, 0.24  # inches: a metric's name, a method's column, a row
_PLOT, _GAP = (1.5, 0.9), 0.3
_LEAST = 7.0


def draw(found: ScoreData) -> Figure:
    """The sheet of a scoreboard."""
    order = found.order
    wide = max(_LEAST, _NAME + _CELL * len(order))
    sheet = Sheet(2 * MARGIN + wide)
    y = head(sheet, found.title, "", Column(MARGIN, MARGIN, wide, (0, 0)), wide)
    for line in found.lines():
        y += 0.04 + sheet.paragraph(line, MARGIN, y, wide, TEXT, colour=INK)
    for note in found.notes:
        y += 0.04 + sheet.paragraph(note, MARGIN, y, wide, TEXT, colour=WARNING)
    y = _table(sheet, found, order, y + 0.15)
    if found.curves.shape[-1]:
        y = _curves(sheet, found, order, y + 0.2, wide)
    return sheet.finish(y + MARGIN)


def _table(sheet: Sheet, found: ScoreData, order: list[int], y: float) -> float:
    """Means with half of their intervals; the darker, the better the mean rank."""
    for column, c in enumerate(order):
        x = MARGIN + _NAME + _CELL * column
        sheet.paragraph(found.methods[c], x, y, _CELL - 0.06, SMALL, colour=QUIET if found.blind[c] else INK, rows=2)
    y += 2 * leading(SMALL) + 0.04
    category = ""
    for k, metric in enumerate(found.metrics):
        if metric.category != category:
            category = metric.category
            sheet.line(category, MARGIN, y + 0.03, SMALL, colour=QUIET)
            y += _ROW
        arrow = "↑" if metric.better == "higher" else "↓"
        sheet.line(f"{metric.name} {arrow}", MARGIN + 0.1, y + 0.03, SMALL, width=_NAME - 0.15)
        for column, c in enumerate(order):
            x = MARGIN + _NAME + _CELL * column
            mean, half = found.interval(c, k)
            if not math.isfinite(mean):
                sheet.line("none", x, y + 0.03, SMALL, colour=FAINT)
                continue
            share = 1 - (found.places[c, k] - 1) / max(1, len(order) - 1)
            sheet.box(x - 0.04, y, _CELL - 0.05, _ROW - 0.03, colour=AGAINST, alpha=0.32 * max(0.0, share), under=True)
            told = number(mean) + (f" ± {half:.2g}" if math.isfinite(half) else "")
            sheet.line(told, x, y + 0.03, SMALL, width=_CELL - 0.1)
        y += _ROW
    return y


def _curves(sheet: Sheet, found: ScoreData, order: list[int], y: float, wide: float) -> float:
    """Each method's two curves, most relevant first and least relevant first, mean and 95 % interval."""
    y += sheet.line(
        "probability as pixels are hidden: the most relevant first (red), the least relevant first (blue)",
        MARGIN, y, SMALL, colour=INK, width=wide,
    ) + 0.08  # fmt: skip
    known = found.curves[np.isfinite(found.curves)]
    low, high = (min(0.0, float(known.min())), float(known.max())) if known.size else (0.0, 1.0)
    width, height = _PLOT
    each = max(1, int((wide + _GAP) / (width + _GAP)))
    for place, c in enumerate(order):
        x = MARGIN + (place % each) * (width + _GAP)
        top = y + (place // each) * (height + 0.45)
        sheet.line(found.methods[c], x, top, SMALL, colour=QUIET if found.blind[c] else INK, width=width)
        base = top + leading(SMALL) + 0.03
        sheet.stroke([(x, base), (x, base + height), (x + width, base + height)], colour=FAINT, width=0.8)
        for side, colour in ((0, FOR), (1, AGAINST)):
            mean, below, above = band(found.curves[c, :, side])
            if not np.isfinite(mean).all():
                continue
            at = [x + width * t for t in np.linspace(0, 1, len(mean))]

            def down(values: NDArray[np.float64], base: float = base) -> list[float]:
                return [base + height * (1 - (v - low) / ((high - low) or 1)) for v in values.clip(low, high)]

            for left, right, a, b, c_, d in zip(
                at, at[1:], down(above), down(above)[1:], down(below), down(below)[1:], strict=False
            ):
                top_, bottom = (a + b) / 2, (c_ + d) / 2
                sheet.box(left, top_, right - left, max(0.0, bottom - top_), colour=colour, alpha=0.15, under=True)
            sheet.stroke(list(zip(at, down(mean), strict=True)), colour=colour, width=1.4)
    rows = -(-len(order) // each)
    return y + rows * (height + 0.45)


def band(curves: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean and 95 % interval of curves `(samples, S)`, each `(S,)`; without an interval, the mean itself."""
    rows = np.array([mean_interval(column) for column in curves.T])
    mean, low, high = rows.T
    return mean, np.where(np.isfinite(low), low, mean), np.where(np.isfinite(high), high, mean)
