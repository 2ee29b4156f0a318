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
from pellucid.media.picture import Picture

CELLS = 4
"""What is left of a box along each of its sides."""


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
