"""What opens a volume: a NIfTI file, a series of DICOM slices, a DICOM file of many frames, one of a package."""

from __future__ import annotations

import os
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path

from pellucid.errors import MediaError
from pellucid.media.address import scheme, windowed
from pellucid.media.magic import is_dicom_file, is_nifti_name
from pellucid.media.nifti import read_nifti
from pellucid.media.series import read_series, series_in
from pellucid.media.volume import Volume
from pellucid.media.window import chosen_window, said_window


def read_volume(source: str | os.PathLike[str] | Volume) -> Volume:
    """Read a NIfTI file, a folder of DICOM slices, a DICOM file of many frames, or `volume:mni-t1`.

    `series:2:FOLDER` is the second series of a folder that holds several; `time:3:FILE` the fourth moment of a NIfTI
    file with a time axis; `window:lung:FOLDER` any of them to be shown in another window.

    Raises:
        MediaError: missing, damaged, no volume, several, or slices that make no even stack; the cure is named.
    """
    if isinstance(source, Volume):
        return source
    return replace(_read(os.fspath(source)), given=os.fspath(source))


def _read(text: str) -> Volume:
    window, inner = windowed(text)
    if window != "auto":
        return _in_window(read_volume(inner), window)
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
    if path.is_dir() or chosen == "series" or is_dicom_file(path):
        return read_series(path, int(number) if chosen == "series" else None)
    return read_nifti(path, int(number) if chosen == "time" else None)


def volumes_in(source: str) -> list[str]:
    """The volumes behind a path: a file or a series itself, one for each series of a folder that holds several.

    Raises:
        MediaError: nothing there, or a folder without volumes.
    """
    window, inner = windowed(source)
    if window != "auto":
        return [f"window:{window}:{found}" for found in volumes_in(inner)]
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


def _in_window(volume: Volume, asked: str) -> Volume:
    """The same volume, drawn in the window that was asked for."""
    if volume.origin.get("kind") == "dicom":
        found = chosen_window(volume.made_from[0].file, asked, volume.values)
    else:
        found = said_window(asked, volume.unit, volume.name)
    inner = volume.source if not volume.source or scheme(volume.source) else str(Path(volume.source).absolute())
    source = f"window:{asked}:{inner}" if inner else ""
    return replace(volume, window=found.ends, source=source)
