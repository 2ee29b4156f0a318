"""Files written whole or not at all, some so that they survive a power cut; and tables as the text of one."""

from __future__ import annotations

import csv
import io
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pellucid.errors import StorageError

Files = Mapping[Path, bytes]


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file in one step: to a temporary name in the same folder, then renamed.

    Raises:
        StorageError: the folder can't be written to.
    """
    return write_together({path: data})[0]


def write_together(files: Files) -> list[Path]:
    """`write_bytes` for files that belong together: none is renamed before all are written."""
    path = Path()
    try:
        with ExitStack() as stack:
            temporaries = {}
            for path, data in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                temporaries[path] = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
                stack.callback(temporaries[path].unlink, missing_ok=True)
                temporaries[path].write_bytes(data)
            for path, temporary in temporaries.items():
                os.replace(temporary, path)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}; choose a folder you may write to with --out."
        ) from error
    return list(files)


def check_writable(folder: Path) -> None:
    """Fail before the work rather than after it, if `folder` cannot be written to."""
    probe = folder / f".pellucid-{secrets.token_hex(4)}"
    write_bytes(probe, b"")
    probe.unlink(missing_ok=True)


def comma_separated(rows: Sequence[Mapping[str, Any]], *, nan: str = "nan") -> str:
    """A table as comma-separated values under the names of its first row; `nan` is what stands for NaN."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: nan if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
    return text.getvalue()


def write_durably(path: Path, write: Callable[[Path], object]) -> Path:
    """`write` fills a temporary file beside `path`; that then takes its place and survives a power cut.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text_durably(path: Path, text: str) -> Path:
    """`write_durably` for a text."""
    return write_durably(path, lambda temporary: temporary.write_bytes(text.encode()))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> StorageError:
    """What is said where a file cannot be written."""
    return StorageError(
        f"Cannot write {path}: {error.strerror or error}; what is finished is kept. Free some space or choose a folder "
        "you may write to, then `pellucid batch resume`."
    )
