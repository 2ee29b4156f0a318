"""Rows of a long benchmark, kept in a file of lines of JSON as they come: a run that was cut goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import source_digest

Row = dict[str, Any]


def kept(path: str, which: Row, find: Callable[[], Row]) -> Row:
    """The latest row of the file `path` that holds `which`; where there is none, what `find` finds, added to the file.

    Without a path nothing is kept.
    """
    file = Path(path)
    lines = file.read_text(encoding="utf-8").splitlines() if path and file.is_file() else []
    known = [row for row in map(json.loads, lines) if which.items() <= row.items()]
    if known:
        return known[-1]
    row = which | {"source": source_digest()} | find()
    line = json.dumps(row)
    print(line, flush=True)
    if path:
        with file.open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")
    return row


def older(found: Sequence[Row]) -> str:
    """A sentence on rows that were measured before the source was what it is."""
    source = source_digest()
    count = sum(row["source"] != source for row in found)
    return f" Rows of an earlier state of the source: {count}." if count else ""
