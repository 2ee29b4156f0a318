"""The sheet of a feature visualisation: for each unit what was made, what nature offers, and what the figures mean.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.features.exemplars import Exemplar
from pellucid.features.feature_image import Given, UnitPicture
from pellucid.features.folder import Patch
from pellucid.render.paper.colour import limits, number
from pellucid.render.paper.display import display_geometry, spread
from pellucid.render.paper.overlay import overlay
from pellucid.render.paper.rgb import Pixels, rgb, small_picture
from pellucid.render.paper.sheet import FAINT, FOR, INK, QUIET, TRACK, WARNING, Sheet, leading, text_width

HEAD, TITLE, TEXT, SMALL = 12.0, 8.6, 6.9, 6.4  # points
_MARGIN, _GAP, _THIN = 0.35, 0.34, 0.05  # inches: around, between cards, between thumbnails
_SHOWN = 4  # exemplars a card
_THUMB = 200  # pixels


@dataclass(frozen=True)
class _Card:
    """A card's measures, in inches."""

    picture: float
    columns: int  # of thumbnails

    @property
    def thumb(self) -> float:
        """A thumbnail's side: two rows are as high as the picture."""
        return (self.picture - _THIN) / 2

    @property
    def width(self) -> float:
        """Of the whole card."""
        return self.picture + self.columns * (self.thumb + _THIN) + (0.07 if self.columns else 0)


def feature_sheet(units: Sequence[UnitPicture], about: str) -> Figure:
    """Cards of units, as many in a row as look well.

    Args:
        units: what was found.
        about: a line on how, for the head.
    """
    if not units:
        raise PellucidError("There is nothing to draw: give at least one unit.")
    across = 1 if len(units) == 1 else 2 if len(units) <= 4 else 3
    natural = max((len(u.natural.top) for u in units if u.natural), default=0)
    given = any(u.fires is not None for u in units)
    card = _Card({1: 2.9, 2: 1.9, 3: 1.5}[across], min(_SHOWN, natural) + given)
    if not card.columns:
        across = min(len(units), max(across, 4))
    width = max(card.width, 1.9) if not card.columns else card.width
    sheet = Sheet(2 * _MARGIN + across * width + (across - 1) * _GAP)
    y = _head(sheet, units, about)
    for start in range(0, len(units), across):
        bottoms = []
        for i, unit in enumerate(units[start : start + across]):
            x = _MARGIN + i * (width + _GAP)
            bottoms.append(_draw(sheet, unit, card, x, y, width, several=len(units) > 1))
        y = max(bottoms) + 0.24
    return sheet.finish(y - 0.24 + _MARGIN)


def _head(sheet: Sheet, units: Sequence[UnitPicture], about: str) -> float:
    model = units[0].record.model_name
    layers = list(dict.fromkeys(u.layer for u in units if u.layer))
    several = f"{len(units)} units of {layers[0]}" if layers else f"{len(units)} units"
    what = several if len(units) > 1 else units[0].objective
    wide = sheet.width - 2 * _MARGIN
    y = _MARGIN + sheet.line(f"{what}, {model}", _MARGIN, _MARGIN, HEAD, bold=True, width=wide)
    y += sheet.line(about, _MARGIN, y, TEXT, colour=QUIET, width=wide)
    if any(u.natural and u.natural.top for u in units):
        legend = (
            "Left: made by gradient ascent. Upper row: what the unit looks at in the natural pictures that score "
            "highest. Lower row: the whole picture with the unit’s map. Bar: natural scores (grey) and the made "
            "picture’s (red)."
        )
        y += sheet.paragraph(legend, _MARGIN, y, wide, TEXT, colour=QUIET)
    sheet.box(_MARGIN, y + 0.05, wide, 0.014, colour=INK)
    return y + 0.2


def _draw(sheet: Sheet, unit: UnitPicture, card: _Card, x: float, y: float, width: float, *, several: bool) -> float:
    title = f"channel {unit.channel}" if several and unit.channel is not None else unit.objective
    y += 0.03 + sheet.line(title, x, y, TITLE, bold=True, width=width)
    pictures = list(unit.pictures)
    _made(sheet, pictures, x, y, card.picture)
    left = x + card.picture + 0.07 + _THIN
    step = card.thumb + _THIN
    if unit.fires is not None and unit.given is not None:
        _on_given(sheet, unit.fires, unit.given, left, y, card.thumb)
        left += step
    for i, exemplar in enumerate(unit.natural.top[:_SHOWN] if unit.natural else ()):
        sheet.image(crop(exemplar), left + i * step, y, card.thumb, card.thumb)
        whole = in_context(exemplar)
        high, wide = (n * card.thumb / max(whole.shape[:2]) for n in whole.shape[:2])
        sheet.image(whole, left + i * step + (card.thumb - wide) / 2, y + step + (card.thumb - high) / 2, wide, high)
    y += card.picture + 0.06
    if unit.natural is not None and unit.quality.standing is not None:
        y = _scores(sheet, unit, x, y, width)
    believed = unit.quality.verdict == "agrees"
    y += sheet.paragraph(unit.quality.line, x, y, width, TEXT, colour=INK if believed else WARNING, rows=6)
    for note in unit.notes:
        y += sheet.paragraph(note, x, y, width, TEXT, colour=WARNING, rows=5)
    return y


