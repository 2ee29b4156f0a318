"""Converted networks on disk: one file each, whole or not there, believed only where its head is the one asked for.

A head of JSON names what the program was made of (weights, code, shape, versions, processor), its length and its hash;
the program follows. What was cut, changed or made by another version does not fit its head and is made anew. Files
are written under another name and renamed, so two processes may convert at once: the later one replaces the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from pellucid.keep.home import cache_folder

KIND = "runtimes"
LIMIT = 2 * 2**30  # bytes; what was used longest ago goes first
_FORMAT = "pellucid-program/1"

Key = dict[str, Any]
"""All that a program depends on, as JSON."""


def taken(key: Key) -> bytes | None:
    """The program that was kept under a key; None where there is none that is sound."""
    file = _file(key)
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            head = json.loads(opened.readline(2**20))
            program = opened.read()
        sound = head == _head(key, program)
        if sound:
            os.utime(file)  # used just now
    except (OSError, ValueError):
        return None
    return program if sound else None


def there(key: Key) -> int:
    """Bytes of the file under a key; 0 where there is none."""
    file = _file(key)
    try:
        return file.stat().st_size if file is not None else 0
    except OSError:
        return 0


def keep(key: Key, program: bytes) -> None:
    """Keep a program, as far as there is a place for it."""
    file = _file(key)
    if file is None:
        return
    work = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(json.dumps(_head(key, program)).encode() + b"\n" + program)
        work.replace(file)
    except OSError:  # a full or locked disk: it is made anew next time
        pass
    finally:
        with suppress(OSError):
            work.unlink(missing_ok=True)
    _prune(file)


def forget(key: Key) -> None:
    """Drop what is kept under a key: it did not answer as the model does."""
    file = _file(key)
    if file is not None:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _head(key: Key, program: bytes) -> dict[str, Any]:
    return {"format": _FORMAT, "key": key, "bytes": len(program), "sha256": hashlib.sha256(program).hexdigest()}


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
