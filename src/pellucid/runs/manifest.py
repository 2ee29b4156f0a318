"""What a batch is of: folders, globs, or a manifest (Parquet, CSV, COCO), read a piece at a time."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pellucid.errors import MediaError
from pellucid.keep.key import number
from pellucid.keep.shards import arrow
from pellucid.media import address, expand, scheme
from pellucid.media.inputs import natural
from pellucid.runs.remote import is_remote

PATHS = (
    "path", "input", "file", "file_name", "filename", "file_path", "filepath", "image", "image_path", "img",
    "img_path", "uri", "url", "source",
)  # fmt: skip
"""What the column of a manifest may be called that names the input, in whatever case."""
TABLES = (".parquet", ".csv", ".tsv", ".json")
_SEPARATORS = (",", ";", "\t")
_LOOKED_FOR = 32  # inputs of which one must be there
AT_ONCE = 1_000_000  # rows whose ids are compared before the work begins
TWICE = "The manifest {} has an id twice: each row needs its own, or leave out the column."


@dataclass(frozen=True)
class Item:
    """One input of a batch.

    Attributes:
        source: what opens it, from anywhere; empty where the manifest names none.
        given_id: what the manifest calls it.
        target: the manifest's own target for it.
        stamp: of a file, its size and time as one number: another one means that it was changed.
    """

    source: str
    given_id: str | None = None
    target: str | None = None
    stamp: int = 0

    @property
    def key(self) -> int:
        """What tells it from the others of the batch."""
        return number("\n".join([self.given_id or "", self.source, self.target or ""]))

    def stamped(self) -> Item:
        """With the stamp of its file as it is now; 0 for what is no file."""
        try:
            about = os.stat(self.source)
        except (OSError, ValueError):
            return self
        return replace(self, stamp=number(f"{about.st_size} {about.st_mtime_ns}"))


@dataclass(frozen=True)
class Manifest:
    """Inputs in order, each opened when its turn comes.

    Attributes:
        given: folders, globs, files and manifests, as addresses.
        limit: how many inputs at most; None: all.
        root: the folder from which the paths of manifests start; None: each from the manifest's own.
    """

    given: tuple[str, ...]
    limit: int | None = None
    root: str | None = None

    @classmethod
    def of(cls, given: Sequence[str | Path], limit: int | None = None, root: str | Path | None = None) -> Manifest:
        """From what a person types.

        Raises:
            MediaError: a manifest has no column of paths, or names one input twice.
        """
        start = None if root is None else str(root) if is_remote(str(root)) else address(root)
        manifest = cls(tuple(address(item) for item in given), limit, start)
        for table in manifest._tables():
            table.check()
        return manifest

    def __iter__(self) -> Iterator[Item]:
        """All items; nothing is held but the piece that is being read.

        Raises:
            MediaError: a manifest cannot be read, or a folder holds nothing.
        """
        for count, item in enumerate(self._all()):
            if self.limit is not None and count >= self.limit:
                return
            yield item

    def count(self) -> int:
        """How many there are; of a manifest in Parquet without reading it."""
        total = sum(t.count() for t in self._tables())
        total += sum(1 for item in self._files())
        return total if self.limit is None else min(total, self.limit)

    def first_found(self) -> None:
        """Look for the first inputs.

        Raises:
            MediaError: there are none, or a manifest names files of which the first are all missing.
        """
        for table in self._tables():
            first = [item.source for item in islice(table, _LOOKED_FOR)]
            if not first:
                raise MediaError(f"The manifest {table.path} names no input: it has a header, but no rows.")
            if not any(scheme(source) or is_remote(source) or os.path.exists(source) for source in first):
                raise MediaError(
                    f"None of the first {len(first)} inputs that the manifest {table.path} names is there, such as "
                    f"{first[0]}: name the folder from which its paths start with --root."
                )

    def digest(self) -> str:
        """What tells that a manifest was edited: its size and time; of folders nothing, they are read anew."""
        return " ".join(str(Item(t.path).stamped().stamp) for t in self._tables())

    def _tables(self) -> list[ManifestFile]:
        return [ManifestFile(item, self.root) for item in self.given if _is_table(item)]

    def _all(self) -> Iterator[Item]:
        for table in self._tables():
            yield from table
        yield from self._files()

    def _files(self) -> Iterator[Item]:
        for item in self.given:
            if not _is_table(item):
                for source in _found(item):
                    yield Item(address(source))


def _is_table(item: str) -> bool:
    return item.lower().endswith(TABLES) and os.path.isfile(item)


def _found(item: str) -> Iterator[str]:
    """The sources of a folder with all its sub-folders, in natural order; of anything else, what `expand` finds."""
    if not os.path.isdir(item):
        yield from expand([item], clips=None)
        return
    empty = True
    seen = {os.path.realpath(item)}
    for folder, inner, _ in os.walk(item, followlinks=True):
        below = {name: os.path.realpath(os.path.join(folder, name)) for name in inner if not name.startswith(".")}
        inner[:] = sorted((name for name, real in below.items() if real not in seen), key=natural)
        seen.update(below.values())
        try:
            for source in expand([folder], clips=None):
                empty = False
                yield source
        except MediaError:
            continue
    if empty:
        raise MediaError(f"The folder {item} holds no picture or video, nor do its sub-folders; name one that does.")


@dataclass(frozen=True)
class ManifestFile:
    """A manifest on disk: a column of paths, and perhaps `id` and `target`.

    Paths start from `root`, or from the manifest's own folder. `.json` is COCO's: its `images`. The columns of a text
    are parted by whichever of comma, semicolon and tab its header has most of.
    """

    path: str
    root: str | None = None

    def columns(self) -> list[str]:
        """The names of its columns."""
        try:
            if self.path.endswith(".parquet"):
                return list(arrow().parquet.read_schema(self.path).names)
            if self.path.endswith(".json"):
                return ["file_name", "id"]
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                header = file.readline()
                return next(csv.reader([header], delimiter=_separator(header), skipinitialspace=True), [])
        except (OSError, ValueError, UnicodeDecodeError) as error:  # pyarrow's own are ValueErrors
            raise MediaError(f"The manifest {self.path} can't be read: {error}.") from error

    def column(self) -> str:
        """The column of paths.

        Raises:
            MediaError: there is none.
        """
        columns = self.columns()
        found = _called(columns, *PATHS)
        if found is None:
            raise MediaError(
                f"The manifest {self.path} has no column of paths: call it {PATHS[0]!r}; it has "
                f"{', '.join(columns) or 'none'}."
            )
        return found

    def check(self) -> None:
        """Raises MediaError where it has no column of paths, or an id stands twice (of a million rows at most)."""
        column, pa = self.column(), arrow()
        if self.path.endswith(".parquet"):
            kind = pa.parquet.read_schema(self.path).field(column).type
            if not any(text in str(kind) for text in ("string", "binary")) or pa.types.is_nested(kind):
                raise MediaError(
                    f"The column {column!r} of the manifest {self.path} holds {kind}, not paths: write the pictures to "
                    "files, and name those."
                )
        named = _called(self.columns(), "id")
        if named is None or self.count() > AT_ONCE:  # of more, the driver notices when it comes to one
            return
        if self.path.endswith(".parquet"):
            ids = pa.parquet.read_table(self.path, columns=[named]).column(named)
            twice = pa.compute.count_distinct(ids).as_py() < len(ids)
        else:
            seen = [item.given_id for item in self]
            twice = len(set(seen)) < len(seen)
        if twice:
            raise MediaError(TWICE.format(self.path))

    def count(self) -> int:
        """How many rows."""
        if self.path.endswith(".parquet"):
            return int(arrow().parquet.read_metadata(self.path).num_rows)
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Item]:
        columns, column = self.columns(), self.column()
        folder = os.path.dirname(self.path) if self.root is None else self.root
        of_id, of_target = _called(columns, "id"), _called(columns, "target")
        for row in self._rows([name for name in (column, of_id, of_target) if name is not None]):
            named = _text(row.get(column))
            source = "" if named is None else _placed(folder, named)
            yield Item(source, _text(row.get(of_id)), _text(row.get(of_target)))

    def _rows(self, wanted: list[str]) -> Iterator[dict[str | None, Any]]:
        try:
            if self.path.endswith(".parquet"):
                file = arrow().parquet.ParquetFile(self.path)
                for batch in file.iter_batches(batch_size=4096, columns=wanted):
                    yield from batch.to_pylist()
            elif self.path.endswith(".json"):
                yield from self._of_coco()
            else:
                with open(self.path, newline="", encoding="utf-8-sig") as text:
                    header = text.readline()
                    text.seek(0)
                    yield from csv.DictReader(text, delimiter=_separator(header), skipinitialspace=True)
        except (OSError, ValueError, csv.Error) as error:
            raise MediaError(f"The manifest {self.path} can't be read: {type(error).__name__} {error}.") from error

    def _of_coco(self) -> Iterator[dict[str | None, Any]]:
        with open(self.path, encoding="utf-8") as text:
            read = json.load(text)
        try:
            found: list[dict[str | None, Any]] = [
                {"file_name": image["file_name"], "id": image.get("id")} for image in read["images"]
            ]
        except (KeyError, TypeError, AttributeError):
            raise MediaError(f"{self.path} is no COCO file: it has no `images`, each with a `file_name`.") from None
        yield from found


def _placed(folder: str, named: str) -> str:
    if is_remote(named) or os.path.isabs(named) or address(named) == named:
        return named
    return f"{folder.rstrip('/')}/{named}" if is_remote(folder) else os.path.normpath(os.path.join(folder, named))


def _called(columns: Sequence[str], *names: str) -> str | None:
    """The column of one of these names, the first that there is; blanks around it and its case do not count."""
    plain = {column.strip().casefold(): column for column in reversed(columns)}
    return next((plain[name] for name in names if name in plain), None)


def _separator(header: str) -> str:
    return max(_SEPARATORS, key=header.count)


def _text(value: Any) -> str | None:
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)
    return None if value is None else text or None


__all__ = ["Item", "Manifest", "ManifestFile"]
