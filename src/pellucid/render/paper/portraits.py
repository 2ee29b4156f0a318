"""What a player looks like, as a small picture: the region cut out, the channel's activation, the band by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pellucid.media.clip import Clip
from pellucid.media.geometry import Geometry
from pellucid.media.picture import Picture
from pellucid.render.paper.colour import limits
from pellucid.render.paper.display import display_geometry, spread
from pellucid.render.paper.overlay import overlay

PORTRAIT = 128
"""The longer side, in pixels."""

_CONTEXT = 1.7  # of a region's longer side, shown around it
_LEAST = 0.3  # of the picture's shorter side that a cut-out shows at least
_GAIN = 8.0  # the most by which the contrast of a faint picture is raised
_FADED = 0.7  # how far what is not the region is faded to white

Pixels = NDArray[np.uint8]


def portrait(
    picture: Picture | Clip | None,
    geometry: Geometry,
    pictures: Mapping[str, Tensor],
    player: int,
    size: int = PORTRAIT,
) -> Pixels | None:
    """One player's picture, uint8 (h, w, 3); None where it has none.

    Args:
        picture: the original.
        geometry: where the model looked on it.
        pictures: what the players look like, see `Game`.
        player: which one.
        size: its longer side in pixels.
    """
    whole = next((name for name in ("inputs", "frames") if player < len(pictures.get(name, ()))), None)
    if whole is not None:
        pixels = pictures[whole][player].permute(1, 2, 0).expand(-1, -1, 3).numpy()
        return _resized(_stretched(pixels) if whole == "inputs" else pixels, size)
    if not isinstance(picture, Picture) or len(geometry.source_size) != 2:
        return None
    shown, _ = display_geometry(geometry)
    pixels = _pixels(picture, shown.source_size)
    if "labels" in pictures:
        return _cut_out(pixels, labels_on(pictures["labels"], shown) == player, size)
    if "maps" in pictures and player < len(pictures["maps"]):
        return _lit(pixels, pictures["maps"][player], shown, size)
    return None


def labels_on(labels: Tensor, geometry: Geometry) -> NDArray[np.int64]:
    """The label under each pixel of a picture, (H, W); -1 where the model never looked.

    Args:
        labels: `(*grid)`, an even grid over the model's input.
        geometry: of the picture.
    """
    at, inside = [], []
    for cells, pixels, (start, stop) in zip(labels.shape, geometry.source_size, geometry.box, strict=True):
        share = (torch.arange(pixels, dtype=torch.float64) + 0.5 - start) / (stop - start)
        at.append((share * cells).floor().long().clamp(0, cells - 1))
        inside.append((share >= 0) & (share < 1))
    found = labels[torch.meshgrid(*at, indexing="ij")]
    seen = inside[0][:, None] & inside[1][None]
    result: NDArray[np.int64] = torch.where(seen, found, -1).numpy()
    return result


def _pixels(picture: Picture, size: tuple[int, ...]) -> Pixels:
    image = picture.pil()
    reduce = 3.0 if min(image.size) > 2 * max(size) else None
    return np.asarray(image.resize((size[-1], size[-2]), Image.Resampling.BICUBIC, reducing_gap=reduce))


def _stretched(pixels: Pixels) -> Pixels:
    """A faint picture with its contrast raised, up to eightfold: a band of high frequencies is nearly even grey."""
    values = pixels.astype(np.float32)
    mean = values.mean((0, 1))
    reach = float(np.percentile(np.abs(values - mean), 99))
    raised = mean + (values - mean) * min(_GAIN, max(1.0, 110 / max(reach, 1e-6)))
    drawn: Pixels = raised.clip(0, 255).round().astype(np.uint8)
    return drawn


def _resized(pixels: Pixels, size: int) -> Pixels:
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(to, Image.Resampling.LANCZOS))


def _cut_out(pixels: Pixels, inside: NDArray[np.bool_], size: int) -> Pixels | None:
    """The region in its colours within a square of its surroundings, which are faded."""
    if not inside.any():
        return None
    faded = pixels + _FADED * (255.0 - pixels)
    edge = inside & ~_eroded(inside, 1)
    image = np.where(inside[..., None], pixels, faded)
    image = np.where(edge[..., None], 25, image).round().astype(np.uint8)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    height, width = inside.shape
    side = max(_CONTEXT * max(np.ptp(rows) + 1, np.ptp(columns) + 1), _LEAST * min(height, width))
    side = min(round(side), height, width)
    top, left = (
        int(np.clip((line[0] + line[-1] + 1 - side) // 2, 0, longest - side))
        for line, longest in ((rows, height), (columns, width))
    )
    if max(np.ptp(rows) + 1, np.ptp(columns) + 1) > side:  # a region longer than a square can be: all of it
        return _resized(image, size)
    return _resized(image[top : top + side, left : left + side], size)


def _eroded(inside: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    kept = inside.copy()
    for axis in (0, 1):
        for step in (-by, by):
            kept &= np.roll(inside, step, axis)
    return kept


def _lit(pixels: Pixels, activation: Tensor, geometry: Geometry, size: int) -> Pixels:
    """An activation map over what the model saw of the picture."""
    values = spread(activation, geometry)
    seen = np.ix_(*(np.isfinite(values).any(axis) for axis in (1, 0)))
    signed = bool(np.nanmin(values) < 0)
    return _resized(overlay(pixels[seen], values[seen], signed=signed, limits=limits(values, signed=signed)), size)
