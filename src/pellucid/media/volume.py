"""Volumes: values on a grid in the patient, with the affine that says where; and what opens one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.address import scheme
from pellucid.media.magic import is_nifti_name, may_be_dicom
from pellucid.media.orientation import Affine, Turn, codes, spacing, turned, turned_affine

MAX_VOXELS = 600_000_000
"""The largest volume read, in voxels; checked from the header."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Values in the patient.

    Attributes:
        values: `(I, J, K)`, float32, in the order of the file (of a DICOM series: slices, rows, columns).
        affine: `(4, 4)`, from an index to millimetres Right, Anterior, Superior.
        name: tells nothing of the patient.
        source: what opens it again; empty for what was made in memory, or where a path names the patient.
        sha256: of the files' bytes.
        unit: of the values, such as `HU`.
        seen: false where nothing was measured; None: all of it was.
        window: (centre, width) in which it is drawn; None: its own range.
        notes: what a reader must know.
        origin: what of it goes into records: kind, codes, spacing.
        made_from: the files or headers that results are written after; never printed or saved.
    """

    values: NDArray[np.float32]
    affine: Affine
    name: str
    source: str
    sha256: str
    unit: str = ""
    seen: NDArray[np.bool_] | None = None
    window: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    made_from: Any = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int, int]:
        """(I, J, K)."""
        return self.values.shape[0], self.values.shape[1], self.values.shape[2]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from one voxel to the next, along each axis."""
        return spacing(self.affine)

    @property
    def codes(self) -> str:
        """The letters that its axes run towards."""
        return codes(self.affine)

    def turned(self, turn: Turn) -> Volume:
        """The same volume with its axes permuted and flipped; every voxel keeps its place."""
        seen = None if self.seen is None else turned(self.seen, turn)
        affine = turned_affine(self.affine, self.size, turn)
        return replace(self, values=turned(self.values, turn), seen=seen, affine=affine)

    def windowed(self, window: tuple[float, float]) -> Volume:
        """The same volume, drawn in another window (centre, width)."""
        return replace(self, window=window)

    def brightness(self, values: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Its values, or some of them, as they are drawn: in [0, 1]."""
        shown = self.values if values is None else values
        if self.window is not None:
            low, high = self.window[0] - self.window[1] / 2, self.window[0] + self.window[1] / 2
        else:
            a, b, c = (max(1, n // 64) for n in self.size)
            some = self.values[::a, ::b, ::c]
            some = some[np.isfinite(some)]
            low, high = (float(q) for q in np.quantile(some, (0.01, 0.995))) if some.size else (0.0, 1.0)
        scaled: NDArray[np.float32] = ((np.nan_to_num(shown, nan=low) - low) / max(high - low, 1e-12)).clip(0, 1)
        return scaled.astype(np.float32)


def read_volume(source: str | os.PathLike[str] | Volume) -> Volume:
    """Read a NIfTI file, a folder of DICOM slices, a DICOM file of many frames, or `volume:mni-t1`.

    `series:2:FOLDER` is the second series of a folder that holds several; `time:3:FILE` the fourth moment of a NIfTI
    file with a time axis.

    Raises:
        MediaError: missing, damaged, no volume, several, or slices that make no even stack; the cure is named.
    """
    if isinstance(source, Volume):
        return source
    text = os.fspath(source)
    head, _, rest = text.partition(":")
    if head == "volume":
        return ready_made(rest)
    number, second, inner = rest.partition(":")
    chosen = head if head in ("series", "time") and second else ""
    if chosen and not number.isdecimal():
        raise MediaError(f"{text!r} names no {chosen}: write {chosen}:NUMBER:PATH.")
    path = Path(inner if chosen else text).expanduser()
    if not path.exists():
        raise MediaError(f"There is no file or folder {path}; check the path.")
    if path.is_dir() or chosen == "series" or _is_dicom_file(path):
        from pellucid.media.series import read_series

        return read_series(path, int(number) if chosen == "series" else None)
    from pellucid.media.nifti import read_nifti

    return read_nifti(path, int(number) if chosen == "time" else None)


def volumes_in(source: str) -> list[str]:
    """The volumes behind a path: a file or a series itself, one for each series of a folder that holds several.

    Raises:
        MediaError: nothing there, or a folder without volumes.
    """
    path = Path(source).expanduser()
    if scheme(source) and not path.exists():
        return [source]
    if not path.exists():
        matches = sorted(glob(str(path), recursive=True)) if has_magic(str(path)) else []
        if not matches:
            raise MediaError(f"There is no file or folder {source}; check the path.")
        return [found for match in matches for found in volumes_in(match)]
    if path.is_file():
        return [str(path)]
    packed = sorted(str(p) for p in path.iterdir() if is_nifti_name(p))
    if packed:
        return packed
    from pellucid.media.series import series_in

    count = len(series_in(path))
    if not count:
        raise MediaError(f"The folder {source} holds no volume; name a NIfTI file or a folder of DICOM slices.")
    return [str(path)] if count == 1 else [f"series:{k + 1}:{path.absolute()}" for k in range(count)]


def ready_made(name: str) -> Volume:
    """A volume that a package brings: `mni-t1`, the head of the MNI template (nilearn).

    Raises:
        MediaError: no such volume, or the package is missing.
    """
    from importlib.util import find_spec

    from pellucid.media.nifti import read_nifti

    if name != "mni-t1":
        raise MediaError(f"There is no volume {name!r}: there is volume:mni-t1.")
    found = find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise MediaError("volume:mni-t1 comes with nilearn: pip install nilearn.")
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    file = next(iter(sorted(folder.glob("mni_icbm152_t1*.nii.gz"))), None)
    if file is None:
        raise MediaError("This nilearn brings no MNI T1: pip install -U nilearn.")
    return replace(read_nifti(file), name="mni-t1", source="volume:mni-t1")


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return may_be_dicom(path, file.read(132))
    except OSError:
        return False
