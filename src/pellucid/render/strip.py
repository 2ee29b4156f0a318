"""A clip explained: for each map a strip of key frames above the evidence over time, and a slice through x and time.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.explanation import Explanation, TemporalCurve
from pellucid.render.paper.colour import limits, number
from pellucid.render.paper.display import display, display_geometry
from pellucid.render.paper.overlay import overlay
from pellucid.render.paper.page import MARGIN, MIN_CELL, head, picture_box, side
from pellucid.render.paper.sheet import (
    AGAINST,
    FAINT,
    FOR,
    INK,
    QUIET,
    TRACK,
    WARNING,
    Column,
    Sheet,
    leading,
    text_width,
)
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE, banner, colour_bar, remarks

_FRAMES, _CURVE, _GAP, _BETWEEN = 6, 0.75, 0.08, 0.36  # key frames; inches: of the curve, between frames, sections
_SLICE = 1.42  # inches: width of the slice through x and time
_NARROW = 4.4  # inches that a curve and what is said of it need


def strips(explanations: Sequence[Explanation], width: float) -> Figure:
    """The figure, `width` inches wide, of the explanations of one clip, one below the other."""
    first = explanations[0]
    picture = picture_box(display_geometry(first.geometry)[0].source_size)
    cell = Column(MARGIN, MARGIN, max(picture[0], MIN_CELL), picture)
    sheet = Sheet(width)
    left = MARGIN + cell.width + 0.35
    bottom = side(sheet, first, {e.target for e in explanations}, [e.geometry for e in explanations], cell)
    y = MARGIN
    for e in explanations:
        y = _explained(sheet, e, Column(left, y, width - left - MARGIN, (0.0, 0.0))) + _BETWEEN
    return sheet.finish(max(bottom, y - _BETWEEN) + MARGIN)


def _explained(sheet: Sheet, e: Explanation, at: Column) -> float:
    """Heading, strip, curve, slice and remarks of one explanation; where they end."""
    known = [p.said(1) for p in e.prediction if p.label == e.target]
    y = head(sheet, e.target, "".join(known[:1]), at, at.width)
    y += sheet.line(e.method, at.x, y, TITLE, bold=True, width=at.width)
    y += 0.05 + sheet.line(e.layer or "at the input", at.x, y, TEXT, colour=QUIET, width=at.width)
    if e.kind != "map":
        return y + sheet.line("One number per channel: see .ranking().", at.x, y, TEXT, colour=WARNING)
    room, least = at.width - _SLICE - 0.3 + _GAP, _GAP + max(text_width(_moment(e, i), SMALL) for i in (0, -1))
    keys = key_frames(e, max(1, min(_FRAMES, int(room // least))))
    shown = [display(e, 320, i) for i in keys]
    aspect = shown[0].values.shape[0] / shown[0].values.shape[1]
    width = room / max(4, len(keys)) - _GAP
    height = min(width * aspect, 2.0)
    width = height / aspect
    step = _GAP + max(width, *(text_width(_moment(e, i), SMALL) for i in keys))
    for k, (i, one) in enumerate(zip(keys, shown, strict=True)):
        middle = at.x + k * step + (step - _GAP) / 2
        sheet.image(one.image(), middle - width / 2, y, width, height)
        sheet.line(_moment(e, i), middle, y + height + 0.02, SMALL, colour=QUIET, align="center")
    strip = len(keys) * step - _GAP
    if shown[0].problem:
        banner(sheet, shown[0].problem, replace(at.down(y), picture=(strip, height)), height)
    right = at.x + strip + 0.3
    below = _slice(sheet, e, replace(at.down(y), x=right, width=min(_SLICE, at.x + at.width - right)), height)
    y += height + 0.02 + leading(SMALL) + 0.06
    y = max(y, below) if strip < _NARROW else y
    y = _curve(sheet, e, keys, replace(at.down(y), width=max(strip, min(_NARROW, at.width))))
    y = max(y, below)
    if shown[0].limits.low < shown[0].limits.high:
        y = colour_bar(sheet, shown[0], replace(at.down(y + 0.04), width=min(3.0, at.width)))
    for caption in (*shown[0].captions, _drawn(e)):
        y += sheet.line(caption, at.x, y, SMALL, colour=FAINT, width=at.width)
    return remarks(sheet, e, at.down(y))


def key_frames(e: Explanation, count: int = _FRAMES) -> list[int]:
    """Frames to show: evenly spread over the clip, the nearest one moved to where the evidence peaks."""
    total = e.geometry.source_size[0]
    keys = sorted({round(k * (total - 1) / max(1, count - 1)) for k in range(count)})
    curve = e.temporal()
    if len(keys) < 3 or len(set(curve.values)) < 2 or not np.isfinite(curve.values).all():
        return keys
    ticks = np.asarray(e.geometry.ticks)
    peak = int(np.abs(ticks - curve.peak).argmin())
    nearest = min(range(len(keys)), key=lambda k: abs(keys[k] - peak))
    return sorted({*keys[:nearest], peak, *keys[nearest + 1 :]})


def _moment(e: Explanation, index: int) -> str:
    at = e.geometry.ticks[index]
    return f"{at:.2f} s" if e.geometry.unit == "s" else f"frame {at:.0f}"


def _drawn(e: Explanation) -> str:
    """What was done to draw the map, and how fine it is by itself."""
    grid, frames = tuple(e.tube().shape), e.geometry.source_size[0]
    cells = " × ".join(map(str, grid))
    return f"the map has {cells} cells (time × height × width) for {frames} frames; interpolated in the drawing only"


def _curve(sheet: Sheet, e: Explanation, keys: Sequence[int], at: Column) -> float:
    """The evidence of each cell of time as a bar from zero, with its error, and where the frames above it are."""
    curve = e.temporal()
    values = np.nan_to_num(np.asarray(curve.values))
    told = curve.error if curve.half is None else curve.half
    errors = np.zeros_like(values) if told is None else np.nan_to_num(np.asarray(told))
    low, high = min(0.0, (values - errors).min()), max(0.0, (values + errors).max())
    if low == high:
        return at.y + sheet.line("No evidence at any time.", at.x, at.y, SMALL, colour=WARNING)
    inch = _CURVE / (high - low)
    zero = at.y + inch * high
    borders = edges(e, curve)
    begin, end = borders[0], borders[-1]
    scale = at.width / max(end - begin, 1e-9)
    sheet.box(at.x, at.y, at.width, _CURVE, colour=TRACK, alpha=0.6)
    for value, error, start, stop in zip(values, errors, borders, borders[1:], strict=False):
        if stop <= start:
            continue  # of frames that only pad the input
        x, wide = at.x + (start - begin) * scale, max(0.01, (stop - start) * scale - 0.015)
        top = zero - inch * max(value, 0.0)
        sheet.box(x, top, wide, inch * abs(value), colour=FOR if value > 0 else AGAINST, alpha=0.85)
        if told is not None:
            sheet.box(x + wide / 2 - 0.008, zero - inch * (value + error), 0.016, 2 * inch * error, colour=INK)
    sheet.box(at.x, zero - 0.004, at.width, 0.008, colour=INK)
    for i in keys:
        x = at.x + min(max((e.geometry.ticks[i] - begin) * scale, 0.0), at.width)
        sheet.box(x - 0.006, at.y + _CURVE, 0.012, 0.05, colour=INK)
    y = at.y + _CURVE + 0.06
    unit = " s" if curve.unit == "s" else ""
    sheet.line(f"{begin:.2f}{unit}", at.x, y, SMALL, colour=QUIET)
    sheet.line(f"{end:.2f}{unit}", at.x + at.width, y, SMALL, colour=QUIET, align="right")
    band = "" if told is None else f", thin bars: {'standard error' if curve.half is None else '95 % interval'}"
    text = f"evidence over time, summed over places: up to {number(float(values.max()))}{band}"
    if 2 * text_width(f" {end:.2f}{unit} ", SMALL) + text_width(text, SMALL) > at.width:
        y += leading(SMALL)
    return y + sheet.line(text, at.x + at.width / 2, y, SMALL, colour=QUIET, align="center", width=at.width)


def edges(e: Explanation, curve: TemporalCurve) -> list[float]:
    """Where the cells of time begin and end, on the axis of time; cells behind the clip's end get none of it."""
    cells, ticks = len(curve.values), np.asarray(e.geometry.ticks, float)
    step = float(np.diff(ticks).mean()) if len(ticks) > 1 else 1.0
    start, stop = e.geometry.box[0]
    frames = start + np.arange(cells + 1) / cells * (stop - start)
    edges = np.interp(frames, np.arange(len(ticks) + 1), [*ticks, ticks[-1] + step])
    return [float(x) for x in edges]


def _slice(sheet: Sheet, e: Explanation, at: Column, height: float) -> float:
    """Evidence over x and time, summed over y: where movement is a slanted line; where it ends."""
    if at.width < 0.5:
        return at.y
    tube = np.nan_to_num(e.tube().float().numpy())
    values = np.ascontiguousarray(tube.sum(1), np.float32)
    signed = bool(values.min() < 0)
    grey = np.full((*values.shape, 3), 110, np.uint8)
    image = overlay(grey, values, signed=signed, limits=limits(values, signed=signed))
    enlarged: NDArray[np.uint8] = image.repeat(8, 0).repeat(8, 1)  # cells stay cells
    sheet.image(enlarged, at.x, at.y, at.width, height)
    y = at.y + height + 0.02
    return y + sheet.paragraph("x →, time ↓, summed over y", at.x, y, at.width, SMALL, colour=QUIET)
