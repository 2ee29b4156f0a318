"""Converted networks on disk: one file each, whole or not there, believed only where its head is the one asked for.

A head of JSON names what the program was made of (weights, code, shape, versions, processor), its length and its hash;
the program follows, and is mapped into memory, not read: what a runtime has packed its own way need not stay there a
second time, and the system takes those pages back. What was cut, changed or made by another version does not fit its
head and is made anew. Files are written under another name and renamed, so two processes may convert at once: the
later one replaces the same.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pellucid.keep.home import cache_folder

KIND = "runtimes"
LIMIT = 2 * 2**30  # bytes; what was used longest ago goes first
_FORMAT = "pellucid-program/2"
_HEAD = 2**16  # bytes: a mapping begins at a multiple of this on every system
_PART = 2**20  # bytes hashed at a time

Blob = bytes | bytearray | memoryview | mmap.mmap
"""A program, wherever it lies."""

Key = dict[str, Any]
"""All that a program depends on, as JSON."""


def taken(key: Key) -> mmap.mmap | None:
    """The program that was kept under a key; None where there is none that is sound."""
    file = _file(key)
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            head, digest, size = json.loads(opened.read(_HEAD)), hashlib.sha256(), 0
            while part := opened.read(_PART):  # read, not mapped: what is only hashed need not stay
                digest.update(part)
                size += len(part)
        if head != _head(key, size, digest.hexdigest()):
            return None
        os.utime(file)  # used just now
        return _mapped(file)
    except (OSError, ValueError):
        return None


def unread(program: Blob) -> None:
    """Gives the pages of a mapped program back; they are read again where they are needed again."""
    if sys.platform != "win32" and isinstance(program, mmap.mmap):
        program.madvise(mmap.MADV_DONTNEED)


def there(key: Key) -> int:
    """Bytes of the file under a key; 0 where there is none."""
    file = _file(key)
    try:
        return file.stat().st_size if file is not None else 0
    except OSError:
        return 0


def keep(key: Key, program: Blob) -> mmap.mmap | None:
    """Keep a program, as far as there is a place for it; the program as it lies there, None where it does not."""
    file = _file(key)
    if file is None:
        return None
    head = json.dumps(_head(key, len(program), hashlib.sha256(program).hexdigest())).encode().ljust(_HEAD)
    work = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with work.open("wb") as opened:
            opened.write(head)
            opened.write(program)
        work.replace(file)
        _prune(file)
        return _mapped(file)
    except (OSError, ValueError):  # a full or locked disk: it is made anew next time
        return None
    finally:
        with suppress(OSError):
            work.unlink(missing_ok=True)


def forget(key: Key) -> None:
    """Drop what is kept under a key: it did not answer as the model does."""
    file = _file(key)
    if file is not None:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _head(key: Key, size: int, digest: str) -> dict[str, Any]:
    return {"format": _FORMAT, "key": key, "bytes": size, "sha256": digest}


def _mapped(file: Path) -> mmap.mmap:
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY, offset=_HEAD)


def _file(key: Key) -> Path | None:
    folder = cache_folder(KIND)
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]
    return None if folder is None else folder / f"{name}.program"


def _prune(kept: Path) -> None:
    with suppress(OSError):
        files = sorted((p for p in kept.parent.glob("*.program") if p != kept), key=lambda p: -p.stat().st_mtime)
        total = kept.stat().st_size
        for file in files:
            total += file.stat().st_size
            if total > LIMIT:
                file.unlink(missing_ok=True)
