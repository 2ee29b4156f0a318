"""What a batch is of: folders, globs, or a manifest (Parquet, CSV, COCO), read a piece at a time."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.errors import MediaError
from pellucid.keep.key import number
from pellucid.keep.shards import arrow
from pellucid.media import address, expand
from pellucid.media.inputs import natural

PATHS = ("path", "input", "file", "file_name", "filename", "image", "uri", "source")
"""What the column of a manifest may be called that names the input."""
TABLES = (".parquet", ".csv", ".json")
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
    """

    given: tuple[str, ...]
    limit: int | None = None

    @classmethod
    def of(cls, given: Sequence[str | Path], limit: int | None = None) -> Manifest:
        """From what a person types.

        Raises:
            MediaError: a manifest has no column of paths, or names one input twice.
        """
        manifest = cls(tuple(address(item) for item in given), limit)
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

    def digest(self) -> str:
        """What tells that a manifest was edited: its size and time; of folders nothing, they are read anew."""
        return " ".join(str(Item(t.path).stamped().stamp) for t in self._tables())

    def _tables(self) -> list[ManifestFile]:
        return [ManifestFile(item) for item in self.given if _is_table(item)]

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
    for folder, inner, _ in os.walk(item):
        inner[:] = sorted((name for name in inner if not name.startswith(".")), key=natural)
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

    Paths are relative to the manifest's own folder. `.json` is COCO's: its `images`.
    """

    path: str

    def columns(self) -> list[str]:
        """The names of its columns."""
        try:
            if self.path.endswith(".parquet"):
                return list(arrow().parquet.read_schema(self.path).names)
            if self.path.endswith(".json"):
                return ["file_name", "id"]
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                return next(csv.reader(file), [])
        except (OSError, ValueError, UnicodeDecodeError) as error:  # pyarrow's own are ValueErrors
            raise MediaError(f"The manifest {self.path} can't be read: {error}.") from error

    def column(self) -> str:
        """The column of paths.

        Raises:
            MediaError: there is none.
        """
        columns = self.columns()
        found = next((name for name in PATHS if name in columns), None)
        if found is None:
            raise MediaError(
                f"The manifest {self.path} has no column of paths: call it {PATHS[0]!r}; it has "
                f"{', '.join(columns) or 'none'}."
            )
        return found

    def check(self) -> None:
        """Raises MediaError where it has no column of paths, or an id stands twice (of a million rows at most)."""
        self.column()
        if "id" not in self.columns() or self.count() > AT_ONCE:  # of more, the driver notices when it comes to one
            return
        if self.path.endswith(".parquet"):
            pa = arrow()
            ids = pa.parquet.read_table(self.path, columns=["id"]).column("id")
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
        column, folder = self.column(), Path(self.path).parent
        for row in self._rows(column):
            named = row.get(column)
            source = "" if named in (None, "") else _placed(folder, str(named))
            yield Item(source, _text(row.get("id")), _text(row.get("target")))

    def _rows(self, column: str) -> Iterator[dict[str, Any]]:
        wanted = [name for name in self.columns() if name in (column, "id", "target")]
        try:
            if self.path.endswith(".parquet"):
                file = arrow().parquet.ParquetFile(self.path)
                for batch in file.iter_batches(batch_size=4096, columns=wanted):
                    yield from batch.to_pylist()
            elif self.path.endswith(".json"):
                with open(self.path, encoding="utf-8") as text:
                    images = json.load(text)["images"]
                yield from ({"file_name": image["file_name"], "id": image.get("id")} for image in images)
            else:
                with open(self.path, newline="", encoding="utf-8-sig") as text:
                    yield from csv.DictReader(text)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise MediaError(f"The manifest {self.path} can't be read: {type(error).__name__} {error}.") from error


def _placed(folder: Path, named: str) -> str:
    if "://" in named or os.path.isabs(named) or address(named) == named:
        return named
    return os.path.normpath(folder / named)


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


__all__ = ["Item", "Manifest", "ManifestFile"]
