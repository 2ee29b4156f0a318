"""A heat map over its picture: the picture dimmed, the map the stronger the larger |value|, the unseen hatched."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.render.paper.colour import Array, Limits, colours, strength

Ground = Literal["picture", "plain"]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_KEEP = 0.35  # of the picture's colour: the map's own colours must stand out, the cat must stay a cat
_HATCH = 0.026  # period of the hatch over the picture's longer side


def dimmed(pixels: NDArray[Any], *, signed: bool = False, ground: Ground = "picture") -> Array:
    """The picture as it lies under a map: float32 RGB in [0, 1], (H, W, 3), of uint8 or [0, 1] pixels.

    Under ``picture`` it keeps 35 % of its colour and 80 % of its light. Under ``plain`` it is a grey ghost: on
    white for signed maps, on black for others, the colours that zero has there, so that the scattered values
    of pixel-level maps stay readable.
    """
    rgb = pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)
    grey = (rgb @ _LUMA)[..., None]
    if ground == "picture":
        return (0.8 * (_KEEP * rgb + (1 - _KEEP) * grey)).astype(np.float32)
    ghost = 0.68 + 0.3 * grey if signed else 0.02 + 0.28 * grey
    return np.broadcast_to(ghost, rgb.shape).astype(np.float32)


def overlay(
    pixels: NDArray[Any],
    heatmap: NDArray[Any],
    *,
    signed: bool,
    limits: Limits,
    ground: Ground = "picture",
) -> NDArray[np.uint8]:
    """A map (H, W) over a picture (H, W, 3): uint8 RGB (H, W, 3).

    Where the value is 0 the picture is exactly `dimmed`. Where it is NaN (the model never looked) it is light
    grey under a diagonal hatch, with a thin line where that begins. In between the colour of the value covers
    the picture, up to 85 % at the ends of ``limits`` (95 % on plain ground).

    Raises:
        ValueError: the map and the picture differ in size.
    """
    if pixels.shape[:2] != heatmap.shape:
        raise ValueError(f"a map of {heatmap.shape} over a picture of {pixels.shape[:2]}")
    base = dimmed(pixels, signed=signed, ground=ground)
    power = strength(heatmap, limits, signed=signed)[..., None]
    alpha = 0.95 * power**0.5 if ground == "plain" else 0.85 * power
    mixed = base + alpha * (colours(heatmap, limits, signed=signed) - base)
    unseen = np.isnan(heatmap)
    if unseen.any():
        mixed[unseen] = hatched(pixels)[unseen]
        mixed[unseen & _beside(~unseen)] = 0.42
    return np.rint(mixed * 255).astype(np.uint8)


def _beside(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels up to one away from a seen one."""
    near = seen.copy()
    near[1:] |= seen[:-1]
    near[:-1] |= seen[1:]
    near[:, 1:] |= near[:, :-1].copy()
    near[:, :-1] |= near[:, 1:].copy()
    return near


def hatched(pixels: NDArray[Any]) -> Array:
    """The picture as shown where the model never looked: light grey, hatched; float32 (H, W, 3) in [0, 1]."""
    ghost = 0.76 + 0.2 * (dimmed(pixels) @ _LUMA)[..., None]
    height, width = pixels.shape[:2]
    period = max(4, round(_HATCH * max(height, width)))
    lines = np.add.outer(np.arange(height), np.arange(width)) % period < max(1, period // 5)
    return np.where(lines[..., None], ghost - 0.15, ghost).repeat(3, axis=-1).astype(np.float32)
