"""Progress without a dependency: long work reports to whoever listens, and to nobody by default."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

_TAKEN, _FIRST = 5.0, 20.0  # seconds after which what is left is told; after the first step alone, which loads things
_LEFT = 60.0  # if it is at least so many


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


@dataclass
class _Running:
    """A piece of work whose steps are counted: how far it is, and when it began and when its last step was over."""

    label: str
    total: int
    begun: float
    last: float
    done: int = 0

    def left(self, now: float, steps: int) -> float:
        """Seconds, after so many steps more, if all go on as these or as all did: what was kept from a run before is
        done in no time.
        """
        self.done += steps
        pace = max((now - self.begun) / self.done, (now - self.last) / steps)
        self.last = now
        return pace * (self.total - self.done)


class Log:
    """A reporter for where no bars are drawn: of each long piece of work it says once how much of it is left.

    Args:
        say: is told a line.
        clock: in seconds.
    """

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock, self._count = say, clock, 0
        self._running: dict[int, _Running] = {}

    def start(self, label: str, total: int | None) -> int:
        """See `Reporter`; of work whose steps are not counted nothing is told."""
        self._count += 1
        if total:
            now = self._clock()
            self._running[self._count] = _Running(label, total, now, now)
        return self._count

    def advance(self, task: int, steps: int) -> None:
        """See `Reporter`."""
        if task not in self._running or steps < 1:
            return
        one, now, first = self._running[task], self._clock(), not self._running[task].done
        left, taken = one.left(now, steps), now - one.begun
        if taken >= (_FIRST if first else _TAKEN):
            del self._running[task]
            if left >= _LEFT:
                self._say(
                    f"{one.label}: {one.done} of {one.total} in {duration(taken)}, some {duration(left)} are left."
                )

    def stop(self, task: int) -> None:
        """See `Reporter`."""
        self._running.pop(task, None)


def duration(seconds: float) -> str:
    """A span of time in words: `40 s`, `2 min 5 s`, `1 h 3 min`."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m} min" if hours else f"{m} min {s} s" if m else f"{s} s"
