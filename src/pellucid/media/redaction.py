"""Parts of pictures made unrecognisable before anything is shown or written; what the model saw stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.clip import Clip
from pellucid.media.geometry import Geometry
from pellucid.media.picture import Picture

CELLS = 4
"""What is left of a box along each of its sides."""
_REACH = 3  # pixels of the model's input over which a resize mixes what lies beside a box with what lies in it


def check_hideable(name: str, geometry: Geometry) -> None:
    """Raises MediaError for what has no known pixels to hide: a volume, or an input without a way back."""
    if not geometry.known or geometry.affine:
        raise MediaError(f"{name} can't be redacted: only pictures and clips with a known way back to them can.")


def coarse_on_input(
    shown: NDArray[Any], geometry: Geometry, boxes: Sequence[Sequence[float]], reach: int = _REACH
) -> NDArray[Any]:
    """Grids `(..., h, w, C)` over the model's input, boxes of the ORIGINAL's pixels made unrecognisable in them.

    Args:
        shown: inputs as they are shown, or maps of any size.
        geometry: of the original.
        boxes: `(x0, y0, x1, y1)`.
        reach: pixels of the input by which a box is larger here.
    """
    stretch = [shown.shape[axis] / geometry.input_size[axis + 1] for axis in (-2, -3)]
    grown = []
    for box in boxes:
        x0, y0, x1, y1 = geometry.input_box(box)
        edges = (x0 - reach, y0 - reach, x1 + reach, y1 + reach)
        grown.append([at * stretch[k % 2] for k, at in enumerate(edges)])
    return coarse(shown, grown)


def redacted(seen: Picture | Clip, boxes: Sequence[Sequence[float]]) -> Picture | Clip:
    """A picture, or all frames of a clip, with boxes `(x0, y0, x1, y1)` of its own pixels made unrecognisable.

    Of each box the means of `CELLS` x `CELLS` parts are left, so that nothing finer can be computed back.

    Raises:
        MediaError: a box is none.
    """
    if isinstance(seen, Clip):
        return replace(seen, frames=coarse(seen.frames, boxes))
    return replace(seen, pixels=coarse(seen.pixels, boxes))


def coarse(pixels: NDArray[Any], boxes: Sequence[Sequence[float]]) -> NDArray[Any]:
    """Pixels `(..., H, W, C)` of which each box is left as the means of its parts."""
    changed = pixels.copy()
    height, width = pixels.shape[-3:-1]
    for box in boxes:
        if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
            raise MediaError(f"A box to hide is written x0,y0,x1,y1, its left top corner first, not {list(box)}.")
        rows, columns = _cuts(box[1], box[3], height), _cuts(box[0], box[2], width)
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                part = changed[..., top:bottom, left:right, :]
                if part.size:
                    part[...] = part.mean((-3, -2), keepdims=True, dtype=np.float64)
    return changed


def _cuts(start: float, stop: float, count: int) -> list[int]:
    """The whole pixels that a stretch touches, cut into parts."""
    low, high = max(0, int(np.floor(start))), min(count, int(np.ceil(stop)))
    return [round(v) for v in np.linspace(low, max(low, high), CELLS + 1).tolist()]
