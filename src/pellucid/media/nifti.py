"""NIfTI: the header judged before anything is unpacked, the affine by its code. Extra `medical`."""

from __future__ import annotations

import gzip
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import MediaError
from pellucid.media.magic import nifti_stem
from pellucid.media.orientation import checked, codes
from pellucid.media.volume import MAX_VOXELS, Volume

_MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI-1 or NIfTI-2, packed or not, by its first bytes."""
    try:
        head = _head(path)
    except (OSError, EOFError, ValueError):
        return False
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def read_nifti(path: Path, time: int | None = None) -> Volume:
    """A NIfTI file as a volume, in the order of its own axes.

    Args:
        path: the file.
        time: which moment of a file with a time axis, from 0.

    Raises:
        MediaError: no NIfTI, damaged, too large, without a place in space, or of values that are no numbers.
    """
    label = str(path)
    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file():
        path = path.with_suffix(".hdr")  # of a pair, which the header tells of
    if not is_nifti(path):
        raise MediaError(
            f"{label} is neither NIfTI nor DICOM: give a .nii or .nii.gz file, or a folder of DICOM slices."
        )
    try:
        import nibabel
    except ImportError:
        raise MediaError('NIfTI needs nibabel: pip install "pellucid[medical]".') from None
    try:
        image: Any = nibabel.load(path)
        header, shape = image.header, tuple(int(n) for n in image.shape)
        kind = header.get_data_dtype() if hasattr(header, "get_sform") else None
    except Exception as error:
        raise _damaged(label, error) from None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if kind is None:
        raise MediaError(f"{label} holds {type(image).__name__}, no volume of voxels: convert it.")
    if kind.fields is not None or kind.kind not in "iuf":
        raise MediaError(f"{label} holds {_words(kind)}, not one number a voxel: convert it.")
    size = " x ".join(map(str, shape))
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise MediaError(f"{label} is {size}, not a volume of three axes: cut it.")
    if np.prod(shape[:3], dtype=float) > MAX_VOXELS:
        raise MediaError(f"{label} claims {size} voxels, more than {MAX_VOXELS:,}: shrink it.")
    if len(shape) == 4 and (time is None or time >= shape[3]):
        raise MediaError(
            f"{label} holds {shape[3]} moments: choose one, time:0:{label} to time:{shape[3] - 1}:{label}."
        )
    affine, which = _affine(header, image.affine, label)
    try:
        data = image.dataobj[
            (slice(None),) * 3 + ((time or 0),) * (len(image.shape) > 3) + (0,) * (len(image.shape) - 4)
        ]
        values = np.asarray(data, np.float32)
    except Exception as error:
        raise _damaged(label, error) from None
    seen = np.isfinite(values)
    digest = _digest(sorted({path, *(Path(f.filename) for f in image.file_map.values() if f.filename)}))
    origin = {"kind": "nifti", "affine": which, "codes": codes(affine), "time": time}
    name = nifti_stem(path.name)
    source = str(path) if time is None else f"time:{time}:{path.absolute()}"
    return Volume(
        values=np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0),
        affine=affine,
        name=name,
        source=source,
        sha256=digest,
        seen=None if seen.all() else seen,
        origin=origin,
        made_from=header,
    )


def _damaged(label: str, error: Exception) -> MediaError:
    """What reading raised, in one sentence."""
    if isinstance(error, FileNotFoundError):
        return MediaError(f"{label} is one of a pair of files, .hdr and .img: put the other beside it.")
    return MediaError(f"{label} is damaged or cut short ({type(error).__name__}): get or export it again.")


def _digest(files: list[Path]) -> str:
    """The hash of a file; of a pair that of both hashes."""
    found = []
    for one in files:
        with one.open("rb") as file:
            found.append(file_digest(file, "sha256").hexdigest())
    return found[0] if len(found) == 1 else sha256("".join(found).encode()).hexdigest()


def _affine(header: Any, otherwise: Any, label: str) -> tuple[Any, str]:
    """The sform where its code is above 0, else the qform where its is, else what the spacing alone tells."""
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform > 0:
        found, which = header.get_sform(), f"sform, code {sform}"
    elif qform > 0:
        found, which = header.get_qform(), f"qform, code {qform}"
    else:
        found, which = otherwise, "spacing alone"
    scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    found = np.diag([scale, scale, scale, 1.0]) @ np.asarray(found, np.float64)
    return checked(found, label), which


def _words(kind: Any) -> str:
    return "colours" if kind.fields is not None else "complex numbers" if kind.kind == "c" else str(kind)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(348)
    if start[:2] != b"\x1f\x8b":
        return start
    with gzip.open(path, "rb") as packed:
        return packed.read(348)
