"""A volume explained: three planes through the peak and the strongest values seen from the front, in millimetres.

As radiologists look: the patient's right is at the left of the picture, front and top are up. Only imported when a
figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pellucid.explanation import Explanation
from pellucid.keep.once import once
from pellucid.media import Volume
from pellucid.media.orientation import said, spacing, to_mm, turn_to, turned, turned_affine
from pellucid.render.paper.colour import Limits, limits
from pellucid.render.paper.display import Display, is_fine, problem_of, smooth
from pellucid.render.paper.marks import EDGES, edged
from pellucid.render.paper.overlay import Ground, overlay
from pellucid.render.paper.page import MARGIN, bars, head, never_seen
from pellucid.render.paper.sheet import INK, QUIET, WARNING, Column, Sheet, text_width
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE, banner, colour_bar, remarks

_PIXELS = 360  # of the longest side of a plane
_COLUMNS = 5  # of the sheet of slices
_LETTER, _THIN, _PLATE = "#f2b134", "#e8e8e8", "#15171b"
_DARK = tuple(bytes.fromhex(_PLATE[1:]))
_GAP, _BETWEEN, _SIDE = 0.14, 0.36, 2.1  # inches: between planes, between explanations, of the side column
_LEAST = 0.75  # inches: of a plane's frame, so that letters and scale bar fit


@dataclass(frozen=True)
class View:
    """How a plane is looked at: the axis that it cuts, which of R, A, S its rows and columns run along (both backwards
    in the picture), and what is at the left, right, top and bottom.
    """

    name: str
    cut: int
    axes: tuple[int, int]
    letters: str


_AXIAL = View("axial", 2, (1, 0), "RLAP")
_CORONAL = View("coronal", 1, (2, 0), "RLSI")
_SAGITTAL = View("sagittal", 0, (2, 1), "APSI")


@dataclass(frozen=True)
class Plane:
    """One picture of a volume at display size, how it is looked at, where planes cross, and what is outlined."""

    view: View
    pixels: NDArray[np.uint8]
    values: NDArray[np.float32]
    cross: tuple[float, float] | None  # share of the height and of the width
    width_mm: float
    outlined: Sequence[tuple[NDArray[np.bool_], str]] = ()  # regions and their colours


@dataclass(frozen=True)
class Planes:
    """What is drawn of a map: its planes, their limits, and where they meet."""

    planes: tuple[Plane, ...]
    limits: Limits
    fine: bool
    peak: tuple[int, int, int]
    peak_mm: tuple[float, float, float]

    @property
    def ground(self) -> Ground:
        """What lies under the map."""
        return "plain" if self.fine else "picture"


def peak_of(explanation: Explanation) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """The voxel of the original where the map is strongest, and its millimetres Right, Anterior, Superior."""
    return once("peak", explanation, lambda: _peak_of(explanation))


def _peak_of(explanation: Explanation) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    heat = explanation.heatmap()[0].numpy()
    strength = np.where(np.isfinite(heat), np.abs(heat) if explanation.signed else heat, -np.inf)
    top = strength.max()
    if not np.isfinite(top):
        i, j, k = (n // 2 for n in heat.shape)
        return (i, j, k), to_mm(np.asarray(explanation.geometry.affine), (i, j, k))
    tied = np.argwhere(strength >= top - 1e-6 * abs(top))  # of a plateau the voxel nearest to its middle
    i, j, k = tied[int(np.square(tied - tied.mean(0)).sum(1).argmin())].tolist()
    return (i, j, k), to_mm(np.asarray(explanation.geometry.affine), (i, j, k))


def planes_of(explanation: Explanation) -> Planes:
    """Three planes through the peak, and the strongest values seen from the front."""
    return once("planes", explanation, lambda: _planes_of(explanation))


def _planes_of(explanation: Explanation) -> Planes:
    peak, mm = peak_of(explanation)
    heat, grey, steps, affine = _upright(explanation)
    across = np.linalg.inv(affine) @ [*mm, 1.0]
    at = [int(np.clip(round(float(across[k])), 0, heat.shape[k] - 1)) for k in range(3)]
    fine = is_fine(explanation.map(), explanation.geometry)
    longest = max(n * s for n, s in zip(heat.shape, steps, strict=True))
    regions = _regions(explanation)
    cut = [
        replace(
            _plane(v, _slice(grey, v, at[v.cut]), _slice(heat, v, at[v.cut]), steps, longest, fine=fine, at=at),
            outlined=[(_slice(region, v, at[v.cut]), colour) for region, colour in regions],
        )
        for v in (_AXIAL, _CORONAL, _SAGITTAL)
    ]
    with np.errstate(all="ignore"):
        strongest = np.nan_to_num(np.abs(heat), nan=-1.0).argmax(1)
    values = np.take_along_axis(heat, strongest[:, None], 1)[:, 0]
    front = replace(_CORONAL, name="strongest, from the front")
    cut.append(_plane(front, grey.max(1).T[::-1, ::-1], values.T[::-1, ::-1], steps, longest, fine=fine))
    raw = explanation.map().numpy()
    shown = np.concatenate([p.values[np.isfinite(p.values)] for p in cut]) if fine else raw
    _, blank = problem_of(explanation.map(), explanation)
    ends = Limits(0.0, 0.0) if blank or not shown.size else limits(shown, signed=explanation.signed, robust=fine)
    return Planes(tuple(cut), ends, fine, peak, mm)


def panel_of_volumes(explanations: Sequence[Explanation], width: float) -> Figure:
    """The figure, `width` inches wide, of the explanations of one volume, one below the other."""
    first = explanations[0]
    sheet = Sheet(width)
    cell = Column(MARGIN, MARGIN, _SIDE, (_SIDE, _SIDE))
    y = head(sheet, first.name, "", cell, cell.width)
    y += sheet.line(first.record.model_name, cell.x, y, TITLE, bold=True, width=cell.width)
    for text in _told(first):
        y += sheet.line(text, cell.x, y, TEXT, colour=QUIET, width=cell.width)
    bottom = bars(sheet, first, {e.target for e in explanations}, cell.down(y + 0.1))
    if any(not bool(e.geometry.seen().all()) for e in explanations):
        bottom = never_seen(sheet, cell.down(bottom))
    left, y = MARGIN + _SIDE + 0.35, MARGIN
    for e in explanations:
        y = _explained(sheet, e, Column(left, y, width - left - MARGIN, (0.0, 0.0))) + _BETWEEN
    return sheet.finish(max(bottom, y - _BETWEEN) + MARGIN)


def slice_sheet(explanation: Explanation, count: int = 20, width: float = 13.5) -> Figure:
    """Axial slices from the lowest to the highest that the model saw, each under the map, with where they lie."""
    heat, grey, steps, affine = _upright(explanation)
    regions = _regions(explanation)
    seen = np.flatnonzero(np.isfinite(heat).any((0, 1)))
    at = np.unique(np.linspace(seen[0], seen[-1], count).round().astype(int)) if len(seen) else np.arange(1)
    shown = planes_of(explanation)
    longest = max(heat.shape[0] * steps[0], heat.shape[1] * steps[1])
    sheet, room_in = Sheet(width), width - 2 * MARGIN
    title = f"{explanation.name}: {explanation.method} for {explanation.target}"
    y = head(sheet, title, "", Column(MARGIN, MARGIN, room_in, (0, 0)), room_in)
    room = (room_in - (_COLUMNS - 1) * _GAP) / _COLUMNS
    for row in range(0, len(at), _COLUMNS):
        tallest = 0.0
        for c, k in enumerate(at[row : row + _COLUMNS].tolist()):
            place = said((0, 0, to_mm(affine, (0, 0, k))[2])).split(", ")[2]
            view = replace(_AXIAL, name=place)
            plane = _plane(view, _slice(grey, view, k), _slice(heat, view, k), steps, longest, fine=shown.fine)
            plane = replace(plane, outlined=[(_slice(region, view, k), colour) for region, colour in regions])
            cell = Column(MARGIN + c * (room + _GAP), y, room, (0, 0))
            tallest = max(tallest, _drawn(sheet, plane, shown, explanation, cell))
        y += tallest + 0.12
    return sheet.finish(y + MARGIN)


def _explained(sheet: Sheet, e: Explanation, at: Column) -> float:
    """Heading, planes, colour bar and remarks of one explanation; where they end."""
    known = [p.said(1) for p in e.prediction if p.label == e.target]
    y = head(sheet, e.target, "".join(known[:1]), at, at.width)
    y += sheet.line(e.method, at.x, y, TITLE, bold=True, width=at.width)
    where = e.layer or "at the input"
    if e.kind != "map":
        return y + sheet.line("One number per channel: see .ranking().", at.x, y, TEXT, colour=WARNING)
    shown = planes_of(e)
    y += 0.05 + sheet.line(f"{where} · peak at {said(shown.peak_mm)}", at.x, y, TEXT, colour=QUIET, width=at.width)
    room = (at.width - 3 * _GAP) / 4
    cells = [Column(at.x + k * (room + _GAP), y, room, (0, 0)) for k in range(4)]
    tall = max(_drawn(sheet, p, shown, e, cell) for p, cell in zip(shown.planes, cells, strict=True))
    problem, _ = problem_of(e.map(), e)
    if problem:
        banner(sheet, problem, Column(at.x, y, at.width, (at.width / 2, tall)), tall)
    y += tall + 0.06
    if shown.limits.low < shown.limits.high:
        nothing = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.float32)
        bar = Display(*nothing, shown.limits, e.signed, shown.ground, "", "", ())
        y = colour_bar(sheet, bar, Column(at.x, y, min(at.width, 3.2), (0.0, 0.0)))
    return remarks(sheet, e, at.down(y))


def _drawn(sheet: Sheet, p: Plane, shown: Planes, e: Explanation, at: Column) -> float:
    """One plane with its letters, cross and scale bar, in a square cell; how high it and its name are."""
    height, width = (n * at.width / max(p.values.shape) for n in p.values.shape)
    tall, wide = max(height, _LEAST), max(width, _LEAST)
    x, y = at.x + (wide - width) / 2, at.y + (tall - height) / 2
    mixed = overlay(p.pixels, p.values, signed=e.signed, limits=shown.limits, ground=shown.ground)
    for region, colour in p.outlined:
        mixed = edged(mixed, region, colour) if region.any() else mixed
    sheet.image(_framed(mixed, tall / height, wide / width), at.x, at.y, wide, tall)
    if p.cross is not None:
        down, along, open_ = y + p.cross[0] * height, x + p.cross[1] * width, 0.08
        lines = [((x, down), (along - open_, down)), ((along + open_, down), (x + width, down))]
        lines += [((along, y), (along, down - open_)), ((along, down + open_), (along, y + height))]
        for start, stop in lines:
            if stop[0] > start[0] or stop[1] > start[1]:
                sheet.stroke([start, stop], colour=_THIN, width=0.5)
    left, top, middle, centre = at.x, at.y, y + height / 2, x + width / 2
    places = ((left + 0.08, middle), (left + wide - 0.08, middle), (centre, top + 0.08), (centre, top + tall - 0.09))
    for letter, (across, down) in zip(p.view.letters, places, strict=True):
        sheet.box(across - 0.065, down - 0.065, 0.13, 0.13, colour=_PLATE, alpha=0.7)
        sheet.line(letter, across, down - 0.055, SMALL, colour=_LETTER, bold=True, align="center")
    bar = next((b for b in (100, 50, 20, 10, 5, 2, 1) if b < 0.45 * p.width_mm), p.width_mm / 2)
    long, told = bar / p.width_mm * width, f"{bar:g} mm"
    foot = top + tall
    sheet.box(left + 0.03, foot - 0.22, max(long, text_width(told, SMALL)) + 0.06, 0.19, colour=_PLATE, alpha=0.7)
    sheet.box(left + 0.06, foot - 0.07, long, 0.02, colour=_LETTER)
    sheet.line(told, left + 0.06, foot - 0.21, SMALL, colour=_LETTER)
    named: float = sheet.line(p.view.name, centre, foot + 0.03, SMALL, colour=INK, align="center")
    return float(tall) + 0.03 + named


def _framed(pixels: NDArray[np.uint8], taller: float, wider: float) -> NDArray[np.uint8]:
    """A picture in the middle of a dark one: of a few slices, what is written would hide them."""
    rows, columns = (round(n * (by - 1) / 2) for n, by in zip(pixels.shape[:2], (taller, wider), strict=True))
    if not rows and not columns:
        return pixels
    frame = np.full((pixels.shape[0] + 2 * rows, pixels.shape[1] + 2 * columns, 3), _DARK, np.uint8)
    frame[rows : rows + pixels.shape[0], columns : columns + pixels.shape[1]] = pixels
    return frame


def _upright(
    e: Explanation,
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[float, float, float], NDArray[np.float64]]:
    """The map and the volume's brightness with axes to R, A, S; millimetres a voxel; the affine."""
    affine = np.vstack([np.asarray(e.geometry.affine, np.float64), [0, 0, 0, 1]])
    turn = turn_to(affine, "RAS")
    heat = np.asarray(turned(e.heatmap()[0].numpy(), turn), np.float32)
    volume = e.picture if isinstance(e.picture, Volume) else None
    grey = (
        np.full(heat.shape, 0.5, np.float32)
        if volume is None
        else turned(once("brightness", volume, volume.brightness), turn)
    )
    there = turned_affine(affine, e.geometry.source_size, turn)
    return heat, np.asarray(grey, np.float32), spacing(there), there


