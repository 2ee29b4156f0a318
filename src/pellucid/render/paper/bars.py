"""Rows of a ranking: a player's picture, its name, its bar from zero with its interval, its number.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.importance.result import Answer, Share
from pellucid.render.paper.colour import number
from pellucid.render.paper.sheet import AGAINST, FAINT, FOR, INK, QUIET, TRACK, Column, Sheet, leading, text_width
from pellucid.render.paper.tiles import SMALL, TEXT

_ROW, _THUMB, _NAME, _NUMBER = 0.46, 0.42, 1.55, 0.62  # inches
_BAR = 0.15


def row_height() -> float:
    """Inches a row."""
    return _ROW


@dataclass(frozen=True)
class Scale:
    """The values at the two ends of the bars; 0 lies between them."""

    low: float
    high: float

    @classmethod
    def over(cls, share: Share, players: Sequence[int], *, single: bool = False) -> Scale:
        """The scale on which these players' bars and intervals fit, and their single values if asked."""
        parts = [share.values[list(players)], share.low[list(players)], share.high[list(players)]]
        if single and share.single is not None:
            parts.append(share.single[:, list(players)].flatten())
        finite = np.concatenate([p.double().numpy().ravel() for p in parts])
        finite = finite[np.isfinite(finite)]
        low, high = (min(0.0, float(finite.min())), max(0.0, float(finite.max()))) if finite.size else (0.0, 0.0)
        return cls(low, high) if low < high else cls(0.0, 1.0)

    def place(self, value: float, start: float, width: float) -> float:
        """Where a value lies on `width` inches from `start`."""
        return start + width * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Bars:
    """Rows of a ranking: `names[k]` of each of the `players`, its value in the `share`, and its picture."""

    names: Sequence[str]
    share: Share
    players: Sequence[int]
    images: Sequence[NDArray[np.uint8] | None]

    def draw(self, sheet: Sheet, at: Column, scale: Scale, swarm: Scale | None = None) -> float:
        """One row a player, with the single pictures' values beside it on the scale ``swarm``; where they end."""
        x, y, share, height = at.x, at.y, self.share, len(self.players) * _ROW
        thumb = _THUMB + 0.1 if any(image is not None for image in self.images) else 0.0
        name = x + thumb + 0.22
        wide = min(_NAME, max((text_width(self.names[k], TEXT) for k in self.players), default=0.0) + 0.02)
        bars = name + wide + 0.12
        end = x + at.width - _NUMBER
        dots = end
        if swarm is not None:
            middle = bars + 0.42 * (x + at.width - bars)
            end, dots = middle - _NUMBER, middle + 0.12
        zero = scale.place(0.0, bars, end - bars)
        sheet.box(zero - 0.006, y, 0.012, height, colour=FAINT)
        if swarm is not None:
            sheet.box(swarm.place(0.0, dots, x + at.width - dots) - 0.004, y, 0.008, height, colour=FAINT)
        for rank, (k, image) in enumerate(zip(self.players, self.images, strict=True)):
            top, value = y + rank * _ROW, float(share.values[k])
            middle = top + _ROW / 2
            line = middle - leading(TEXT) / 2
            pictured(sheet, image, x, top, _THUMB)
            sheet.line(str(rank + 1), x + thumb + 0.14, line, TEXT, colour=QUIET, align="right")
            sheet.line(self.names[k], name, line, TEXT, width=wide)
            sheet.box(bars, middle - _BAR / 2, end - bars, _BAR, colour=TRACK, alpha=0.5)
            colour = FOR if value > 0 else AGAINST
            if math.isfinite(value):
                tip = scale.place(value, bars, end - bars)
                sheet.box(min(zero, tip), middle - _BAR / 2, abs(tip - zero), _BAR, colour=colour)
            _whisker(sheet, float(share.low[k]), float(share.high[k]), scale, bars, end - bars, middle)
            sheet.line(number(value), end + _NUMBER - 0.02, line, TEXT, colour=colour, align="right")
            if swarm is not None and share.single is not None:
                single = share.single[:, k].double().numpy()
                _swarm(sheet, single, value, swarm, dots, x + at.width - dots, middle)
        y += height
        if scale.low < 0:
            sheet.line("against", zero - 0.05, y, SMALL, colour=AGAINST, align="right")
        if scale.high > 0:
            sheet.line("for", zero + 0.05, y, SMALL, colour=FOR)
        return y + leading(SMALL) + 0.04


def _whisker(sheet: Sheet, low: float, high: float, scale: Scale, start: float, width: float, middle: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return
    left, right = (scale.place(v, start, width) for v in (low, high))
    sheet.box(left, middle - 0.009, right - left, 0.018, colour=INK)
    for end in (left, right):
        sheet.box(end - 0.008, middle - 0.045, 0.016, 0.09, colour=INK)


def _swarm(
    sheet: Sheet, values: NDArray[np.float64], mean: float, scale: Scale, start: float, width: float, middle: float
) -> None:
    """A dot a picture, moved up and down where dots would lie on each other; a tick at the mean."""
    values = np.sort(values[np.isfinite(values)])
    size = 0.055 if len(values) <= 60 else 0.038
    xs = np.array([scale.place(float(v), start, width) for v in values])
    columns = np.round(xs / size).astype(int)
    height = np.zeros(len(values))
    for column in np.unique(columns):
        inside = np.flatnonzero(columns == column)
        steps = (np.arange(len(inside)) + 1) // 2 * np.where(np.arange(len(inside)) % 2, 1, -1)
        height[inside] = steps * min(size, 0.8 * _ROW / max(1, len(inside)))
    for sign, colour in ((1, FOR), (-1, AGAINST)):
        some = (values > 0) == (sign > 0)
        if some.any():
            sheet.dots(xs[some], middle + height[some], size, colour=colour, alpha=0.6)
    tick = scale.place(mean, start, width)
    sheet.box(tick - 0.01, middle - 0.14, 0.02, 0.28, colour=INK)


def pictured(sheet: Sheet, image: NDArray[np.uint8] | None, x: float, y: float, side: float) -> float:
    """A small picture within a square of ``side`` inches; the width it takes with its gap."""
    if image is None:
        return 0.0
    sheet.fitted(image, x, y + (_ROW - side) / 2, side)
    return side + 0.1


def score_line(sheet: Sheet, answer: Answer, x: float, y: float, width: float) -> float:
    """How the values add up to the score, in words; where it ends."""
    if not math.isfinite(answer.full):
        return y
    total, gap = float(answer.values.sum()), answer.efficiency_gap
    known = abs(gap) <= 1e-3 * max(abs(answer.full - answer.empty), 1e-12)
    rest = "" if known else f" {_signed(gap)} that no player is given"
    text = (
        f"score {number(answer.full)} = {number(answer.empty)} with none of them {_signed(total)} from all "
        f"{len(answer.names)}{rest}"
    )
    return y + sheet.paragraph(text, x, y, width, TEXT, colour=INK)


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'} {number(abs(value))}"
