"""Where the truth lies in volumes: masks as NIfTI or DICOM, each on its volume's grid; its axes may run otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import AbsentError, MediaError
from pellucid.media import Volume
from pellucid.media.geometry import Geometry
from pellucid.media.magic import is_dicom_file, is_nifti_name, nifti_stem
from pellucid.media.seg_masks import segment_numbers, segments_over
from pellucid.media.volumes import read_volume
from pellucid.models.targets.places import laid_over

_ENDINGS = ("", "_mask", "_seg", "_segmentation", "_label", "_labels")
_CHANNEL = re.compile(r"_0\d{3}$")  # of nnU-Net's pictures, whose masks have none


class VolumeTruth:
    """Masks by volume.

    Args:
        given: one mask, NIfTI or a DICOM Segmentation, of all volumes; or a folder of masks, each called as its volume
            (a series as its folder, or as its results), `_mask`, `_seg`, `_segmentation` or `_label` after it or not.
        classes: how many the model has, where the numbers in a mask are theirs; with two and fewer, and of models that
            answer no regions, all above 0 is true.

    Raises:
        MediaError: there is no such file, or no mask in the folder.
    """

    def __init__(self, given: str | Path, classes: int = 0) -> None:
        self.source, self._numbered = Path(given).expanduser(), classes > 2
        self._files: dict[str, Path] = {}
        self._read: tuple[Path, Volume] | None = None
        if self.source.is_dir():
            self._files = {_stem(f.name): f for f in sorted(self.source.iterdir()) if _is_mask(f)}
        if not self._files and not _is_mask(self.source):
            raise MediaError(
                f"There is no mask at {given}: give a NIfTI file or a DICOM Segmentation, or a folder of them, on the "
                "volumes' grids."
            )

    def file(self, source: str, name: str) -> Path | None:
        """The mask of a volume by its path, and what its results are called; None where there is none."""
        if not self._files:
            return self.source
        own = _stem(Path(source.rpartition(":")[2]).name)
        called = [called + ending for called in (name, own, _CHANNEL.sub("", own)) for ending in _ENDINGS]
        return next((self._files[c] for c in called if c in self._files), None)

    def of(self, file: Path, geometry: Geometry, index: int | None) -> Tensor:
        """Where a mask is true, bool over the original; of class `index` alone where its numbers are the model's.

        Raises:
            MediaError: it cannot be read, or is not on the volume's grid.
        """
        try:
            if is_nifti_name(file):
                return self._places(laid_over(self._opened(file), geometry, str(file)), index)
            affine = np.vstack([np.asarray(geometry.affine, np.float64), [0, 0, 0, 1]])
            numbers = segments_over(file, affine, tuple(geometry.source_size))
        except AbsentError as error:
            raise MediaError(str(error)) from None
        return self._places(torch.from_numpy(numbers), index)

    def holds(self, file: Path, index: int) -> bool:
        """Whether anything of a class is true."""
        if not is_nifti_name(file):
            there = segment_numbers(file)
            return index in there if self._numbered else bool(there)
        return bool(self._places(torch.from_numpy(self._opened(file).values), index).any())

    def _places(self, numbers: Tensor, index: int | None) -> Tensor:
        return numbers.round() == index if self._numbered and index is not None else numbers > 0

    def _opened(self, file: Path) -> Volume:
        if self._read is None or self._read[0] != file:
            self._read = file, read_volume(file)
        return self._read[1]


def _is_mask(path: Path) -> bool:
    return path.is_file() and (is_nifti_name(path) or is_dicom_file(path))


def _stem(name: str) -> str:
    return nifti_stem(name) if is_nifti_name(name) else name.removesuffix(".dcm")