def _regions(e: Explanation) -> list[tuple[NDArray[np.bool_], str]]:
    """The true region and the one that is explained, with axes to R, A, S, and their colours."""
    affine = np.vstack([np.asarray(e.geometry.affine, np.float64), [0, 0, 0, 1]])
    found = []
    for name, colour in EDGES:
        region = e.extras.get(name)
        if region is not None and tuple(region.shape[1:]) == tuple(e.geometry.source_size):
            found.append((np.asarray(turned(region[0].numpy(), turn_to(affine, "RAS")), bool), colour))
    return found


def _slice(values: NDArray[Any], view: View, at: int) -> NDArray[Any]:
    """One slice as it is looked at."""
    flat = values[(slice(None),) * view.cut + (at,)]  # a view: np.take copies, and slowly along the last axis
    rest = [axis for axis in range(3) if axis != view.cut]
    upright = flat.transpose([rest.index(axis) for axis in view.axes])
    seen: NDArray[Any] = upright[::-1, ::-1]
    return seen


def _plane(
    view: View,
    grey: NDArray[np.float32],
    values: NDArray[np.float32],
    steps: Sequence[float],
    longest: float,
    *,
    fine: bool,
    at: Sequence[int] | None = None,
) -> Plane:
    """A slice at display size, as wide and high as it is in millimetres; `longest` of them fill the display."""
    axes = view.axes
    height_mm, width_mm = (n * steps[axis] for n, axis in zip(values.shape, axes, strict=True))
    size = tuple(max(2, round(mm / longest * _PIXELS)) for mm in (height_mm, width_mm))
    seen = _resized(np.isfinite(values).astype(np.float32), size, Image.Resampling.NEAREST) > 0.5
    large = _resized(np.nan_to_num(values), size, Image.Resampling.BILINEAR)
    large = np.where(seen, large, np.nan)
    large = smooth(large, 0.012 * max(size)) if fine else large
    pixels = (_resized(grey, size, Image.Resampling.BICUBIC).clip(0, 1) * 255).astype(np.uint8)
    cross = None
    if at is not None:
        down, along = ((n - at[axis] - 0.5) / n for n, axis in zip(values.shape, axes, strict=True))
        cross = (down, along)
    return Plane(view, np.repeat(pixels[..., None], 3, -1), large.astype(np.float32), cross, width_mm)


def _resized(values: NDArray[np.float32], size: tuple[int, ...], how: Image.Resampling) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((size[1], size[0]), how), np.float32)


def _told(e: Explanation) -> list[str]:
    steps = spacing(np.vstack([np.asarray(e.geometry.affine), [0, 0, 0, 1]]))
    size = " × ".join(map(str, e.geometry.source_size))
    return [f"{size} voxels", " × ".join(f"{s:.3g}" for s in steps) + " mm"] + (
        [] if e.picture is not None else ["volume not at hand"]
    )
