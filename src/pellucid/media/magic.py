"""What the first bytes of a file tell of its kind."""

from __future__ import annotations

import os
from pathlib import Path

DICOM_ENDINGS = frozenset((".dcm", ".dicom", ".ima"))
"""What a DICOM file of a folder ends in, if in anything."""

_NO_PREAMBLE = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")  # how the first group is written, either way round


def is_nifti_name(source: str | os.PathLike[str]) -> bool:
    """Whether a path is called as NIfTI files are."""
    return os.fspath(source).lower().endswith((".nii", ".nii.gz"))


def nifti_stem(name: str) -> str:
    """What a NIfTI file is called without its endings."""
    return name.removesuffix(".gz").removesuffix(".nii")


def is_dicom(data: bytes) -> bool:
    """Whether these are the first bytes of DICOM, with its preamble."""
    return data[128:132] == b"DICM"


def may_be_dicom(path: Path, data: bytes) -> bool:
    """Whether a file is DICOM, or is called so and begins as DICOM without its preamble does."""
    return is_dicom(data) or (path.suffix.lower() in DICOM_ENDINGS and data[:2] in _NO_PREAMBLE)


def is_dicom_file(path: Path) -> bool:
    """`may_be_dicom` of a file on disk; false where it can't be read."""
    try:
        with path.open("rb") as file:
            return may_be_dicom(path, file.read(132))
    except OSError:
        return False
