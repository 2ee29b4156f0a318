"""Pairs on a sheet: the pictures that one is compared with, the other's own map, lines between cells that match.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.explanation import Explanation
from pellucid.media import Geometry, Picture
from pellucid.render.paper.colour import limits
from pellucid.render.paper.display import DISPLAY_SIZE, Display, display_geometry, spread
from pellucid.render.paper.marks import ASKED_COLOUR, Frame
from pellucid.render.paper.sheet import INK, QUIET, Column, Sheet

_TEXT = 7.2  # points
_APART = 0.16  # inches between the two pictures
_THIN, _THICK, _DOT = 0.7, 2.0, 0.055  # points of the weakest and the strongest match, inches


def others_beside(sheet: Sheet, shown: Sequence[Explanation], at: Column) -> float:
    """The pictures that are compared with, each under its part in the question and its name; where they end."""
    y, met = at.y, {o.sha256: (part, o) for e in shown for part, o in zip(_parts(e), e.others, strict=True)}
    for part, other in met.values():
        y += 0.08
        y += 0.03 + sheet.heading(part, at.x, y, at.width, _TEXT)
        width, height = at.fit(other.size)
        sheet.image(_pixels(other, _shown(other.size)), at.x, y, width, height)
        y += height + 0.05
    return y


def _parts(e: Explanation) -> list[str]:
    """What each picture that is compared with is in the question: one of a pair, or the two of a rank."""
    names = [other.name for other in e.others]
    return [f"liker to {names[0]}", f"than to {names[1]}"] if len(names) == 2 else [f"and {name}" for name in names]


def other_display(e: Explanation, shown: Display) -> Display | None:
    """The map of the other picture, on one scale with the first; None where there is none."""
    values, box = e.extras.get("other_map"), e.extras.get("other_box")
    if values is None or box is None:
        return None
    size_in = e.geometry.input_size[-2:]
    extents = [float(stop - start) for start, stop in box[0].tolist()]
    source = e.others[0].size if e.others else tuple(n / w for n, w in zip(size_in, extents, strict=True))
    size = _shown(source)
    spans = tuple((start * n, stop * n) for (start, stop), n in zip(box[0].tolist(), size, strict=True))
    geometry = Geometry(size, size_in, spans, span=e.geometry.span, reach=e.geometry.reach)
    both = np.concatenate([e.map().numpy().ravel(), values.numpy().ravel()])
    pixels = _pixels(e.others[0], size) if e.others else np.full((*size, 3), 150, np.uint8)
    one_scale = limits(both, signed=e.signed)
    return replace(shown, pixels=pixels, values=spread(values, geometry), limits=one_scale, ground="picture")


def matched(sheet: Sheet, e: Explanation, other: Display, at: Column, first: Frame) -> float:
    """The other picture under its map, with a line for each pair of cells that match; where it ends."""
    width, height = at.fit(other.values.shape)
    frame = (at.x, at.y + _APART, width, height)
    sheet.image(other.image(), *frame)
    found = e.extras.get("matches")
    rows = [] if found is None else [row for row in found[0].tolist() if row[0] == row[0]]
    here, there = display_geometry(e.geometry)[0], _other_geometry(e, other)
    grid, strongest = e.attribution.shape[-2:], max((row[4] for row in rows), default=1.0)
    for row, column, low, right, strength in reversed(rows):  # the strongest on top
        ends = [_point(here, grid, (row, column), first), _point(there, grid, (low, right), frame)]
        points = _THIN + (_THICK - _THIN) * strength / strongest
        sheet.stroke(ends, colour=INK, width=points + 1.2)
        sheet.stroke(ends, colour=ASKED_COLOUR, width=points)
        xs, ys = [x for x, _ in ends], [y for _, y in ends]
        sheet.dots(xs, ys, _DOT + 0.025, colour=INK)
        sheet.dots(xs, ys, _DOT, colour=ASKED_COLOUR)
    y = frame[1] + height + 0.03
    said = f"and {e.others[0].name}; matching cells: {len(rows)}" if e.others else f"matching cells: {len(rows)}"
    return y + sheet.line(said, at.x, y, _TEXT, colour=QUIET, width=at.width)


def _other_geometry(e: Explanation, other: Display) -> Geometry:
    size = other.values.shape
    box = e.extras["other_box"][0].tolist()
    spans = tuple((start * n, stop * n) for (start, stop), n in zip(box, size, strict=True))
    return Geometry((size[0], size[1]), e.geometry.input_size[-2:], spans, span=e.geometry.span)


def _point(geometry: Geometry, grid: tuple[int, ...], cell: tuple[float, float], frame: Frame) -> tuple[float, float]:
    """The middle of a cell on the sheet."""
    at = []
    for axis, (index, cells) in enumerate(zip(cell, grid, strict=True)):
        size = geometry.input_size[axis - 2]
        low, high = geometry.span[axis] if geometry.span else (0.0, float(size))
        at.append(low + (index + 0.5) / cells * (high - low))
    x, y, _, _ = geometry.source_box((at[1], at[0], at[1], at[0]))
    rows, columns = geometry.source_size[-2:]
    return frame[0] + frame[2] * x / columns, frame[1] + frame[3] * y / rows


def _shown(size: tuple[float, ...]) -> tuple[int, int]:
    scale = DISPLAY_SIZE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _pixels(picture: Picture, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(picture.pil().resize(size[::-1], Image.Resampling.BICUBIC))
