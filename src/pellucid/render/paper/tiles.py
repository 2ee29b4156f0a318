"""One explanation on a sheet: its title, its picture or chart, its colour bar, and what must be said about it.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pellucid.explanation import Explanation
from pellucid.heatmaps.enough import certificate
from pellucid.language import translated
from pellucid.render.paper.colour import limits, number
from pellucid.render.paper.display import Display, display, display_error, display_geometry, ground_pixels, spread
from pellucid.render.paper.marks import mark_asked, with_edge
from pellucid.render.paper.overlay import overlay
from pellucid.render.paper.pairs import matched, other_display
from pellucid.render.paper.sheet import (
    AGAINST,
    FAINT,
    FOR,
    INK,
    PAPER,
    QUIET,
    TRACK,
    WARNING,
    Column,
    Sheet,
    leading,
    plain,
    text_width,
    wrapped,
)

TITLE, TEXT, SMALL = 9.0, 7.2, 6.4  # points
_ROW, _THUMB = 0.35, 0.31  # inches a channel, and its activation map
_ERROR = 0.42  # of the map's size: its error


def tile(sheet: Sheet, e: Explanation, at: Column, *, target: bool) -> float:
    """Draw an explanation in a cell, under its method's name or its target's; where it ends."""
    shown = display(e) if e.kind == "map" else None
    title, *subtitle = (e.target, e.method) if target else (e.method,)
    subtitle += [e.layer or "at the input", shown.part if shown else ""]
    y = at.y + sheet.line(title, at.x, at.y, TITLE, bold=True, width=at.width)
    y += 0.05 + sheet.line(" · ".join(filter(None, subtitle)), at.x, y, TEXT, colour=QUIET, width=at.width)
    y = _map(sheet, shown, at.down(y), e) if shown else _channels(sheet, e, at.down(y))
    if shown and (error := display_error(e)) is not None:
        y = _error(sheet, error, e, at.down(y + 0.05))
    return remarks(sheet, e, at.down(y))


def remarks(sheet: Sheet, e: Explanation, at: Column) -> float:
    """Measured quality, what was measured besides, and what must be said; where they end."""
    y = at.y
    if vouched := certificate(e.facts):
        y += 0.05 + sheet.paragraph(vouched, at.x, y + 0.05, at.width, TEXT, colour=INK, rows=7)
    if e.quality is not None:
        y += 0.05 + sheet.paragraph(e.quality.line, at.x, y + 0.05, at.width, TEXT, colour=INK, rows=7)
    for remark in e.remarks:
        y += 0.05 + sheet.paragraph(remark, at.x, y + 0.05, at.width, TEXT, colour=INK, rows=8)
    for note in e.notes:
        sheet.line("⚠", at.x, y + 0.05, TEXT, colour=WARNING)
        y += 0.05 + sheet.paragraph(note, at.x + 0.15, y + 0.05, at.width - 0.15, TEXT, colour=WARNING)
    return y


def _map(sheet: Sheet, shown: Display, at: Column, e: Explanation) -> float:
    """The overlay, its colour bar, and what was done for display; where they end."""
    width, height = at.fit(shown.values.shape)
    other = other_display(e, shown)
    shown = shown if other is None else replace(shown, limits=other.limits)
    sheet.image(with_edge(shown.image(), e), at.x, at.y, width, height)
    mark_asked(sheet, e, (at.x, at.y, width, height))
    if shown.problem:
        banner(sheet, shown.problem, at, height)
    end = at.y + height
    if other is not None:
        end = matched(sheet, e, other, at.down(end), (at.x, at.y, width, height))
    y = end + 0.06
    if shown.limits.low < shown.limits.high:
        y = colour_bar(sheet, shown, at.down(y))
    for caption in shown.captions:
        y += sheet.line(caption, at.x, y, SMALL, colour=FAINT, width=at.width)
    return y


def _error(sheet: Sheet, error: Display, e: Explanation, at: Column) -> float:
    """How wide a sampled map's 95 % interval is: small, with a colour bar of its own beside it; where it ends."""
    width, height = (_ERROR * n for n in at.fit(error.values.shape))
    sheet.image(error.image(), at.x, at.y, width, height)
    left = at.x + width + 0.12
    beside = replace(at, x=left, width=at.x + at.width - left)
    y = (
        at.y
        + sheet.line(
            "standard error" if e.interval() is None else "± 95 % interval", left, at.y, TEXT, width=beside.width
        )
        + 0.05
    )
    y = colour_bar(sheet, error, beside.down(y))
    relative = e.facts.get("relative_standard_error")
    if relative is not None:
        said = f"{relative:.0%} of the map’s spread"
        said = said if e.interval() is None else f"standard error {relative:.0%} of the map’s spread"
        y += sheet.paragraph(said, left, y, beside.width, SMALL, colour=FAINT, rows=2)
    return max(y, at.y + height) + 0.03


