"""What a person gives for a clip (a video, an animation, a folder of frames, an array) to one thing that is sampled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.address import SCHEMES, scheme, windowed
from pellucid.media.cine import Cine, cine_in
from pellucid.media.clip import Caps, Clip, Footage, FramesInMemory, StillError
from pellucid.media.frames import Animation, FrameFolder
from pellucid.media.inputs import SUFFIXES as PICTURES
from pellucid.media.inputs import VIDEOS
from pellucid.media.magic import may_be_dicom
from pellucid.media.picture import refuse_url
from pellucid.media.sampling import Plan
from pellucid.media.video import open_video

ClipSource = str | os.PathLike[str] | NDArray[Any] | Clip | Footage

_ANIMATED = (b"GIF8", b"RIFF", b"\x89PNG")
_MOVING = (b"\x1a\x45\xdf\xa3", b"FLV", b"OggS", b"\x30\x26\xb2\x75", b"YUV4MPEG", b"\x00\x00\x01\xba")


def open_clip(source: ClipSource, *, caps: Caps | None = None) -> Footage:
    """Open a video, an animation, a folder of numbered pictures, a DICOM clip, a generated clip or an array.

    Frames are decoded when they are read.

    Raises:
        MediaError: missing, broken, too large or no moving picture; the message names the cure.
    """
    caps = caps or Caps()
    if isinstance(source, Footage):
        return source
    if isinstance(source, Clip):
        return FramesInMemory(
            source.frames, source.times, name=source.name, source=source.source, digest=source.sha256, caps=caps
        )
    if isinstance(source, np.ndarray):
        return FramesInMemory(source, caps=caps)
    text = os.fspath(source)
    if (known := scheme(text)) in SCHEMES:
        footage: Footage = SCHEMES[known](text.partition(":")[2])
        return footage
    window, text = windowed(text)
    refuse_url(text)
    path = Path(text).expanduser()
    if path.is_dir():
        files = [str(file) for file in path.iterdir() if file.suffix.lower() in PICTURES and file.name[0] != "."]
        if any(cine_in(Path(file)) for file in files):
            raise MediaError(f"The folder {text} holds DICOM clips of many frames: name them one by one, {text}/NAME.")
        return FrameFolder(path, files, text, caps)
    kind = _magic(path)
    if may_be_dicom(path, kind):
        return Cine(text, window, caps)
    if window != "auto":
        raise MediaError(f"{text} is no DICOM picture, and only those have windows: leave the window out.")
    if kind.startswith((b"\xff\xd8", b"BM")):
        raise StillError(f"{text} is a single picture; give a clip of several frames.")
    if kind.startswith(_ANIMATED) and kind[8:12] != b"AVI ":
        return Animation(path, text, caps)
    return open_video(text, caps=caps)


def read_clip(source: ClipSource, plan: Plan | str | int = "uniform", *, caps: Caps | None = None) -> Clip:
    """Read the frames that a sampling plan takes (see `Plan`); `uniform` without a number takes all.

    Raises:
        MediaError: as `open_clip`, or frames that cannot be decoded.
    """
    return open_clip(source, caps=caps).clip(Plan.parse(plan))


def is_video(source: str | os.PathLike[str]) -> bool:
    """Whether a path names a video by its ending or its first bytes; animations count as pictures too."""
    path = Path(source).expanduser()
    kind = _magic(path)
    return path.suffix.lower() in VIDEOS or kind.startswith(_MOVING) or kind[4:8] == b"ftyp" or kind[8:12] == b"AVI "


def is_animation(source: str | os.PathLike[str]) -> bool:
    """Whether a path names one picture file of several frames: GIF, WebP, PNG.

    Raises:
        MediaError: it is broken, or too large.
    """
    path = Path(source).expanduser()
    try:
        return path.is_file() and isinstance(open_clip(path), Animation)
    except StillError:
        return False


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except (OSError, ValueError):
        return b""
