"""What an evaluation will cost: passes and maps before it begins, time as soon as the first input has taken some."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pellucid.evaluation.competitors import Drawer
from pellucid.evaluation.schedule import Schedule
from pellucid.progress import duration

_WORTH = 60.0  # seconds that are left, from which on they are said
_SHORT = 1.0  # seconds of an input that was found finished: nothing follows from it


class Forecast:
    """Says what is to come.

    Args:
        say: is told a line.
        schedule: of the work.
        count: of the inputs; None where they cannot be counted beforehand.
        kept: whether finished inputs are, so that a run goes on where it stopped.
        clock: in seconds.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        schedule: Schedule,
        count: int | None,
        *,
        kept: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._say, self._schedule, self._count, self._clock = say, schedule, count, clock
        self._done, self._told, self._since = 0, False, clock()

    def begin(self, space: Sequence[int]) -> None:
        """Before the first input, of this size."""
        self._say(self._schedule.line(space, self._count))
        costs: dict[str, list[str]] = {}
        for c in self._schedule.competitors:
            if isinstance(c, Drawer):
                costs.setdefault(c.method.cost, []).append(c.name)
        for cost, names in costs.items():
            self._say(f"  A map of {', '.join(names)} takes {cost}.")

    def advance(self) -> None:
        """One input more is measured."""
        now, self._done = self._clock(), self._done + 1
        took, self._since = now - self._since, now
        if self._told or self._count is None or took < _SHORT:
            return
        self._told = True
        left = self._count - self._done
        if left * took >= _WORTH:
            more = " If it is stopped, the same command goes on from there." if self._kept else ""
            self._say(f"An input takes about {duration(took)}: some {duration(left * took)} are left.{more}")