def banner(sheet: Sheet, text: str, at: Column, height: float) -> None:
    """A sentence across the middle of what is ``height`` inches high."""
    width = max(at.picture[0], 1.6)
    lines = wrapped(plain(text), width - 0.2, TEXT, rows=5, bold=True)
    tall = len(lines) * leading(TEXT) + 0.12
    y = at.y + max(0.0, (height - tall) / 2)
    sheet.box(at.x, y, width, tall, colour=PAPER, alpha=0.93)
    for row, words in enumerate(lines):
        below = y + 0.06 + row * leading(TEXT)
        sheet.line(words, at.x + width / 2, below, TEXT, colour=WARNING, bold=True, align="center")


def colour_bar(sheet: Sheet, shown: Display, at: Column) -> float:
    """The map's colours as they look over an even grey, and the raw values at its ends; where it ends."""
    low, high, clipped = shown.limits
    ramp = np.linspace(low, high, 257, dtype=np.float32)[None].repeat(2, 0)
    grey = np.full((*ramp.shape, 3), 128, np.uint8)
    bar = overlay(grey, ramp, signed=shown.signed, limits=shown.limits, ground=shown.ground)
    sheet.image(bar, at.x, at.y, at.width, 0.07)
    y = at.y + 0.09
    left = f"≤ {number(low)}" if clipped and low else number(low)
    right = f"≥ {number(high)}" if clipped else number(high)
    if shown.signed:
        against = f"{left} {translated('against')}"
        sheet.line(against, at.x, y, SMALL, colour=AGAINST)
        if text_width(against, SMALL) < at.width / 2 - 0.1:
            sheet.line("0", at.x + at.width / 2, y, SMALL, colour=QUIET, align="center")
        sheet.line(f"{translated('for')} {right}", at.x + at.width, y, SMALL, colour=FOR, align="right")
    else:
        sheet.line(left, at.x, y, SMALL, colour=QUIET)
        sheet.line(right, at.x + at.width, y, SMALL, colour=QUIET, align="right")
    return y + leading(SMALL)


def _channels(sheet: Sheet, e: Explanation, at: Column) -> float:
    """The leading channels: each one's own activation map, its number, its relevance as a bar from zero."""
    values = e.attribution[0].detach().to("cpu").double().numpy()
    total = float(np.abs(values).sum())
    if total == 0 or not math.isfinite(total):
        word = "zero: it explains nothing" if total == 0 else "not finite: don’t trust it"
        sheet.box(at.x, at.y, *at.picture, colour=TRACK)
        banner(sheet, f"Every channel’s relevance is {word}.", at, at.picture[1])
        return at.y + at.picture[1] + 0.06
    kept = e.extras.get("channels")
    ids = [i for i, _ in e.ranking()[:8]] if kept is None else [int(i) for i in kept[0]]
    label = at.x + _thumbnails(sheet, e, at)
    start, end = label + 0.45, at.x + at.width - 0.52
    low, high = min(0.0, values[ids].min()), max(0.0, values[ids].max())
    inch = (end - start) / (high - low)
    zero = start - inch * low
    sheet.box(zero - 0.007, at.y, 0.014, len(ids) * _ROW, colour=FAINT)
    for row, i in enumerate(ids):
        value, colour = float(values[i]), FOR if values[i] > 0 else AGAINST
        y = at.y + row * _ROW + (_THUMB - leading(TEXT)) / 2
        reach = inch * abs(value)
        sheet.line(f"#{i}", label, y, TEXT)
        sheet.box(zero - reach * (value < 0), y + 0.01, reach, leading(TEXT) - 0.02, colour=colour)
        sheet.line(number(value), at.x + at.width, y, TEXT, colour=colour, align="right")
    y = at.y + len(ids) * _ROW
    if low < 0:
        sheet.line("against", zero - 0.05, y, SMALL, colour=AGAINST, align="right")
    if high > 0:
        sheet.line("for", zero + 0.05, y, SMALL, colour=FOR)
    y += leading(SMALL)
    share = f"{len(ids)} of {len(values)} channels, {float(np.abs(values[ids]).sum()) / total:.0%} of Σ|relevance|"
    return y + sheet.line(share, at.x, y, SMALL, colour=FAINT, width=at.width)


def _thumbnails(sheet: Sheet, e: Explanation, at: Column) -> float:
    """Each leading channel's activation map over what the model saw; the width they take."""
    activations = e.extras.get("activations")
    if activations is None:
        return 0.0
    geometry, _ = display_geometry(e.geometry)
    pixels = ground_pixels(e, geometry.source_size[-2:])
    taken = 0.0
    for row, one in enumerate(activations[0]):
        values = spread(one, geometry)
        seen = np.ix_(*(np.isfinite(values).any(axis) for axis in (1, 0)))
        values = values[seen]
        signed = bool(values.min() < 0)
        image = overlay(pixels[seen], values, signed=signed, limits=limits(values, signed=signed))
        scale = min(_THUMB / values.shape[0], 0.3 * at.width / values.shape[1])
        height, width = (n * scale for n in values.shape)
        sheet.image(image, at.x, at.y + row * _ROW + (_THUMB - height) / 2, width, height)
        taken = width + 0.1
    return taken
