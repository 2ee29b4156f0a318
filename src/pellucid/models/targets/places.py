"""Where in a picture or a volume a region is meant: a place typed by a person, a true mask, on the model's input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pellucid.errors import AbsentError, MediaError, TargetError
from pellucid.media import Volume
from pellucid.media.geometry import Geometry
from pellucid.media.magic import is_nifti_name
from pellucid.media.orientation import turned
from pellucid.media.volumes import read_volume

_ON = 0.5  # whole numbers are the centres of pixels


def shares(at: Sequence[float], size: Sequence[int], *, mm: bool) -> tuple[float, ...]:
    """A place on the model's own input, as shares of its axes: (x, y) of a picture, an index of a volume."""
    if mm or len(at) != len(size):
        raise TargetError(f"{said(at, mm=mm)} is no place of an input of {len(size)} axes: give its index.")
    index = at[::-1] if len(at) == 2 else at
    return tuple((v + _ON) / n for v, n in zip(index, size, strict=True))


def point(at: Sequence[float], geometry: Geometry, *, mm: bool) -> tuple[float, ...]:
    """A place in the original, as shares of the axes of the model's input.

    Args:
        at: (x, y) in a picture's pixels; (i, j, k) in a volume's own grid, or its millimetres (`mm`).
        geometry: of the input.
        mm: whether `at` is in millimetres to the patient's Right, Anterior and Superior.

    Raises:
        AbsentError: outside of what the model sees.
        TargetError: not as many numbers as there are axes, or millimetres of what lies in no patient.
    """
    axes, size = len(geometry.source_size), geometry.input_size
    if len(at) != axes or (mm and not geometry.affine):
        wanted = "x,y" if axes == 2 else "i,j,k or x,y,zmm" if geometry.affine else "t,y,x"
        raise TargetError(f"{said(at, mm=mm)} is no place in this input of {axes} axes: write @{wanted}.")
    index = [float(v) for v in (at[::-1] if axes == 2 else at)]
    if mm:
        affine = np.vstack([np.asarray(geometry.affine, np.float64), [0, 0, 0, 1]])
        index = (np.linalg.inv(affine) @ [*at, 1.0])[:3].tolist()
    there = tuple((v + _ON) / n for v, n in zip(geometry.input_point(index), size, strict=True))
    if not all(0 <= share < 1 for share in there):
        if axes == 2:
            raise AbsentError(
                f"The place {at[0]:g},{at[1]:g} lies outside of what the model sees of this picture of "
                f"{geometry.source_size[-1]} x {geometry.source_size[-2]}: give x,y in its pixels."
            )
        raise AbsentError(
            f"The place {said(at, mm=mm)} lies outside of what the model sees of this volume of "
            f"{' x '.join(map(str, geometry.source_size))} voxels: give another."
        )
    return there


def cell(share: Sequence[float], grid: Sequence[int]) -> tuple[int, ...]:
    """The cell of a grid in which a place lies."""
    return tuple(min(math.floor(s * n), n - 1) for s, n in zip(share, grid, strict=True))


def said(at: Sequence[float], *, mm: bool) -> str:
    """A place as it is written."""
    return ",".join(f"{v:g}" for v in at) + ("mm" if mm else "")


def read_mask(file: str) -> Tensor | Volume:
    """A mask file: bool `(H, W)` of a picture, or a volume.

    Raises:
        TargetError: it cannot be read.
    """
    if is_nifti_name(file) or Path(file).is_dir():
        try:
            return read_volume(file)
        except MediaError as error:
            raise TargetError(f"The true mask cannot be read: {error}") from None
    try:
        with Image.open(Path(file).expanduser()) as image:
            pixels = np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise TargetError(f"The true mask {file} cannot be read: give a picture, not zero where it is.") from error
    return torch.from_numpy((pixels if pixels.ndim == 2 else pixels[..., :3].max(-1)) > 0)


def whole(mask: Tensor | Volume) -> Tensor:
    """A mask on its own grid."""
    return torch.from_numpy(mask.values > 0) if isinstance(mask, Volume) else mask


def on_input(mask: Tensor | Volume, geometry: Geometry, file: str) -> Tensor:
    """A mask of the original, at the centre of each pixel of the model's input; false beyond the original.

    Raises:
        AbsentError: it is of another size, or lies elsewhere in the patient.
    """
    places = laid_over(mask, geometry, file) > 0 if isinstance(mask, Volume) else mask
    if tuple(places.shape) != tuple(geometry.source_size):
        size, own = (" x ".join(map(str, tuple(n)[::-1])) for n in (places.shape, geometry.source_size))
        raise AbsentError(f"The true mask {file} is {size}, and the picture {own}: give one of its size.")
    if geometry.turn:
        places = torch.from_numpy(np.ascontiguousarray(turned(places.numpy(), geometry.turn)))
    spans = zip(geometry.box, geometry.input_size, geometry.turned_size, strict=True)
    for axis, ((start, stop), count, source) in enumerate(spans):
        at = (start + (torch.arange(count) + _ON) / count * (stop - start)).floor().long()
        places = places.index_select(axis, at.clamp(0, source - 1))
        outside = ((at < 0) | (at >= source)).reshape([-1 if k == axis else 1 for k in range(places.ndim)])
        places = places & ~outside
    return places


def laid_over(mask: Volume, geometry: Geometry, file: str) -> Tensor:
    """A mask's numbers along the axes of the original that it lies over.

    Raises:
        AbsentError: it lies elsewhere in the patient, or on another grid.
    """
    if not geometry.affine:
        return torch.from_numpy(mask.values)
    affine = np.vstack([np.asarray(geometry.affine, np.float64), [0, 0, 0, 1]])
    there = mask.along(affine, tuple(geometry.source_size))
    if there is None:
        raise AbsentError(f"The true mask {file} is not on the volume's grid: resample it to that.")
    return torch.from_numpy(np.ascontiguousarray(there.values))
