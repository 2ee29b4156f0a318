"""From what a person types (files, folders, globs, samples) to a plain list of sources."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from glob import escape, glob, has_magic, iglob
from pathlib import Path

from pellucid.errors import MediaError
from pellucid.media.address import address, scheme, windowed
from pellucid.media.digits import DIGITS, digit, load_digits
from pellucid.media.magic import is_dicom
from pellucid.media.picture import refuse_url
from pellucid.media.samples import EVERY, PREFIX, SAMPLES, sample_path

SUFFIXES = frozenset(
    f".{end}"
    for end in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "mpo", "webp", "avif"),
        *("bmp", "dib", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
        *("dcm", "dicom", "ima"),
    )
)
"""What a file in a folder or a glob ends in to count as a picture; one named outright may end in anything."""


VIDEOS = frozenset(
    f".{end}"
    for end in (
        *("mp4", "m4v", "mov", "3gp", "3g2", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "vob"),
        *("ogv", "ogg", "flv", "wmv", "asf", "y4m"),
    )
)
"""The same for videos."""


@dataclass(frozen=True)
class Wanted:
    """Which files of a folder or a glob are meant, and what they are called.

    Attributes:
        endings: of the files.
        noun: what one is called.
        whole: where a folder has none of them: endings of files that together, as the folder, are one.
    """

    endings: frozenset[str]
    noun: str
    whole: frozenset[str] = frozenset()


ANY = Wanted(SUFFIXES | VIDEOS | {".nii", ".gz"}, "picture or video")
"""Where the model is not yet known."""


def expand(inputs: Sequence[str | Path], *, clips: bool | None = False, schemes: Collection[str] = ()) -> list[str]:
    """List the sources behind ``inputs``, in the order given, each once.

    An input is a file, a folder (its own pictures, not those of its sub-folders, in natural order), a glob
    (``**`` reaches into sub-folders) or ``sample:NAME`` (``sample:*`` works too, and is ``samples:``). Nothing is
    opened.

    Args:
        inputs: what a person typed.
        clips: for models of clips: a folder stands for the videos in it, or, where it holds pictures only, for itself,
            one clip of numbered frames; a glob matches videos. None: either will do, as the model is not yet known.
        schemes: what else may stand before a colon; such inputs are handed on as they are.

    Raises:
        MediaError: a file is missing, a folder holds no picture, a glob matches none, or a URL was given.
    """
    wanted = ANY if clips is None else Wanted(VIDEOS, "video", whole=SUFFIXES) if clips else Wanted(SUFFIXES, "picture")
    return listed(inputs, wanted, schemes)


def listed(inputs: Sequence[str | Path], wanted: Wanted, schemes: Collection[str] = ()) -> list[str]:
    """`expand` for any kind of files; what begins with one of `schemes` is handed on as it is."""
    sources: dict[str, str] = {}  # real path -> what to show, so that a.jpg and ./a.jpg are one picture
    for item in inputs:
        text = os.fspath(item)
        generated = scheme(windowed(text)[1]) in schemes
        for source in [text] if generated else _expand(text, wanted):
            sources.setdefault(address(source), source)
    return list(sources.values())


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        MediaError: missing, no text, or nothing in it.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"{path} can't be read as text ({error}); give a file with one entry a line.") from error
    if not (found := [line.strip() for line in lines if line.strip()]):
        raise MediaError(f"{path} is empty; give a file with one entry a line.")
    return found


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that puts frame2 before frame10."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _expand(item: str, wanted: Wanted) -> list[str]:
    if item == EVERY:
        return _samples("*")
    if item.startswith(PREFIX):
        return _samples(item.removeprefix(PREFIX))
    if item.startswith(DIGITS):
        return _digits(item)
    if scheme(item) == "window":
        window, file = windowed(item)
        return [f"window:{window}:{path}" for path in _expand(file, wanted)]
    refuse_url(item)
    path = os.path.expanduser(item)
    if os.path.isdir(path):
        try:
            files = [os.path.join(path, name) for name in os.listdir(path) if not name.startswith(".")]
        except OSError as error:
            raise MediaError(f"The folder {item} can't be listed; check its permissions.") from error
        if not _ending(files, wanted.endings) and (_ending(files, wanted.whole) or (wanted is ANY and _study(path))):
            return [path]  # numbered frames, slices
        otherwise = f"The folder {item} holds no {wanted.noun}; name a folder or a glob that does."
        return _matching(files, wanted.endings, otherwise)
    if os.path.lexists(path):
        return [path]
    if has_magic(path):
        kinds = wanted.endings | SUFFIXES  # animations are pictures by their ending
        return _matching(glob(path, recursive=True), kinds, f"{item} matches no {wanted.noun}; check the pattern.")
    folder = os.path.dirname(path) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    near = get_close_matches(os.path.basename(path), names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "check the path."
    raise MediaError(f"There is no file or folder {item}; {hint}")


def _matching(paths: Sequence[str], kinds: Collection[str], otherwise: str) -> list[str]:
    found = _ending(paths, kinds)
    if not found:
        raise MediaError(otherwise)
    return sorted(found, key=natural)


def _ending(paths: Sequence[str], kinds: Collection[str]) -> list[str]:
    return [p for p in paths if os.path.splitext(p)[1].lower() in kinds and os.path.isfile(p)]


def _study(folder: str) -> bool:
    """Whether some of the files in a folder, or in folders below it, are DICOM, whatever they are called."""
    for below in ("*", "*/*", "*/*/*"):
        for path in filter(os.path.isfile, iglob(os.path.join(escape(folder), below))):
            with suppress(OSError), open(path, "rb") as file:
                if is_dicom(file.read(132)):
                    return True
    return False


def _digits(item: str) -> list[str]:
    if item == DIGITS:
        return [f"{DIGITS}{i}" for i in range(len(load_digits()[1]))]
    digit(item)  # raises where there is none
    return [item]


def _samples(name: str) -> list[str]:
    names = [known for known in SAMPLES if fnmatchcase(known, name)]
    if not names:
        sample_path(name)  # raises, with near misses
    return [PREFIX + known for known in names]
