"""`results`: the rows of a batch, read back: a lazy table, and each row as the result that it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import StorageError
from pellucid.keep.artefact import Artefact
from pellucid.keep.journal import Journal
from pellucid.keep.shards import arrow, read_lazily
from pellucid.media.inputs import natural
from pellucid.results.rows import COLUMNS, artefact_of
from pellucid.verbs.verify import opened

VERDICTS = ("meaningless", "not faithful", "unproven", "partly faithful", "faithful")
"""From the worst to the best."""
HEAVY = ("map", "arrays", "meta", "key", "stamp")
"""Columns that a table leaves out unless they are asked for."""


def results(folder: str | Path) -> Rows:
    """What has a batch found?

    Args:
        folder: the `--out` of `pellucid batch`.

    Returns:
        `Rows`: nothing is read before it is asked for.

    Raises:
        StorageError: the folder holds no batch, or a shard is gone.
    """
    journal = Journal(folder)
    journal.about()
    return Rows(journal.folder, tuple(journal.paths()))


@dataclass(frozen=True)
class Rows:
    """The rows of a batch, or those that meet some conditions.

    Attributes:
        folder: of the batch.
        paths: its shards, as they were when it was opened.
        conditions: in SQL, all of which hold.
    """

    folder: Path
    paths: tuple[Path, ...]
    conditions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Rows({', '.join(map(repr, (str(self.folder), len(self), *self.conditions)))})"

    def where(self, condition: str) -> Rows:
        """Those for which a condition in SQL holds, such as `verdict = 'not faithful' and probability > 0.9`.

        Raises:
            StorageError: it is no condition on these columns, or DuckDB (extra `batch`) is missing.
        """
        found = Rows(self.folder, self.paths, (*self.conditions, condition))
        found._sql("count(*)")
        return found

    def __len__(self) -> int:
        """How many rows."""
        if not self.conditions:
            return sum(arrow().parquet.read_metadata(path).num_rows for path in self.paths)
        return int(self._sql("count(*)").to_pylist()[0]["count_star()"])

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """A pyarrow table of some columns; by default all but those with the maps and the full records.

        Raises:
            StorageError: there is no such column.
        """
        wanted = [name for name in COLUMNS if name not in HEAVY] if columns is None else list(columns)
        if unknown := [name for name in wanted if name not in COLUMNS]:
            raise StorageError(f"There is no column {unknown[0]!r}: choose {', '.join(COLUMNS)}.")
        if self.conditions:
            return self._sql(", ".join(f'"{name}"' for name in wanted))
        return self._lazy().to_table(columns=wanted)

    def sample(self, id: str) -> Any:
        """The result of one row, as if just made: an explanation with its map, geometry, figures and record.

        Its picture is there if the file is, unchanged. A map that was kept as float16 is off by less than one part in
        2,000 of each value.

        Raises:
            StorageError: no such row, or it failed.
        """
        return opened(self.stored(id))

    def stored(self, id: str) -> Artefact:
        """What is kept of one row, without its picture.

        Raises:
            StorageError: no such row, or it failed.
        """
        pa = arrow()
        rows: list[dict[str, Any]] = []
        if self.paths:
            its = pa.dataset.field("id") == id
            places = self._lazy().to_table(columns=["__filename"], filter=its).column(0)
            rows = [row for file in places.to_pylist() for row in pa.parquet.read_table(file, filters=its).to_pylist()]
        if not rows:
            raise StorageError(f"There is no row {id!r} in {self.folder}.")
        (row,) = rows
        if row["status"] != "done":
            raise StorageError(f"Row {id!r} has no result: {row['error']}")
        return artefact_of(dict.fromkeys(COLUMNS) | row)

    def worst(self, count: int) -> list[dict[str, Any]]:
        """The finished rows whose verdict is worst, of one verdict those that chance explains best; without a verdict
        the answers that are least sure. As plain values, without the maps and the full records.
        """
        pa = arrow()
        table = self.table()
        table = table.filter(pa.compute.equal(table.column("status"), "done"))
        ranks = pa.compute.index_in(table.column("verdict"), value_set=pa.array(VERDICTS))
        table = table.append_column("rank", ranks)
        order = [("rank", "ascending"), ("p_value", "descending"), ("probability", "ascending"), ("id", "ascending")]
        return list(table.sort_by(order).slice(0, count).drop_columns(["rank"]).to_pylist())

    def verdicts(self) -> dict[str, int]:
        """How many rows have each verdict, the worst first; then how many are `not measured`, and `failed`."""
        table, pa = self.table(["status", "verdict"]), arrow()
        done = table.filter(pa.compute.equal(table.column("status"), "done"))
        found = Counter(done.column("verdict").to_pylist())
        counts = {name: found[name] for name in VERDICTS}
        counts |= {"not measured": found[None], "failed": table.num_rows - done.num_rows}
        return {name: count for name, count in counts.items() if count}

    def inputs(self) -> list[str]:
        """What was explained, each input once, by name: files, samples, addresses in a store."""
        table = self.table(["status", "input"])
        done = table.filter(arrow().compute.equal(table.column("status"), "done")).column("input")
        return sorted(set(done.to_pylist()), key=natural)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as plain values, without the maps and the full records."""
        yield from self.table().to_pylist()

    def _sql(self, what: str) -> Any:
        """A table by DuckDB."""
        try:
            import duckdb
        except ImportError as error:
            raise StorageError('Conditions are read by DuckDB: pip install "pellucid[batch]".') from error
        connection = duckdb.connect()
        try:
            connection.register("rows", self._lazy())
            holds = " and ".join(f"({c})" for c in self.conditions) or "true"
            found = connection.sql(f"select {what} from rows where {holds}")
            return found.to_arrow_table() if hasattr(found, "to_arrow_table") else found.fetch_arrow_table()
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            raise StorageError(f"{self.conditions[-1]!r} is no condition on the rows: {said}") from error
        finally:
            connection.close()

    def _lazy(self) -> Any:
        return read_lazily(self.paths, COLUMNS)