def _made(sheet: Sheet, pictures: Sequence[object], x: float, y: float, size: float) -> None:
    """One made picture, or several in a square."""
    across = math.ceil(math.sqrt(len(pictures)))
    each = (size - (across - 1) * 0.03) / across
    for i, picture in enumerate(pictures):
        pixels = rgb(picture)  # type: ignore[arg-type]
        high, wide = (n * each / max(pixels.shape[:2]) for n in pixels.shape[:2])
        row, column = divmod(i, across)
        left, top = x + column * (each + 0.03) + (each - wide) / 2, y + row * (each + 0.03) + (each - high) / 2
        sheet.image(pixels, left, top, wide, high)


def _on_given(sheet: Sheet, fires: Tensor, given: Given, x: float, y: float, size: float) -> None:
    """The unit's map on the user's own picture."""
    shown, _ = display_geometry(given.geometry, _THUMB)
    pixels = np.asarray(given.picture.pil().resize((shown.source_size[-1], shown.source_size[-2])))
    values = spread(fires, shown)
    signed = bool(np.nanmin(values) < 0)
    image = overlay(pixels, values, signed=signed, limits=limits(values, signed=signed))
    high, wide = (n * size / max(image.shape[:2]) for n in image.shape[:2])
    sheet.image(image, x, y, wide, high)
    sheet.line(f"on {given.picture.name}", x, y + high + 0.03, SMALL, colour=QUIET, width=size)
    sheet.line(f"up to {number(float(fires.max()))}", x, y + high + 0.03 + leading(SMALL), SMALL, colour=QUIET)


def _scores(sheet: Sheet, unit: UnitPicture, x: float, y: float, width: float) -> float:
    """Natural scores on a line, and where the made picture stands; where it ends."""
    assert unit.natural is not None
    assert unit.quality.standing is not None
    levels, made = unit.natural.percentiles, unit.quality.standing.value
    low, high = min(float(levels[0]), made, 0.0), max(float(levels[-1]), made, 0.0)
    inch = width / ((high - low) or 1.0)

    def at(value: float) -> float:
        return x + inch * (value - low)

    sheet.box(x, y, width, 0.05, colour=TRACK)
    sheet.box(at(float(levels[0])), y, inch * float(levels[-1] - levels[0]), 0.05, colour=FAINT)
    sheet.box(at(float(levels[5])), y, inch * float(levels[95] - levels[5]), 0.05, colour=QUIET)
    sheet.box(at(made) - 0.02 * (made > low), y - 0.02, 0.028, 0.09, colour=FOR)
    y += 0.085
    natural = f"natural up to {number(float(levels[-1]))}"
    told = f"made {number(made)}"
    sheet.line(natural, x, y, SMALL, colour=QUIET)
    if text_width(natural, SMALL) + text_width(told, SMALL) < width - 0.1:
        sheet.line(told, x + width, y, SMALL, colour=FOR, align="right")
    return y + leading(SMALL) + 0.03


def crop(patch: Patch, size: int = _THUMB) -> Pixels:
    """What a unit looks at, out of the original picture, `(size, size, 3)`; grey if that can't be opened."""
    (top, bottom), (left, right) = patch.source_box()
    true = patch.geometry.source_size
    share = max(bottom - top, right - left) / max(true)
    pixels = _pixels(patch, _enough(size, share))
    if pixels is None:
        return np.full((size, size, 3), 150, np.uint8)
    scale = [n / t for n, t in zip(pixels.shape[:2], true, strict=True)]
    box = (left * scale[1], top * scale[0], right * scale[1], bottom * scale[0])
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))


def _pixels(patch: Patch, size: int) -> Pixels | None:
    """The picture behind a patch; None where it can't be opened, or its way to the model's input is not known."""
    return small_picture(patch.origin.source, patch.origin.sha256, size) if patch.geometry.known else None


def _enough(size: int, share: float) -> int:
    """The longer side at which a part with this share of it still has `size` pixels; of few, so that they are kept."""
    wanted = size / max(share, 1e-3)
    return next((n for n in (256, 512, 1024, 2048) if n >= wanted), 2048)


def in_context(exemplar: Exemplar, size: int = _THUMB) -> Pixels:
    """The whole picture under the unit's map, with a frame about what it looks at."""
    geometry, _ = display_geometry(exemplar.geometry, size)
    height, width = geometry.source_size[-2:]
    pixels = _pixels(exemplar, 256)
    if pixels is None:
        pixels = np.full((height, width, 3), 150, np.uint8)
    pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    values = spread(exemplar.map, geometry)
    signed = bool(np.nanmin(values) < 0)
    image = overlay(pixels, values, signed=signed, limits=limits(values, signed=signed)).copy()
    spans = zip(exemplar.source_box(), exemplar.geometry.source_size, (height, width), strict=True)
    _frame(image, [(a * n / true, b * n / true) for (a, b), true, n in spans])
    return image


def _frame(image: Pixels, box: Sequence[tuple[float, float]]) -> None:
    """A white frame with a dark line outside it, written into the picture."""
    (top, bottom), (left, right) = ((int(a), max(int(a) + 1, round(b))) for a, b in box)
    if bottom - top >= image.shape[0] - 2 and right - left >= image.shape[1] - 2:
        return  # all of the picture
    for grow, value in ((1, 20), (0, 255)):
        a, b = max(0, top - grow), min(image.shape[0] - 1, bottom - 1 + grow)
        c, d = max(0, left - grow), min(image.shape[1] - 1, right - 1 + grow)
        image[[a, b], c : d + 1] = value
        image[a : b + 1, [c, d]] = value
