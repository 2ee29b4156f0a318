"""The rows of a batch in one file, for other tools."""

from __future__ import annotations

import json
from pathlib import Path

from pellucid.errors import StorageError
from pellucid.keep.files import write_durably
from pellucid.keep.shards import encoded
from pellucid.results.rows import COLUMNS
from pellucid.verbs.results import HEAVY, results

ENDINGS = (".parquet", ".csv", ".jsonl")


def export(folder: str | Path, file: Path, *, where: str | None = None, maps: bool = False) -> int:
    """Write the rows of a batch, or those for which a condition holds; how many.

    Args:
        folder: of the batch.
        file: its ending says what it becomes: `.parquet`, `.csv`, `.jsonl`.
        where: a condition in SQL.
        maps: with the maps and the full records.

    Raises:
        StorageError: another ending, or the file cannot be written.
    """
    if file.suffix not in ENDINGS:
        raise StorageError(f"{file.name} ends in none of {', '.join(ENDINGS)}: name a file that does.")
    if maps and file.suffix != ".parquet":
        raise StorageError(f"Maps are no text: export them to .parquet, or {file.suffix} without --maps.")
    rows = results(folder) if where is None else results(folder).where(where)
    columns = [name for name in COLUMNS if maps or name not in HEAVY]
    if file.suffix == ".csv":
        columns = [name for name in columns if not COLUMNS[name].endswith("s")]  # lists have no place in a cell
    table = rows.table(columns)
    if file.suffix == ".parquet":
        write_durably(file, lambda temporary: temporary.write_bytes(encoded(table)))
    elif file.suffix == ".csv":
        import pyarrow.csv

        write_durably(file, lambda temporary: pyarrow.csv.write_csv(table, str(temporary)))
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
        write_durably(file, lambda temporary: temporary.write_text(lines, encoding="utf-8"))
    return int(table.num_rows)
