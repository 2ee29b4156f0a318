"""Rows in Parquet: typed columns, zstd, one file a shard. Needs pyarrow, from the extra `batch`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.errors import StorageError
from pellucid.keep.files import write_durably


def arrow() -> Any:
    """pyarrow.

    Raises:
        StorageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise StorageError('Batches are kept in Parquet: pip install "pellucid[batch]".') from error
    return pyarrow


def schema(columns: Mapping[str, str]) -> Any:
    """A pyarrow schema of `name -> kind`; lists are `strings`, `ints`, `floats`."""
    pa = arrow()
    kinds = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(),
        "binary": pa.binary(), "strings": pa.list_(pa.string()), "ints": pa.list_(pa.int32()),
        "floats": pa.list_(pa.float32()),
    }  # fmt: skip
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


def table_of(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Any:
    """Rows as a pyarrow table; a column that a row does not fill is null."""
    pa, types = arrow(), schema(columns)
    return pa.table([pa.array([row.get(f.name) for row in rows], f.type) for f in types], schema=types)


def encoded(table: Any) -> bytes:
    """A table as a Parquet file."""
    buffer = io.BytesIO()
    plain = [f.name for f in table.schema if str(f.type) == "binary"]
    arrow().parquet.write_table(
        table, buffer, compression="zstd", use_dictionary=[n for n in table.column_names if n not in plain]
    )
    return buffer.getvalue()


def write_shard(folder: Path, name: str, table: Any) -> dict[str, Any]:
    """Write a shard that is never changed again; the line of it for the journal.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    data = encoded(table)
    write_durably(folder / name, lambda temporary: temporary.write_bytes(data))
    return {"shard": name, "rows": table.num_rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_lazily(paths: Sequence[Path], columns: Mapping[str, str]) -> Any:
    """Shards as one lazy table: a column that an earlier version did not write is null, one of a later is left out."""
    return arrow().dataset.dataset([str(path) for path in paths], format="parquet", schema=schema(columns))


def read_columns(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[Any]:
    """Some columns of each shard, one table after the other.

    Raises:
        StorageError: a shard is damaged.
    """
    pa = arrow()
    for path in paths:
        try:
            yield pa.parquet.read_table(path, columns=list(columns))
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{path} cannot be read ({error}): it was changed after it was written.") from error
