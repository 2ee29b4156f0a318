"""DICOM Segmentations as masks: each frame laid where it says it lies, whatever was left out. Extra `medical`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import AbsentError, MediaError
from pellucid.media.dicom import DicomFile, open_dicom, quiet
from pellucid.media.orientation import Affine, from_lps
from pellucid.media.series import slice_of

_SAME = 0.1  # of a voxel: by how much a frame may lie beside the volume


def segments_over(path: Path, affine: Affine, size: tuple[int, ...]) -> NDArray[np.int64]:
    """The number of the segment in each voxel of a grid, 0 where there is none; of several the last.

    A share (FRACTIONAL) counts from a half of the largest on. Frames that were left out are empty.

    Raises:
        MediaError: no Segmentation, or damaged.
        AbsentError: a frame lies beside the grid.
    """
    with quiet():
        file = _opened(path)
        found = np.zeros(size, np.int64)
        to_index = np.linalg.inv(affine) @ from_lps(np.eye(4))
        for k in range(file.frames):
            frame = file.at(k)
            numbers = _numbers(frame, file.stored(k if file.frames > 1 else None))
            if not numbers.any():
                continue
            at = _places(frame, k, numbers.shape, to_index)
            inside = ((at >= 0) & (at < np.array(size)[:, None, None])).all(0)
            if (numbers[~inside] > 0).any() or at.dtype.kind != "i":
                raise AbsentError(f"The true mask {path} is not on the volume's grid: resample it to that.")
            there = inside & (numbers > 0)
            found[tuple(axis[there] for axis in at)] = numbers[there]
    return found


def segment_numbers(path: Path) -> set[int]:
    """The numbers of the segments that are not empty.

    Raises:
        MediaError: no Segmentation, or damaged.
    """
    with quiet():
        file = _opened(path)
        stored = (_numbers(file.at(k), file.stored(k if file.frames > 1 else None)) for k in range(file.frames))
        return {int(n) for numbers in stored for n in np.unique(numbers)} - {0}


def _opened(path: Path) -> DicomFile:
    file = open_dicom(path)
    if file.modality != "SEG":
        what = "contours" if file.modality == "RTSTRUCT" else file.modality
        raise MediaError(f"{file.label} holds {what}, no mask: give a DICOM Segmentation or NIfTI.")
    file.check()
    return file


def _numbers(frame: DicomFile, stored: NDArray[Any]) -> NDArray[np.int64]:
    kind = str(frame.tag("SegmentationType", "BINARY"))
    if kind == "LABELMAP":
        return stored.astype(np.int64)
    least = frame.number("MaximumFractionalValue", 255) / 2 if kind == "FRACTIONAL" else 0.5
    return np.where(stored >= least, int(frame.number("ReferencedSegmentNumber", 1)), 0)


def _places(frame: DicomFile, k: int, size: tuple[int, ...], to_index: Affine) -> NDArray[Any]:
    """Index of each of a frame's pixels `(3, rows, columns)`; floats where they lie between voxels."""
    one = slice_of(frame, k)
    down, along = np.mgrid[: size[0], : size[1]]
    mm = one.corner[:, None, None] + one.rows[:, None, None] * down + one.columns[:, None, None] * along
    at = np.tensordot(to_index[:3, :3], mm, 1) + to_index[:3, 3, None, None]
    whole = np.rint(at)
    return whole.astype(np.int64) if float(np.abs(at - whole).max()) <= _SAME else at
