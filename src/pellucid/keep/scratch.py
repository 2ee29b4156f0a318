"""Folders for the time being. One whose process was killed is swept away by the next process that needs one.

pellucid-scratch-.../.alive   locked as long as the process lives that made the folder
pellucid-scratch-.../files    what it is for
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from pellucid.keep.lock import taken

_PREFIX, _ALIVE = "pellucid-scratch-", ".alive"
_NEW = 60  # seconds in which a folder may not be locked yet; Windows renames no open file, which would need none


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    above = tempfile.gettempdir()
    _sweep(above)
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
    try:
        with open(home / _ALIVE, "w") as lock:
            taken(lock.fileno())
            (home / "files").mkdir()
            yield home / "files"
    finally:
        shutil.rmtree(home, ignore_errors=True)


@cache
def _sweep(above: str) -> None:
    """Remove what killed processes of this user have left, once a process."""
    for home in Path(above).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another one was quicker, or it is somebody else's
            if (hasattr(os, "getuid") and home.lstat().st_uid != os.getuid()) or home.is_symlink():
                continue
            with open(home / _ALIVE, "r+") as lock:
                if time.time() - os.fstat(lock.fileno()).st_mtime > _NEW and taken(lock.fileno()):
                    shutil.rmtree(home, ignore_errors=True)
