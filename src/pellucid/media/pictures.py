"""Which pictures are meant by what people give: a folder, with classes or groups in it, a pattern, a list, a batch.

`read_folder` answers with a set of pictures and their classes, `collect` with single ones, of any medium, each once.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.language import some
from pellucid.media.address import SCHEMES, address
from pellucid.media.digits import DIGITS, load_digits
from pellucid.media.image import digest, read_image
from pellucid.media.inputs import expand, natural
from pellucid.media.medium import CLIP, PICTURE, Medium
from pellucid.media.picture import Picture

TABLE = "labels.csv"
_ANIMATED = frozenset((".gif", ".webp"))  # clips, where clips are looked for
_LABEL_COLUMNS = ("class", "label")


Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels."""


@dataclass(frozen=True)
class Origin:
    """What opens a picture again, without its pixels.

    Attributes:
        source: its file (sample, digit).
        sha256: of that file.
        box: which part of it, if not all.
        name: what people call it, where that is known.
    """

    source: str
    sha256: str
    box: Box | None = None
    name: str = ""

    @classmethod
    def of(cls, picture: Picture) -> Origin:
        """That of a picture which is open."""
        return cls(address(picture.source), picture.sha256, name=picture.name)

    def part(self, box: Box) -> Origin:
        """A part of it, given in its own pixels."""
        top, left = (self.box[0], self.box[1]) if self.box is not None else (0, 0)
        return replace(self, box=(top + box[0], left + box[1], top + box[2], left + box[3]))


class Pictures(Protocol):
    """Pictures that are read one at a time: what works through many of them asks for no more than this."""

    @property
    def name(self) -> str:
        """What people call them."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each, ``(N,)``; empty where nothing is known of classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, index: int) -> Picture:
        """One of them."""

    def digest(self, index: int) -> str:
        """SHA-256 of one, without decoding it."""

    def origin(self, index: int) -> Origin:
        """What opens one again."""


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures on disk, each read when it is asked for.

    Attributes:
        name: what people call them: the folder, the glob.
        sources: what opens each: a path, ``sample:NAME``, ``digits:17``.
        labels: the class of each, ``(N,)``; empty where the pictures are not labelled.
        classes: names of the classes, in natural order.
    """

    name: str
    sources: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.sources)

    def read(self, index: int) -> Picture:
        """One picture, upright and in RGB."""
        return read_image(self.sources[index])

    def digest(self, index: int) -> str:
        """SHA-256 of one picture's file, equal to its `Picture.sha256`."""
        return digest(self.sources[index])

    def origin(self, index: int) -> Origin:
        """The file (in full), sample or digit."""
        return Origin(address(self.sources[index]), self.digest(index))

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> PictureSet:
        """Some of the pictures, in the order given; the classes stay the same."""
        chosen = [int(i) for i in indices]
        labels = self.labels[chosen] if len(self.labels) else self.labels
        return replace(self, sources=tuple(self.sources[i] for i in chosen), labels=labels)


@dataclass(frozen=True, eq=False)
class ClipSet(PictureSet):
    """Clips on disk in the place of pictures, each opened when it is asked for."""

    def read(self, index: int) -> Any:
        """One clip, opened but not decoded (`Footage`)."""
        return CLIP.open(self.sources[index])


def read_folder(
    source: str | Path | Sequence[str | Path], medium: Medium = PICTURE, *, absent: bool = False
) -> PictureSet:
    """The pictures behind a folder, a glob, ``sample:*``, ``digits:``, or a list of these. Nothing is opened.

    A folder whose sub-folders hold pictures is labelled: each sub-folder is a class. So is one with a table
    ``labels.csv``, whose first column is the file and whose column ``class`` or ``label`` (else the second one) is the
    class; and such a table itself, whatever its name, whose files lie beside it or where they say. Anything else is not
    labelled. Of clips (`medium`) it is the same. With `absent` a table may list files that
    are not there, as long as some are: those are refused when they are read.

    Raises:
        MediaError: nothing there, or labels that contradict each other.
    """
    held = ClipSet if medium is CLIP else PictureSet
    if not isinstance(source, str | Path):
        return held(f"{medium.name}s", tuple(medium.expand(source)), _NONE)
    text = os.fspath(source)
    if text == DIGITS:
        _, labels = load_digits()
        names = tuple(str(d) for d in range(10))
        return PictureSet(text, tuple(f"{DIGITS}{i}" for i in range(len(labels))), labels, names)
    path = Path(text).expanduser()
    if path.suffix.lower() == ".csv" and path.is_file():
        return _from_table(path, path.stem, held, absent)
    if not path.is_dir():
        return held(text, tuple(medium.expand([source])), _NONE)
    if (path / TABLE).is_file():
        return _from_table(path / TABLE, path.name, held, absent)
    inside = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    inside.sort(key=lambda p: natural(p.name))
    groups = {p.name: files for p in inside if (files := _held_in(p, medium))}
    if not groups:
        return held(path.name, tuple(medium.expand([path])), _NONE)
    if beside := _held_in(path, medium):
        what = "clips" if medium is CLIP else "pictures"
        raise MediaError(
            f"The folder {text} holds {len(beside)} {what} beside its folders of classes "
            f"({some(groups)}): move them into one of these, or elsewhere."
        )
    labels = np.repeat(np.arange(len(groups)), [len(files) for files in groups.values()])
    return held(path.name, tuple(f for files in groups.values() for f in files), labels, tuple(groups))


