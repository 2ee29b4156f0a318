"""Which frames of a clip a model is shown: sampling plans over exact time stamps, at any frame rate."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pellucid.errors import MediaError

Kind = Literal["uniform", "dense", "stride", "rate", "windows"]

_SYNTAX = (
    "uniform[:COUNT], dense[:COUNT], stride[:COUNT]xFRAMES or rate[:COUNT]xPER_SECOND, each with @SECONDS at its end, "
    "or windows[:COUNT][xFRAMES]"
)
_PLAN = re.compile(r"(uniform|dense|stride|rate|windows)(?::(\d+))?(?:x(\d+(?:\.\d+)?))?(?:@(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Plan:
    """A sampling plan.

    Attributes:
        kind: `uniform` (the middles of `count` equal stretches of the whole), `dense` (`count` frames in a row),
            `stride` (every `step`-th frame), `rate` (`step` frames a second), or `windows` (the whole clip, in windows
            of `count` frames, every `step`-th, that overlap by half).
        count: how many frames; None: as many as the model is made for.
        step: frames (`stride`) or frames a second (`rate`).
        start: where the stretch begins, in seconds; None: in the middle of the clip. `uniform` goes from
            there to the end.

    Raises:
        MediaError: a count or a step that is not positive, a start before the clip.
    """

    kind: Kind = "uniform"
    count: int | None = None
    step: float = 1.0
    start: float | None = None

    def __post_init__(self) -> None:
        whole = self.kind not in ("stride", "windows") or float(self.step).is_integer()
        if (self.count is not None and self.count < 1) or not (self.step > 0 and math.isfinite(self.step) and whole):
            raise MediaError(f"The sampling plan {self} takes no frame: counts and steps are positive, strides whole.")
        if self.start is not None and not (self.start >= 0 and math.isfinite(self.start)):
            raise MediaError(f"The sampling plan {self} starts before the clip: give seconds from its first frame.")

    @classmethod
    def parse(cls, plan: Plan | str | int) -> Plan:
        """A plan from its text, from a number (that many frames, uniformly), or as it is."""
        if isinstance(plan, Plan):
            return plan
        if isinstance(plan, int) and not isinstance(plan, bool):
            return cls("uniform", plan)
        found = _PLAN.fullmatch(str(plan).strip())
        if found is None or (found[1] != "windows" and (found[3] is None) != (found[1] in ("uniform", "dense"))):
            raise MediaError(f"{plan!r} is no sampling plan: write {_SYNTAX}; stride:16x4 is 16 frames, every fourth.")
        return cls(
            found[1],  # type: ignore[arg-type]
            None if found[2] is None else int(found[2]),
            1.0 if found[3] is None else float(found[3]),
            None if found[4] is None else float(found[4]),
        )

    def __str__(self) -> str:
        step = f"x{self.step:g}" if self.kind in ("stride", "rate") or self.step != 1 else ""
        count = "" if self.count is None else f":{self.count}"
        return f"{self.kind}{count}{step}" + ("" if self.start is None else f"@{self.start:g}")

    def of(self, count: int) -> Plan:
        """This plan for `count` frames, if it names no number itself."""
        return self if self.count is not None else replace(self, count=count)

    def choose(self, times: Sequence[float], end: float) -> list[int]:
        """The frames taken, by number, in order.

        A frame is on the screen from its own time to the next one's; a moment shows the frame then on the screen, so
        one may be taken twice. A clip of fewer frames than `count` gives all it has; the model's input then repeats the
        last.

        Args:
            times: of every frame, in seconds, ascending.
            end: when the last frame goes.

        Raises:
            MediaError: the start lies behind the clip.
        """
        total, count = len(times), self.count or len(times)
        if self.start is not None and self.start >= max(end, times[-1] + 1e-9):
            raise MediaError(f"The sampling plan {self} starts behind the clip, which ends at {end:.2f} s.")
        first = 0 if self.start is None else max(0, bisect_right(times, self.start + _ROUNDING) - 1)
        if total - first <= count:
            return list(range(first, total)) if self.start is not None else list(range(total))
        if self.kind == "uniform":
            begin = times[0] if self.start is None else self.start
            span = max(end, times[-1]) - begin
            return _shown(times, [begin + (i + 0.5) * span / count for i in range(count)])
        if self.kind == "rate":
            length = count / self.step
            begin = self.start if self.start is not None else max(times[0], times[0] + (end - times[0] - length) / 2)
            chosen = _shown(times, [begin + i / self.step for i in range(count)])
            return chosen if begin + (count - 1) / self.step < end else sorted(set(chosen))
        step = int(self.step) if self.kind == "stride" else 1
        reach = (count - 1) * step + 1
        if self.start is None:
            first = max(0, (total - reach) // 2)
        return list(range(first, min(total, first + reach), step))


_ROUNDING = 1e-6  # seconds: a moment typed in decimals means the frame that starts there


def _shown(times: Sequence[float], moments: Sequence[float]) -> list[int]:
    return [max(0, bisect_right(times, moment + _ROUNDING) - 1) for moment in moments]
