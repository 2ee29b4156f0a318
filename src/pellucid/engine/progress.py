"""Progress without a dependency: long work reports to whoever listens, and to nobody by default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


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


def track(steps: Iterable[T], label: str, total: int | None = None, size: int = 1) -> Iterator[T]:
    """Yield from `steps`, reporting `size` units of progress after each."""
    reporter = _reporter.get()
    if reporter is None:
        yield from steps
        return
    task = reporter.start(label, total)
    try:
        for step in steps:
            yield step
            reporter.advance(task, size)
    finally:
        reporter.stop(task)
