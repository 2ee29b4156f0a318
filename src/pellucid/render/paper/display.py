"""One explanation made ready to be drawn: at display size, with its limits, and with what must be said about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.explanation import REDACTED, Explanation, Prediction, Record
from pellucid.media import Clip, Geometry, Picture, Volume
from pellucid.media.redaction import coarse
from pellucid.render.paper.colour import Array, Limits, limits, number
from pellucid.render.paper.overlay import Ground, overlay
from pellucid.render.paper.regions import revealed

DISPLAY_SIZE = 480
"""The longer side of what is drawn, in pixels, whatever the size of the original."""

_FINE = 1 / 3  # of the input's pixels an axis: a grid finer than that is a pixel-level map
_MANY = 4096  # cells: of so many a few extreme ones may be left out of the colours, or they would darken all others
_SHARP = 8  # parts of a region's cell along each axis, so that its edges are drawn where they lie
_SMOOTH = 0.012  # standard deviation of the display's smoothing, over the longer side of what the model saw


class Pictured(Protocol):
    """What a result tells of its input: enough to draw the picture and what the model says of it."""

    @property
    def name(self) -> str:
        """The input's name."""

    @property
    def record(self) -> Record:
        """Provenance."""

    @property
    def geometry(self) -> Geometry:
        """Where the model looked."""

    @property
    def prediction(self) -> list[Prediction]:
        """The model's top classes."""

    @property
    def picture(self) -> Picture | Clip | Volume | None:
        """The original, if it is at hand."""


@dataclass(frozen=True)
class Display:
    """What a tile shows.

    Attributes:
        pixels: the picture (H, W, 3) at display size, uint8.
        values: raw values at display size (H, W), NaN where the model never looked.
        limits: the raw values at the ends of the colour bar; (0, 0) where drawing the map would mislead.
        signed: whether negative values are evidence against.
        ground: what lies under the map.
        problem: why there is nothing to see, or empty.
        part: which part is shown, if not all.
        captions: what was done for display only.
        regions: (regions, H, W), where the answer is regions and no values; None: it is values.
    """

    pixels: NDArray[np.uint8]
    values: Array
    limits: Limits
    signed: bool
    ground: Ground
    problem: str
    part: str
    captions: tuple[str, ...]
    regions: Array | None = None

    def image(self) -> NDArray[np.uint8]:
        """The overlay, uint8 (H, W, 3)."""
        if self.regions is not None:
            return revealed(self.pixels, self.regions)
        return overlay(self.pixels, self.values, signed=self.signed, limits=self.limits, ground=self.ground)


def display(explanation: Explanation, size: int = DISPLAY_SIZE, index: int | None = None) -> Display:
    """An explanation with a map, ready to be drawn.

    Args:
        explanation: of a picture, a clip or a volume.
        size: of the longer side, in pixels.
        index: of three axes, which sample of the first is shown (a clip's frame); None: the middle one. The colours of
            all of them share one scale.

    Raises:
        MediaError: one number per channel is no map.
        PellucidError: a geometry of fewer than two or more than three space axes.
    """
    raw = explanation.map().detach().to("cpu", torch.float32)
    geometry, part = display_geometry(explanation.geometry, size, index)
    captions = [] if geometry.known else ["on the model’s own input"]
    fine = is_fine(raw, geometry)
    values = _unpadded(spread(raw, geometry), explanation)
    problem, blank = problem_of(raw, explanation)
    regions = None if blank else regions_at(explanation, geometry)
    fine = fine and regions is None
    if fine:
        spans = [
            min(stop, n) - max(start, 0.0) for (start, stop), n in zip(geometry.box[-2:], values.shape, strict=True)
        ]
        values = smooth(values, sigma := _SMOOTH * max(spans))
        per_pixel = max(explanation.geometry.source_size[-2:]) / max(values.shape)
        values = _redacted(values, explanation, geometry)
        captions.append(f"smoothed for display, σ = {max(0.1, sigma * per_pixel):.1f} px")
    shown = values if fine and raw.ndim == 3 else raw.numpy()
    return Display(
        pixels=ground_pixels(explanation, geometry.source_size[-2:], index),
        values=values,
        limits=Limits(0.0, 0.0)
        if blank or regions is not None
        else limits(shown, signed=explanation.signed, robust=fine or raw[0].numel() >= _MANY),
        signed=explanation.signed,
        ground="plain" if fine else "picture",
        problem=problem,
        part=part,
        captions=tuple(captions),
        regions=regions,
    )


def is_fine(values: Tensor, geometry: Geometry) -> bool:
    """Whether a map (..., *grid) is as fine as the input's pixels, so that single values are not readable."""
    grid, size_in = values.shape[-2:], geometry.input_size[-2:]
    return min(grid) >= 16 and all(n > _FINE * m for n, m in zip(grid, size_in, strict=True))


def regions_at(explanation: Explanation, geometry: Geometry) -> Array | None:
    """Regions (regions, H, W) at display size, each cell with straight edges; None where the answer is a map."""
    cells = region_cells(explanation)
    return None if cells is None else np.stack([spread(one[None], geometry) for one in cells])


def region_cells(explanation: Explanation) -> Tensor | None:
    """Regions (regions, *grid), each cell in parts, so that spread over an original it keeps straight edges; None where
    the answer is a map.
    """
    found = explanation.extras.get("regions")
    if found is None or found.ndim != len(explanation.geometry.input_size) + 2:
        return None
    cells: Tensor = found[0][found[0].flatten(1).any(1)]
    for axis in range(1, cells.ndim):
        cells = cells.repeat_interleave(_SHARP, axis)
    return cells if len(cells) else None


