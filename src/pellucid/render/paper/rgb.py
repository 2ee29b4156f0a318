"""Any kind of picture as RGB pixels: grey ones, ones of more channels, clips as a few frames side by side."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.media import read_image

Pixels = NDArray[np.uint8]


def rgb(picture: Tensor) -> Pixels:
    """A picture `(C, H, W)` or clip `(C, T, H, W)` of display values in [0, 1], as uint8 `(H, W, 3)`.

    One channel is grey; of more than three (multispectral) the mean is shown; of a clip four frames, two by two.
    """
    shown = picture.detach().cpu().float().clamp(0, 1)
    if shown.ndim == 4:
        shown = mosaic(shown)
    if shown.shape[0] != 3:
        shown = shown.mean(0, keepdim=True).expand(3, -1, -1)
    pixels: Pixels = (shown.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(pixels)


def mosaic(clip: Tensor, frames: int = 4) -> Tensor:
    """Evenly spaced frames of a clip `(C, T, H, W)` in as square a grid as can be, a white line between them."""
    at = frames_at(clip.shape[1], frames)
    columns = math.ceil(math.sqrt(len(at)))
    gap = max(1, clip.shape[-1] // 40)
    padded = torch.nn.functional.pad(clip[:, at], (0, gap, 0, gap), value=1.0)
    rows = [padded[:, i : i + columns].movedim(1, 2).flatten(2) for i in range(0, len(at), columns)]
    width = rows[0].shape[-1]
    whole = torch.cat([torch.nn.functional.pad(r, (0, width - r.shape[-1]), value=1.0) for r in rows], 1)
    return whole[:, :-gap, :-gap]


def frames_at(length: int, frames: int) -> list[int]:
    """Evenly spaced frames, the first and the last among them."""
    count = min(length, frames)
    return [round(i * (length - 1) / max(1, count - 1)) for i in range(count)]


@lru_cache(maxsize=256)
def small_picture(source: str, sha256: str, size: int) -> Pixels | None:
    """A picture with its longer side at most `size`; None if it can't be opened any more, or has changed."""
    try:
        picture = read_image(source)
    except MediaError:
        return None
    if picture.sha256 != sha256:
        return None
    image = picture.pil()
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)
