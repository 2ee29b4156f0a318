"""Regions on a picture: what lies inside as it is, the rest in the dark, each region under an outline of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.render.paper.overlay import dimmed, hatched

_OUTLINES = ((1.0, 0.76, 0.15), (0.30, 0.75, 0.93), (0.86, 0.55, 0.90), (0.55, 0.85, 0.45))  # by rank, then again
_LINE = 0.006  # of the longer side


def revealed(pixels: NDArray[Any], regions: NDArray[Any]) -> NDArray[np.uint8]:
    """Regions of a picture, uint8 RGB (H, W, 3).

    Args:
        pixels: the picture (H, W, 3), uint8 or [0, 1].
        regions: (regions, H, W), above one half inside; NaN where the model never looked.
    """
    rgb = pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)
    shown = dimmed(pixels, ground="plain") * 0.9 + 0.06
    inside = np.nan_to_num(regions) > 0.5
    shown[inside.any(0)] = rgb[inside.any(0)]
    width = max(1, round(_LINE * max(pixels.shape[:2])))
    for k, region in enumerate(inside):
        shown[_rim(region, width)] = _OUTLINES[k % len(_OUTLINES)]
    unseen = np.isnan(regions).any(0)
    shown[unseen] = hatched(pixels)[unseen]
    drawn: NDArray[np.uint8] = np.rint(shown.clip(0, 1) * 255).astype(np.uint8)
    return drawn


def _rim(region: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """What of a region lies within `width` of its outside; the picture's edge is none."""
    core = region.copy()
    for _ in range(width):
        smaller = core.copy()
        smaller[1:] &= core[:-1]
        smaller[:-1] &= core[1:]
        smaller[:, 1:] &= core[:, :-1]
        smaller[:, :-1] &= core[:, 1:]
        core = smaller
    rim: NDArray[np.bool_] = region & ~core
    return rim
