"""A lock that the system gives back when its process ends, however that ends."""

from __future__ import annotations

import os


def taken(descriptor: int) -> bool:
    """Take the lock of an open file; False: someone else has it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
