"""A volume in the viewer: how it is laid, where its voxels are in the patient, and its grey values as one picture.

As radiologists look: slices from the head down, the patient's right at the left, front and top up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.explanation import Explanation
from pellucid.media import Geometry, Volume
from pellucid.media.orientation import spacing, turn_to, turned, turned_affine
from pellucid.render.viewer.plain import data_uri

LAID = "IPL"
"""Where the axes of a volume run in the viewer."""

_SLICES, _SIDE = 128, 224  # of the grey values inside a page; the pointer counts in the original's own


def in_patient(e: Explanation, peak: Sequence[int]) -> dict[str, Any]:
    """What the viewer must know of a volume.

    Args:
        e: with an affine.
        peak: the voxel of the original through which the planes are laid first.

    Returns:
        `turn` from the model's axes and `whole` from the original's axes to those of the viewer (for each axis, which
        it was, counted from 1, negative backwards), `affine`, `spacing` in millimetres, the `peak`, and `ground`: the
        grey values as a picture of tiles, where the volume is at hand.
    """
    geometry = e.geometry
    turn, whole = laid(geometry)
    steps, size = spacing(_affine(geometry)), geometry.source_size
    about: dict[str, Any] = {
        "turn": turn,
        "whole": whole,
        "affine": [list(row) for row in geometry.affine],
        "spacing": [steps[abs(t) - 1] for t in whole],
        "peak": [peak[t - 1] if t > 0 else size[-t - 1] - 1 - peak[-t - 1] for t in whole],
    }
    if isinstance(e.picture, Volume) and e.picture.size == tuple(size):
        about["ground"] = _tiles(turned(e.picture.brightness(), whole))
    return about


def laid(geometry: Geometry) -> tuple[list[int], list[int]]:
    """`turn` and `whole` of a volume: which axis of the model, and of the original, each of the viewer was."""
    seen = geometry.turn or (1, 2, 3)
    turn = turn_to(turned_affine(_affine(geometry), geometry.source_size, seen), LAID)
    return list(turn), [seen[abs(t) - 1] * (1 if t > 0 else -1) for t in turn]


def _affine(geometry: Geometry) -> NDArray[np.float64]:
    return np.vstack([np.asarray(geometry.affine, np.float64), [0, 0, 0, 1]])


def _tiles(grey: NDArray[np.float32]) -> dict[str, Any]:
    """Grey values in [0, 1], `(D, H, W)`, slice beside slice in one picture."""
    most = (_SLICES, _SIDE, _SIDE)
    depth, height, width = (min(n, m) for n, m in zip(grey.shape, most, strict=True))
    small = torch.from_numpy(np.ascontiguousarray(grey))[None]
    small = torch.nn.functional.adaptive_avg_pool3d(small, (depth, height, width))[0]
    columns = math.ceil(math.sqrt(depth * height / width))
    rows = math.ceil(depth / columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for k, values in enumerate((small * 255).round().byte().numpy()):
        y, x = k // columns * height, k % columns * width
        sheet[y : y + height, x : x + width] = values
    return {"uri": data_uri(sheet, "jpeg"), "columns": columns, "size": [depth, height, width]}
