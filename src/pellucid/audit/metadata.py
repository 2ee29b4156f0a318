"""What a table says of pictures: a CSV whose first column is a file, matched to the pictures that are audited."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.media import Pictures, PictureSet
from pellucid.media.address import address

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Metadata:
    """Columns for pictures.

    Attributes:
        columns: by name a text for each picture; `unknown` where the table says nothing.
        notes: what did not match, a sentence each.
    """

    columns: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()


Given = Mapping[str, Sequence[str]] | str | Path | None
"""What is known of pictures: by name a text for each, or a CSV."""


def known_of(given: Given, looked: Pictures, folder: Any) -> Metadata:
    """What is known of each picture.

    Args:
        given: see `Given`.
        looked: the pictures.
        folder: what they were given as.

    Raises:
        DataError: a column has not one text for each picture; as `read_metadata`.
    """
    if isinstance(given, str | Path):
        home = folder if isinstance(folder, str | Path) else ""
        return read_metadata(given, [source_in(looked, i) for i in range(len(looked))], home)
    for name, texts in (given or {}).items():
        if len(texts) != len(looked):
            raise DataError(f"{name} has {len(texts)} entries for {len(looked)} pictures: give one for each.")
    return Metadata(given or {})


def source_in(pictures: Pictures, index: int) -> str:
    """What opens one of the pictures; its number among those that are in memory."""
    return pictures.sources[index] if isinstance(pictures, PictureSet) else f"{pictures.name} {index}"


def read_metadata(table: str | Path, sources: Sequence[str], folder: str | Path = "") -> Metadata:
    """The columns of a CSV for the pictures `sources`, in their order.

    A file is looked for as it stands, beside the table, in the folder of the pictures, and last by its bare name, where
    just one picture has it.

    Args:
        table: a CSV in UTF-8; its first column is the file, its header names the columns.
        sources: what opens each picture.
        folder: of the pictures.

    Raises:
        DataError: it cannot be read, has no columns, or speaks of none of the pictures.
    """
    home = Path(table).expanduser()
    header, rows = _rows(home)
    places = {address(source): i for i, source in enumerate(sources)}
    names = Counter(Path(source).name for source in sources)
    alone = {Path(source).name: i for i, source in enumerate(sources) if names[Path(source).name] == 1}

    def found(file: str) -> int | None:
        for path in (Path(file), home.parent / file, Path(folder) / file):
            if (i := places.get(address(str(path)))) is not None:
                return i
        return alone.get(Path(file).name)

    columns = {name: [UNKNOWN] * len(sources) for name in header[1:]}
    strange, met = list[str](), set[int]()
    for row in rows:
        i = found(row[0])
        if i is None:
            strange.append(row[0])
            continue
        met.add(i)
        for name, value in zip(header[1:], row[1:], strict=False):
            columns[name][i] = value.strip() or UNKNOWN
    if not met:
        raise DataError(
            f"No row of {table} is one of the {len(sources)} pictures (its first is {rows[0][0]}): the first column "
            "must hold paths, relative to the table or to the folder, or names of files."
        )
    notes = []
    if strange:
        notes.append(
            f"{len(strange)} rows of {home.name} are none of the pictures and were left out; the first: {strange[0]}."
        )
    if len(met) < len(sources):
        notes.append(f"{home.name} says nothing of {len(sources) - len(met)} pictures; their values are `{UNKNOWN}`.")
    return Metadata(columns, tuple(notes))


def _rows(table: Path) -> tuple[list[str], list[list[str]]]:
    if not table.is_file():
        raise DataError(f"There is no table {table}: check the path.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} can't be read as a table ({error}); save it as CSV in UTF-8.") from error
    header, *entries = rows or [[]]
    if len(header) < 2 or not entries:
        raise DataError(f"{table} needs a header and rows of at least two columns: the file, and what is known of it.")
    if twice := next((name for name, count in Counter(header[1:]).items() if count > 1), None):
        raise DataError(f"{table} has two columns named {twice}: give each a name of its own.")
    return header, entries