def display_error(explanation: Explanation, size: int = DISPLAY_SIZE) -> Display | None:
    """Half of a sampled map's 95 % interval, ready to be drawn as a map of its own; of results of older versions the
    standard error; None where nothing was left to chance, or too little is known of it.
    """
    ends = explanation.interval()
    known = ends is not None or not {"low", "high"} & explanation.extras.keys()
    error = (ends[1] - ends[0]) / 2 if ends is not None else explanation.error_map() if known else None
    if error is None or not error.isfinite().all() or not error.any():
        return None
    return display(replace(explanation, attribution=error, signed=False, quality=None), size)


def display_geometry(geometry: Geometry, size: int = DISPLAY_SIZE, index: int | None = None) -> tuple[Geometry, str]:
    """The way onto the original at display size, and which part that is: of three axes one slice, the middle one.

    Raises:
        PellucidError: the geometry has other than two or three axes.
    """
    axes = len(geometry.source_size)
    if axes not in (2, 3):
        raise PellucidError(f"A figure shows pictures, clips and volumes; this map has {axes} space axes.")
    height, width = geometry.source_size[-2:]
    scale = size / max(height, width)
    shown = (max(1, round(height * scale)), max(1, round(width * scale)))
    spans = zip(geometry.box[-2:], (height, width), shown, strict=True)
    box = tuple((start * new / old, stop * new / old) for (start, stop), old, new in spans)
    if axes == 2:
        return replace(geometry, source_size=shown, box=box), ""
    count = geometry.source_size[0]
    middle = count // 2 if index is None else index
    start, stop = geometry.box[0]
    moved = ((start - middle, stop - middle), *box)
    return replace(geometry, source_size=(1, *shown), box=moved, ticks=()), f"slice {middle + 1} of {count}"


def spread(values: Tensor, geometry: Geometry) -> Array:
    """A map (..., *grid) of one sample at display size: (H, W), NaN where unseen; not finite counts as 0."""
    clean = torch.nan_to_num(values.detach().to("cpu", torch.float32), 0.0, 0.0, 0.0)
    shown: Array = geometry.to_source(clean).reshape(geometry.source_size[-2:]).numpy()
    return shown


def _unpadded(values: Array, explanation: Explanation) -> Array:
    """NaN where nothing was measured."""
    seen = explanation.extras.get("seen")
    if seen is None or seen.ndim != 3:
        return values
    small = torch.nn.functional.interpolate(seen[None].float(), size=values.shape, mode="nearest-exact")[0, 0]
    return np.where(small.numpy() > 0, values, np.float32("nan"))


def _redacted(values: Array, explanation: Explanation, geometry: Geometry) -> Array:
    """A pixel-level map at display size, coarse where the picture must not be recognised."""
    boxes = explanation.extras.get(REDACTED)
    if boxes is None:
        return values
    stretch = np.array(values.shape[::-1] * 2) / np.array(explanation.geometry.source_size[-2:][::-1] * 2)
    hidden: Array = coarse(values[..., None], boxes[0].numpy() * stretch)[..., 0]
    return hidden


def ground_pixels(explanation: Pictured, size: tuple[int, ...], index: int | None = None) -> NDArray[np.uint8]:
    """The picture, or one frame of the clip (the middle one), (H, W, 3) uint8 at display size; grey if not at hand."""
    picture = explanation.picture
    if isinstance(picture, Volume):
        picture = None
    elif isinstance(picture, Clip):
        picture = picture.picture(_nearest(picture, explanation.geometry, index))
    elif len(explanation.geometry.source_size) != 2:
        picture = None
    if picture is None:
        return np.full((*size, 3), 150, np.uint8)
    image = picture.pil()
    reduce = 3.0 if min(image.size) > 2 * max(size) else None
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=reduce))


def _nearest(clip: Clip, geometry: Geometry, index: int | None) -> int:
    """Which frame of the clip shows sample `index` of the first axis (None: the middle); a long clip keeps but some."""
    total = geometry.source_size[0]
    index = total // 2 if index is None else index
    if len(clip.frames) >= total:
        return index
    return int(np.abs(np.asarray(clip.times) - geometry.ticks[index]).argmin())


def problem_of(raw: Tensor, explanation: Explanation) -> tuple[str, bool]:
    """Why a map shows nothing, in a sentence (or an empty text), and whether to leave it undrawn."""
    finite = raw.isfinite()
    if not finite.all():
        return "The map holds NaN or infinity: don’t trust it.", not raw[finite].any()
    if not raw.any():
        return "The map is zero everywhere: it explains nothing.", True
    low, high = (float(end) for end in raw.aminmax())
    if low == high and raw.numel() > 1:
        return f"The map is {number(low)} everywhere: it points nowhere.", True
    if not explanation.signed and high <= 0:
        return "The map has no positive value: nothing speaks for the target.", True
    if explanation.quality is not None and explanation.quality.verdict == "meaningless":
        return "Measured as meaningless: don’t read anything into it.", False
    return "", False


def smooth(values: Array, sigma: float) -> Array:
    """A Gaussian over the seen part (H, W) alone; NaN stays NaN."""
    seen = np.isfinite(values)
    rows, columns = (_gaussian(n, sigma) for n in values.shape)
    total = rows @ np.where(seen, values, 0) @ columns
    weight = rows @ seen.astype(np.float32) @ columns
    return np.where(seen, total / np.maximum(weight, 1e-6), np.nan).astype(np.float32)


def _gaussian(n: int, sigma: float) -> Array:
    at = np.arange(n, dtype=np.float32)
    matrix: Array = np.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2))
    return matrix  # not normalised: `smooth` divides by the weight of what was seen
