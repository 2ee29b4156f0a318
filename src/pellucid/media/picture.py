"""A picture as everything takes it, and how a file's bytes are come by: sized, typed, every failure a sentence."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.errors import MediaError
from pellucid.media.depth import Pixels, UnfitError

MAX_PIXELS = 100_000_000
"""The largest picture decoded by default, in pixels (height x width)."""

MAX_BYTES = 512 * 2**20
"""The largest picture file read, in bytes."""

Notes = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright RGB picture, and where it came from.

    Attributes:
        pixels: (H, W, 3), either uint8 or, from deeper sources (16-bit, float), float32 in [0, 1].
        name: a stem for file names.
        source: what opens it again (a path or ``sample:NAME``); empty for a picture made in memory.
        sha256: of the file's bytes; of shape, type and pixels for a picture made in memory.
        notes: what a reader must know of how it was read, one sentence each.
        seen: (H, W), false where nothing was measured (the padding of a medical picture); None: all of it was.
        remarks: how it was made ready to be looked at, where there was a choice.
        medical: whether it is one of a patient, beside whose map a reliability card belongs.
        made_from: the DICOM file's header, after which results are written; never printed or saved.
    """

    pixels: Pixels
    name: str
    source: str
    sha256: str
    notes: tuple[str, ...] = ()
    seen: NDArray[np.bool_] | None = None
    remarks: tuple[str, ...] = ()
    medical: bool = False
    made_from: Any = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def pil(self) -> Image.Image:
        """The picture as an 8-bit RGB PIL image; a deeper one is rounded."""
        if self.pixels.dtype == np.uint8:
            return Image.fromarray(self.pixels)
        return Image.fromarray((self.pixels * 255 + 0.5).astype(np.uint8))


def refuse_url(text: str) -> None:
    """Raise MediaError if ``text`` is a URL: Pellucid opens files only."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:", text) and not os.path.lexists(text):
        raise MediaError(f"{text[:200]} is a URL; download the picture and give its path.")


def read_bytes(path: Path, label: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file that is not too large; every failure is a sentence."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise MediaError(f"{label} is a folder; name a picture in it.")
        if not stat.S_ISREG(info.st_mode):
            raise MediaError(f"{label} is a device or a pipe; give a picture file.")
        if info.st_size > max_bytes:
            raise MediaError(f"{label} is larger than {max_bytes / 2**20:g} MiB; give a smaller file.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise MediaError(f"There is no file {label}; check the path.") from None
    except PermissionError:
        raise MediaError(f"{label} may not be read; check its permissions.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise MediaError(f"{label} can't be read ({error}); check the path.") from error
    if not data:
        raise MediaError(f"{label} is empty; give a picture file.")
    return data


@contextmanager
def explained(label: str, use: str = "a picture") -> Iterator[None]:
    """Say in one sentence what any decoder raises; on hostile bytes PIL's plugins raise nearly anything."""
    try:
        yield
    except UnfitError as error:
        raise MediaError(f"{label} can't be used as {use}: {error}.") from None
    except MediaError:
        raise
    except Exception as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise MediaError(f"{label} is damaged or incomplete ({reason}); get or save it again.") from error
