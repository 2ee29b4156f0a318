"""Pictures cut into regions: superpixels of alike colour, or an even grid. No randomness; labels without gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.media.picture import Picture
from pellucid.registry import Registry


def superpixels(
    picture: Picture | Tensor, count: int = 50, *, compactness: float = 10.0, cubic: bool = False
) -> Tensor:
    """SLIC (Achanta et al. 2012): about `count` compact regions of alike colour, `(*space)` labels 0 to K - 1.

    Args:
        picture: a picture, or a tensor `(C, *space)` in any units, of two or three space axes (clips and volumes are
            cut along all three).
        count: regions wished for.
        compactness: larger makes them more square, smaller follows the colours more closely; raised tenfold where
            fewer than a quarter of the regions come out.
        cubic: measure each axis by its own length, so that a few frames are as long as many pixels are wide.
    """
    values = _unit_range(picture, axes=(2, 3))
    if count < 1:
        raise MediaError(f"Give the number of superpixels, at least 1; got {count}.")
    from skimage.segmentation import slic

    lab = values.shape[-1] == 3
    space = values.shape[:-1]
    spacing = [max(space) / s for s in space] if cubic else None
    compactness *= 1 if lab else 0.01  # Lab runs over some hundred units, other channels over one
    for squarer in (1, 10, 100):  # noise falls into specks, which are merged into almost one region
        labels = _numbered(
            slic(
                values,
                n_segments=count,
                compactness=compactness * squarer,
                convert2lab=lab,
                start_label=0,
                spacing=spacing,
                channel_axis=-1,
            )
        )
        if 4 * (int(labels.max()) + 1) >= count:
            break
    return labels


def supervoxels(clip: Tensor, count: int = 50) -> Tensor:
    """SLIC of a clip or a volume `(C, T, H, W)`: about `count` regions of alike colour, `(T, H, W)` labels 0 to K - 1.

    Time counts as much as width does, whatever the number of frames: without that, a short clip's regions last for all
    of it, and nothing could be told apart in time.
    """
    if clip.ndim != 4:
        raise MediaError(f"Supervoxels cut clips and volumes (C, T, H, W), not {tuple(clip.shape)}: use slic.")
    return superpixels(clip, count, cubic=True)


def stretches(clip: Tensor, count: int = 8) -> Tensor:
    """A clip `(C, T, H, W)` cut into `count` stretches of whole frames (at most one a frame), `(T, H, W)` labels."""
    if clip.ndim != 4:
        raise MediaError(f"Frames are those of clips (C, T, H, W), not {tuple(clip.shape)}: use slic.")
    frames = clip.shape[1]
    owner = torch.arange(frames) * min(count, frames) // frames
    return owner[:, None, None].expand(tuple(clip.shape[1:])).contiguous()


def felzenszwalb(
    picture: Picture | Tensor, *, scale: float = 100.0, sigma: float = 0.8, min_size: int | None = None
) -> Tensor:
    """Graph-based regions of any shape and size (Felzenszwalb & Huttenlocher 2004), `(H, W)` labels 0 to K - 1.

    Args:
        picture: a picture, or a tensor `(C, H, W)` in any units.
        scale: larger makes larger regions.
        sigma: of the blur before, in pixels.
        min_size: of a region, in pixels; None: a hundredth of the picture.
    """
    values = _unit_range(picture, axes=(2,))
    from skimage.segmentation import felzenszwalb as cut

    size = max(1, values.shape[0] * values.shape[1] // 100) if min_size is None else min_size
    return _numbered(cut(values, scale=scale, sigma=sigma, min_size=size, channel_axis=-1))


def grid(space: Sequence[int], count: int = 49) -> Tensor:
    """About `count` even, nearly square blocks, `(*space)` labels 0 to K - 1, row by row."""
    side = (prod(space) / max(1, count)) ** (1 / len(space))
    labels = torch.zeros((), dtype=torch.long)
    for size in space:
        cells = min(size, max(1, round(size / side)))
        labels = labels[..., None] * cells + torch.arange(size) * cells // size
    return labels


SEGMENTATIONS: Registry[Callable[[Tensor, int], Tensor]] = Registry(
    "segments",
    {
        "grid": lambda x, count: grid(x.shape[1:], count),
        "slic": superpixels,
        "supervoxels": supervoxels,
        "frames": stretches,
        "felzenszwalb": lambda x, count: felzenszwalb(x, min_size=max(1, prod(x.shape[1:]) // (2 * count))),
    },
    plural=True,
)
"""Name -> (input `(C, *space)`, about how many) -> labels `(*space)`."""


def _unit_range(picture: Picture | Tensor, axes: tuple[int, ...]) -> NDArray[np.float64]:
    """`(*space, C)` in [0, 1]. Least and greatest value over all channels together, which keeps the hues."""
    if isinstance(picture, Picture):
        values: NDArray[Any] = picture.pixels.astype(np.float64)
    else:
        values = picture.detach().cpu().double().movedim(0, -1).numpy()
    if values.ndim - 1 not in axes:
        raise MediaError(
            f"This segmentation cuts pictures of {' or '.join(map(str, axes))} space axes, not {values.ndim - 1}: use "
            "a grid, or give segments of your own."
        )
    low, high = values.min(), values.max()
    return np.ascontiguousarray((values - low) / max(high - low, 1e-12))


def _numbered(labels: NDArray[np.integer[Any]]) -> Tensor:
    numbered: Tensor = torch.unique(torch.from_numpy(labels.astype(np.int64)), return_inverse=True)[1]
    return numbered