_NONE = np.zeros(0, np.int64)


Shown = str | Path | list[str | Path] | tuple[str | Path, ...] | Pictures
"""Pictures, or the address or addresses of some."""


def as_pictures(
    given: Shown,
    medium: Medium = PICTURE,
    *,
    absent: bool = False,
) -> Pictures:
    """What was given, or what `read_folder` makes of an address or a list of them."""
    return read_folder(given, medium, absent=absent) if isinstance(given, str | Path | list | tuple) else given


def _held_in(folder: Path, medium: Medium) -> list[str]:
    endings = medium.wanted.endings | (_ANIMATED if medium is CLIP else frozenset())
    names = [p for p in folder.iterdir() if p.suffix.lower() in endings and p.is_file() and not p.name.startswith(".")]
    return [str(p) for p in sorted(names, key=lambda p: natural(p.name))]


def _from_table(table: Path, name: str, held: type[PictureSet], absent: bool) -> PictureSet:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{table} can't be read as a table ({error}); save it as CSV in UTF-8.") from error
    header, *entries = rows or [[]]
    named = [header.index(c) for c in _LABEL_COLUMNS if c in header]
    if len(header) < 2 or not entries:
        raise MediaError(
            f"{table} needs a header and rows of at least two columns, with a comma between: the file, and its class."
        )
    column = named[0] if named else 1
    if short := next(
        (row for row in entries if not (row[0].strip() and "".join(row[column : column + 1]).strip())), None
    ):
        raise MediaError(
            f"The row {','.join(short)!r} of {table} lacks a file or a class: complete it, or leave it out."
        )
    files = [_beside(table, row[0]) for row in entries]
    if repeated := [f for f, count in Counter(files).items() if count > 1]:
        raise MediaError(f"{table} lists {repeated[0]} more than once: keep one row for each picture.")
    missing = [f for f in files if not os.path.isfile(f)]
    if missing and not (absent and len(missing) < len(files)):
        raise MediaError(f"{table} lists {missing[0]}, which is not there: check the first column.")
    classes = sorted({row[column] for row in entries}, key=natural)
    labels = np.array([classes.index(row[column]) for row in entries], np.int64)
    return held(name, tuple(files), labels, tuple(classes))


def _beside(table: Path, file: str) -> str:
    """A file that a table names, which lies beside it, or where it says."""
    beside = table.parent / file
    return file if not beside.is_file() and os.path.isfile(file) else str(beside)


@dataclass(frozen=True, eq=False)
class Member:
    """One of many pictures: how to get it, and the folder it lies in."""

    source: Any
    folder: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.source if isinstance(self.source, str) else "input"


def is_collection(inputs: Any, medium: Medium | None = PICTURE) -> bool:
    """Whether an answer over many pictures is wanted: of a folder, a pattern, a list or a batch of several.

    Args:
        inputs: what was given.
        medium: what they are for the model: of clips, a folder of numbered frames is one. None: not yet known.
    """
    if isinstance(inputs, Tensor):
        return (medium or PICTURE).is_batch(inputs) and len(inputs) != 1
    if isinstance(inputs, str | Path):
        if _is_folder(inputs) and not (medium and medium.wanted.whole):
            return True
        return len(medium.expand([inputs]) if medium else expand([inputs], clips=None, schemes=SCHEMES)) > 1
    return isinstance(inputs, Sequence)


def collect(inputs: Any, medium: Medium = PICTURE) -> list[Member]:
    """All pictures (or clips), each once; those in a folder, or in its subfolders, know in which.

    Raises:
        MediaError: a file is missing, or neither a folder nor its subfolders hold a picture.
    """
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
    found: list[Member] = []
    seen: set[str] = set()
    for item in inputs if several else [inputs]:
        for member in _members(item, medium):
            if isinstance(member.source, str):
                real = address(member.source)
                if real in seen:
                    continue
                seen.add(real)
            found.append(member)
    if not found:
        raise MediaError("There is no picture: give some, or a folder that holds some.")
    return found


def _is_folder(item: str | Path) -> bool:
    return Path(item).expanduser().is_dir()


def _members(item: Any, medium: Medium) -> Iterator[Member]:
    if isinstance(item, Tensor) and medium.is_batch(item):
        yield from (Member(item[i : i + 1]) for i in range(len(item)))  # each a batch of one, which nobody takes apart
        return
    if not isinstance(item, str | Path):
        yield Member(item)
        return
    if not _is_folder(item):
        yield from (Member(source) for source in medium.expand([item]))
        return
    folder = Path(item).expanduser()
    try:
        inner = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: natural(p.name))
    except OSError as error:
        raise MediaError(f"The folder {item} can't be listed; check its permissions.") from error
    empty = True
    for place in [folder, *(p for p in inner if not p.name.startswith("."))]:
        try:
            sources = medium.expand([place])
        except MediaError:
            continue
        empty = False
        yield from (Member(source, place.resolve().name) for source in sources)
    if empty:
        raise MediaError(f"The folder {item} holds no picture, nor do its subfolders; name a folder that does.")
