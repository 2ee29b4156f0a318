"""Progress without a dependency: long work reports to whoever listens, and to nobody by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Reporter(Protocol):
    """What listens to long work; the command line draws bars with it."""

    def start(self, label: str, total: int | None) -> int:
        """Begin a task of `total` steps (None: unknown) and return its number."""
        ...

    def advance(self, task: int, steps: int) -> None:
        """Task number `task` is `steps` further."""
        ...

    def stop(self, task: int) -> None:
        """The task is over, finished or not."""
        ...


_reporter: ContextVar[Reporter | None] = ContextVar("pellucid_reporter", default=None)


@contextmanager
def reporting(reporter: Reporter | None) -> Iterator[None]:
    """Send the progress of everything inside to `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def task(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A piece of long work; call what it yields with the number of steps done."""
    reporter = _reporter.get()
    if reporter is None:
        yield lambda _steps: None
        return
    number = reporter.start(label, total)
    try:
        yield lambda steps: reporter.advance(number, steps)
    finally:
        reporter.stop(number)


def duration(seconds: float) -> str:
    """A span of time in words: `40 s`, `2 min 5 s`, `1 h 3 min`."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m} min" if hours else f"{m} min {s} s" if m else f"{s} s"
