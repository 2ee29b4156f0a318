"""What visitors send: kept under names made here, below a cap, and only kinds that the guarded readers open."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pellucid.errors import PellucidError
from pellucid.studio.settings import MEGABYTE

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
ENDINGS = PICTURES | {".dcm", ".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".nii", ".nii.gz"}
_CHUNK = 1 << 20
_MARKUP = re.compile(rb"<(\?xml|!doctype|svg|html|script)", re.I)


class UploadError(PellucidError):
    """An upload that is not taken; the sentence says why."""


class Sent(Protocol):
    """A file that a visitor sent."""

    filename: str | None

    async def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        ...


async def kept(sent: Sent, folder: Path, most: int, room: int) -> tuple[Path, str]:
    """Keep an upload.

    Args:
        sent: the file.
        folder: of this visitor's uploads.
        most: bytes that it may have.
        room: bytes that the visitor may still store.

    Returns:
        Where it is, under a name made here, and what the visitor calls it.

    Raises:
        UploadError: too large, of another kind, or markup.
    """
    home = folder / secrets.token_hex(8)
    home.mkdir(parents=True)
    try:
        return await _written(sent, home, most, room, ENDINGS)
    except BaseException:
        home.rmdir()
        raise


async def kept_together(sent: Sequence[Sent], folder: Path, most: int, room: int) -> tuple[Path, str]:
    """Keep several pictures in one folder.

    Args:
        sent: the files, at least one.
        folder: of this visitor's uploads.
        most: bytes that each may have.
        room: bytes that the visitor may still store.

    Returns:
        The folder, and how many pictures are in it, in words.

    Raises:
        UploadError: as for one; then none of them is kept.
    """
    shown = f"{len(sent)}-pictures"
    home = folder / secrets.token_hex(8) / shown
    home.mkdir(parents=True)
    try:
        for number, one in enumerate(sent):
            file, _ = await _written(one, home, most, room, PICTURES, prefix=f"{number:04d}-")
            room -= file.stat().st_size
    except BaseException:
        shutil.rmtree(home.parent)
        raise
    return home, shown


async def _written(
    sent: Sent, home: Path, most: int, room: int, endings: frozenset[str], prefix: str = ""
) -> tuple[Path, str]:
    """One file, written into its folder; nothing of it is left where it is not taken."""
    whole = Path((sent.filename or "upload").replace("\\", "/")).name
    packed = whole.lower().endswith(".nii.gz")
    stem, _, last = (whole[:-7], "", "nii.gz") if packed else whole.rpartition(".")
    shown, ending = whole[-120:], f".{last.lower()}"
    if ending not in endings:
        raise UploadError(
            f"{shown} is no picture or video that is taken here: send {', '.join(sorted(e[1:] for e in endings))}."
        )
    file = home / f"{prefix}{_plain(stem)}{ending}"
    size = 0
    try:
        with file.open("xb") as out:
            while data := await sent.read(_CHUNK):
                if size == 0 and _MARKUP.match(data.lstrip(b"\xef\xbb\xbf \t\r\n")):
                    raise UploadError(f"{shown} is markup (such as SVG), which is not drawn here: send PNG or JPEG.")
                size += len(data)
                if size > most:
                    raise UploadError(f"{shown} is larger than {most // MEGABYTE} MB: send a smaller one.")
                if size > room:
                    raise UploadError("Your uploads fill their room here: ask whoever runs the studio to clear it.")
                out.write(data)
        if size == 0:
            raise UploadError(f"{shown} is empty: choose a file.")
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file, shown


def stored(folder: Path) -> int:
    """Bytes that a visitor's uploads take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0


def _plain(name: str) -> str:
    """A file name that means nothing to any system."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "upload"
