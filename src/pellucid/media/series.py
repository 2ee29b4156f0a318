"""A DICOM series as a volume: slices sorted by where they lie, rescaled one by one, refused where they lie unevenly.

A file's name, its instance number and its slice location are not asked: the position along the normal of the slices is.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.dicom import DicomFile, identifiers, open_dicom, quiet
from pellucid.media.inputs import natural
from pellucid.media.magic import is_dicom_file
from pellucid.media.orientation import checked, codes, from_lps, said, to_mm
from pellucid.media.tiles import in_tiles
from pellucid.media.volume import MAX_VOXELS, Volume

T = TypeVar("T")

_SAME = 1e-3  # millimetres, and cosines, that count as equal
_EVEN = 0.02  # of the spacing: by how much slices may stray


@dataclass(frozen=True, eq=False)
class SeriesSlice:
    """One slice: where it lies, and how its values are had.

    Attributes:
        file: it is in.
        frame: of the file; None for a file of one picture. `file` then is as that frame says.
        corner, rows, columns: the centre of its first voxel, and the steps down a column and along a row, in DICOM's
            millimetres; NaN of a picture that lies nowhere.
    """

    file: DicomFile
    frame: int | None
    corner: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    @property
    def placed(self) -> bool:
        """Whether it says where it lies in the patient: a projection does not."""
        return bool(np.isfinite(self.corner).all())

    @property
    def normal(self) -> NDArray[np.float64]:
        """Of the slice, of length 1."""
        cross = np.cross(self.columns, self.rows)
        unit: NDArray[np.float64] = cross / np.linalg.norm(cross)
        return unit

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return int(self.file.number("Rows", 0)), int(self.file.number("Columns", 0))

    def values(self) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """Rescaled values `(rows, columns)`, and which of them are padding."""
        stored = self.file.stored(self.frame)
        if stored.ndim != 2:
            raise MediaError(f"{self.file.label} is in colour: a volume holds one number a voxel.")
        return self.file.rescaled(stored), self.file.padded(stored)


def files_of(folder: Path) -> list[Path]:
    """The DICOM files in a folder, or where it has none in the folders below it."""
    for pattern in ("*", "*/*", "*/*/*"):
        found = [
            p for p in sorted(folder.glob(pattern), key=lambda p: natural(p.name)) if p.is_file() and is_dicom_file(p)
        ]
        if found:
            return found
    return []


def series_in(folder: Path) -> dict[str, list[Path]]:
    """The files of each series of a folder, be they one patient's or several', the one with the most first."""
    groups: dict[str, list[Path]] = {}
    with quiet():
        for path in files_of(folder):
            key = _series(path)
            if key:
                groups.setdefault(key, []).append(path)
    return _ordered(groups)


def read_series(path: Path, number: int | None = None) -> Volume:
    """The volume of a folder of slices, of one series of it (from 1), or of a file of many frames.

    Raises:
        MediaError: no slices, several series and none chosen, or slices that make no even stack.
    """
    with quiet():
        opened, others = ([open_dicom(path)], []) if path.is_file() else _chosen(path, number)
        private = any(not file.source for file in opened)
        private |= any(text in str(path).casefold() for text in identifiers(opened[0].dataset))
        label = f"A series ({opened[0].name})" if private else str(path)
        stack, notes = _stack([s for file in opened for s in _slices(file)], label)
        volume = _volume(stack, opened, [*others, *notes], label)
    address = str(path) if number is None else f"series:{number}:{path.absolute()}"
    return volume if private else replace(volume, source=address)


def alone(file: DicomFile, sha256: str) -> Volume:
    """A single picture as a volume of one slice without values: what is written over it needs its headers alone."""
    frame = None if file.frames == 1 else 0
    try:
        one = slice_of(file, frame)
    except MediaError:
        nowhere = np.full(3, np.nan)
        one = SeriesSlice(file, frame, nowhere, nowhere, nowhere)
    return Volume(
        values=np.zeros((1, *one.size), np.float32),
        affine=np.eye(4),
        name=file.name,
        source="",
        sha256=sha256,
        origin={"kind": "dicom", "modality": file.modality},
        made_from=(one,),
    )


def _chosen(folder: Path, number: int | None) -> tuple[list[DicomFile], list[str]]:
    """The files of one series of a folder, each opened once, and what else it holds; no patient is named."""
    groups: dict[str, list[DicomFile]] = {}
    for path in files_of(folder):
        with suppress(MediaError):  # a damaged file of a folder must not take the others with it
            file = open_dicom(path)
            if key := _key(file.dataset):
                groups.setdefault(key, []).append(file)
    if not groups:
        raise MediaError(f"The folder {folder} holds no DICOM picture; name one that does.")
    ordered = _ordered(groups)
    if number is None and len(ordered) > 1:
        counts = ", ".join(str(len(files)) for files in ordered.values())
        raise MediaError(
            f"The folder {folder} holds {len(ordered)} series (of {counts} files): choose one, series:1:{folder} to "
            f"series:{len(ordered)}:{folder}."
        )
    if number is not None and not 1 <= number <= len(ordered):
        raise MediaError(f"The folder {folder} holds {len(ordered)} series, and no number {number}.")
    patients = len({key.partition("\0")[0] for key in ordered})
    whose = f" of {patients} patients" if patients > 1 else ""
    notes = [f"Its folder holds {len(ordered)} series{whose}, each a volume of its own."] if len(ordered) > 1 else []
    return list(ordered.values())[(number or 1) - 1], notes


def _ordered(groups: dict[str, list[T]]) -> dict[str, list[T]]:
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def _series(path: Path) -> str:
    """The series that a file belongs to; empty for what is no picture, a scout picture or a mask of the others."""
    import pydicom

    wanted = ["SeriesInstanceUID", "PatientID", "Rows", "ImageType", "SOPClassUID", "Modality"]
    try:
        with quiet():
            head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted, force=True)
            return _key(head)
    except Exception:  # a damaged file of a folder must not take the others with it
        return ""


def _key(dataset: Any) -> str:
    kind = [str(part).upper() for part in dataset.get("ImageType") or []]
    if not dataset.get("Rows") or "LOCALIZER" in kind or dataset.get("Modality") == "SEG":
        return ""
    return f"{dataset.get('PatientID')}\0{dataset.get('SeriesInstanceUID')}"


def _slices(file: DicomFile) -> list[SeriesSlice]:
    """The slices in a file, with the positions of its own or of its functional groups."""
    file.check(MAX_VOXELS)
    if in_tiles(file):
        raise MediaError(
            f"The frames of {file.label} are tiles of one picture, no volume: give it to a model of pictures."
        )
    if "MOSAIC" in [str(part).upper() for part in file.tag("ImageType") or []]:
        raise MediaError(
            f"{file.label} is a mosaic, all slices in one picture, and does not say where each lies: convert it, such "
            "as with dcm2niix."
        )
    if file.tag("PerFrameFunctionalGroupsSequence"):
        return [slice_of(file.at(k), k) for k in range(file.frames)]
    if file.frames == 1:
        return [slice_of(file, None)]
    offsets = file.tag("GridFrameOffsetVector")  # of radiotherapy's doses: from the first slice, along the normal
    if offsets is None or len(offsets) != file.frames:
        raise MediaError(f"{file.label} holds {file.frames} frames without a place in space: it is a clip, no volume.")
    first = slice_of(file, None)
    apart = [float(offset) - float(offsets[0]) for offset in offsets]
    return [replace(first, frame=k, corner=first.corner + first.normal * apart[k]) for k in range(file.frames)]


def slice_of(file: DicomFile, frame: int | None) -> SeriesSlice:
    """A file of one picture, or a frame of a file which is as that frame says, with where it lies.

    Raises:
        MediaError: it does not say where it lies.
    """
    wanted = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    position, orientation, pixels = (file.tag(keyword) for keyword in wanted)
    if position is None or orientation is None or pixels is None:
        raise MediaError(
            f"{file.label} does not say where it lies in the patient: it is a picture, no slice of a volume."
        )
    try:
        corner, cosines, (down, along) = (np.asarray([float(x) for x in v]) for v in (position, orientation, pixels))
        columns, rows = cosines[:3] * along, cosines[3:] * down
        if corner.shape != (3,) or cosines.shape != (6,) or not np.linalg.norm(np.cross(columns, rows)) > 1e-9:
            raise ValueError
    except (TypeError, ValueError):
        raise MediaError(f"{file.label} tells its place in the patient in a broken way: export it again.") from None
    return SeriesSlice(file, frame, corner, rows, columns)


def _stack(slices: list[SeriesSlice], label: str) -> tuple[list[SeriesSlice], list[str]]:
    """The slices of one even stack, from the lowest along their normal to the highest."""
    notes = []
    kinds = Counter((s.size, tuple(np.round(np.concatenate([s.rows, s.columns]), 3))) for s in slices)
    common, count = kinds.most_common(1)[0]
    if len(kinds) > 1:
        if count < 0.8 * len(slices):
            raise MediaError(f"{label} mixes slices of {len(kinds)} sizes or orientations: keep those of one.")
        notes.append(f"{len(slices) - count} of {len(slices)} slices are of another size or orientation, and left out.")
        slices = [s for s in slices if (s.size, tuple(np.round(np.concatenate([s.rows, s.columns]), 3))) == common]
    normal = slices[0].normal
    # of several moments at one place the first: whatever the files are called, one moment makes the volume
    slices = sorted(
        slices,
        key=lambda s: (round(float(s.corner @ normal) / _SAME), s.file.number("InstanceNumber", 0), s.frame or 0),
    )
    at = np.array([float(s.corner @ normal) for s in slices])
    again = np.flatnonzero(np.diff(at) < _SAME) + 1
    if len(again):
        notes.append(f"{len(again)} of {len(slices)} slices lie at the place of another, and are left out.")
        slices = [s for k, s in enumerate(slices) if k not in set(again.tolist())]
        at = np.delete(at, again)
    if len(slices) < 2 and len(again):
        raise MediaError(f"{label}: all its slices lie at one place, so they are no volume: explain them as pictures.")
    if len(slices) < 2:
        raise MediaError(f"{label} is a single slice, no volume: give the folder of its series.")
    steps = np.diff(at)
    step = float(np.median(steps))
    gaps = np.rint(steps / step).astype(int)
    if (np.abs(steps - gaps * step) > _EVEN * step * np.maximum(gaps, 1)).any() or (gaps < 1).any():
        apart = f"{steps.min():.2f} to {steps.max():.2f} mm"
        raise MediaError(f"{label}: its slices lie {apart} apart, not evenly: resample it.")
    if (gaps > 1).any():
        k, missing = int(np.argmax(gaps > 1)), int((gaps - 1).sum())
        place = said(to_mm(from_lps(np.eye(4)), slices[k].corner + normal * step))
        raise MediaError(
            f"{label}: {missing} slice{'s are' if missing > 1 else ' is'} missing, the first at {place} (its corner): "
            "find the file, or leave out the part behind it."
        )
    between = (slices[-1].corner - slices[0].corner) / (len(slices) - 1)
    if np.linalg.norm(between - normal * float(between @ normal)) > _EVEN * step:
        raise MediaError(f"{label}: the gantry was tilted, so its slices are shifted against each other: resample it.")
    return slices, notes


def _volume(stack: list[SeriesSlice], files: list[DicomFile], notes: list[str], label: str) -> Volume:
    first, size = stack[0], stack[0].size
    if len(stack) * size[0] * size[1] > MAX_VOXELS:
        raise MediaError(f"{label} holds more than {MAX_VOXELS:,} voxels: shrink it.")
    values = np.empty((len(stack), *size), np.float32)
    seen: NDArray[np.bool_] | None = None
    for k, one in enumerate(stack):
        values[k], padded = one.values()
        if padded is not None:
            seen = np.ones(values.shape, bool) if seen is None else seen
            seen[k] = ~padded
    affine = np.eye(4)
    affine[:3, 0] = (stack[-1].corner - first.corner) / (len(stack) - 1)
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = first.rows, first.columns, first.corner
    affine = checked(from_lps(affine), label)
    if seen is not None:
        values[~seen] = values[seen].min() if seen.any() else 0
    file = first.file
    digest = sha256("".join(sorted(f.sha256 for f in files)).encode()).hexdigest()
    return Volume(
        values=values,
        affine=affine,
        name=f"{file.modality.lower()}-{digest[:8]}",
        source="",
        sha256=digest,
        unit=file.unit,
        seen=seen,
        window=_window(file),
        notes=tuple(notes),
        origin={"kind": "dicom", "modality": file.modality, "codes": codes(affine), "slices": len(stack)},
        made_from=tuple(stack),
    )


def _window(file: DicomFile) -> tuple[float, float] | None:
    from pellucid.media.window import chosen_window

    if file.tag("WindowCenter") is None:
        return (40.0, 400.0) if file.unit == "HU" else None
    return chosen_window(file, "auto", np.zeros(0)).ends
