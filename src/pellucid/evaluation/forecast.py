"""What an evaluation will cost: passes and maps, before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pellucid.evaluation.competitors import Drawer
from pellucid.evaluation.schedule import Schedule


def forecast(
    say: Callable[[str], object], schedule: Schedule, space: Sequence[int], count: int | None, *, kept: bool = False
) -> None:
    """Say what is to come.

    Args:
        say: is told a line.
        schedule: of the work.
        space: size of an input.
        count: of the inputs; None where they cannot be counted beforehand.
        kept: whether finished inputs are, so that a run goes on where it stopped.
    """
    say(schedule.line(space, count))
    costs: dict[str, list[str]] = {}
    for c in schedule.competitors:
        if isinstance(c, Drawer):
            costs.setdefault(c.method.cost, []).append(c.name)
    for cost, names in costs.items():
        say(f"  A map of {', '.join(names)} takes {cost}.")
    if kept:
        say("  If it is stopped, the same command goes on from there.")
