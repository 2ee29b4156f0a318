"""Files that are whole or not there: written under a temporary name, synced, renamed, the folder synced."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from pellucid.errors import StorageError


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
