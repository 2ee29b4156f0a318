"""One network after the other, each in a process of its own, within a time limit; rows are kept as they come."""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.rows import kept

Work = Callable[[str], dict[str, Any]]
"""What is found out about the network of a name."""

_FREED_AT = 64 * 1024  # bytes from which freed memory goes back to the system at once, so that each peak is its own


@dataclass(frozen=True)
class Size:
    """How many models of each library (None: all), how many seconds each may take, and a file of lines of JSON.

    To that file goes each model's row as it comes; what it holds is not measured again.
    """

    models: int | None
    seconds: int
    rows: str = ""


def _child(work: Work, name: str, answer: Connection) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, _FREED_AT)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, _FREED_AT)  # M_TRIM_THRESHOLD
    try:
        answer.send(work(name))
    except Exception as error:  # a row of the table says what went wrong
        answer.send({"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"})


def alone(work: Work, name: str, seconds: int) -> dict[str, Any]:
    """`work` in a process of its own, a fork of this one."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, name, there))
    process.start()
    there.close()
    try:
        found: dict[str, Any] = here.recv() if here.poll(seconds) else {"failed": f"no answer within {seconds} s"}
    except EOFError:
        found = {"failed": "the process ended without an answer"}
    process.kill()
    process.join()
    return found


def each(library: str, work: Work, names: Sequence[str], size: Size) -> Iterator[dict[str, Any]]:
    """What `work` finds out about each model, with its name under `model`; `failed` says why there is nothing else.

    Args:
        library: what the rows of the file are of.
        work: see above.
        names: of models.
        size: how many of them, for how long, and the file.
    """
    for name in names if size.models is None else names[: size.models]:
        yield kept(size.rows, {"library": library, "model": name}, partial(alone, work, name, size.seconds))
