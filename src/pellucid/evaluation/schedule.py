"""What an evaluation will ask of the model, merged over its metrics and said beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pellucid.engine.baselines import is_baseline
from pellucid.evaluation.banks.base import AnswerBank
from pellucid.evaluation.banks.maps import BothEnds
from pellucid.evaluation.competitors import Competitor
from pellucid.evaluation.metrics.registry import Metric
from pellucid.language import counted

DEFAULT_BASELINE = "blur"


@dataclass(frozen=True)
class Schedule:
    """Which bank serves which metrics, for which competitors.

    Attributes:
        metrics: in the order asked, each on its baseline.
        competitors: in the order of the table.
    """

    metrics: tuple[Metric, ...]
    competitors: tuple[Competitor, ...]

    @classmethod
    def of(
        cls, metrics: Sequence[Metric], competitors: Sequence[Competitor], baseline: str = DEFAULT_BASELINE
    ) -> Schedule:
        """Of metrics, those that leave their baseline open on this one."""
        return cls(tuple(m.on(baseline) for m in metrics), tuple(competitors))

    @cached_property
    def banks(self) -> dict[AnswerBank, tuple[Metric, ...]]:
        """Each bank once, with the metrics that read it; those that draw maps anew first, so that no masks are under
        way while they borrow the model, and those that put others together last.
        """
        found: dict[AnswerBank, list[Metric]] = {}
        for m in self.metrics:
            for read in m.bank.reads:
                found.setdefault(read, [])
            found.setdefault(m.bank, []).append(m)
        first = sorted(found, key=lambda bank: (bool(bank.reads), not bank.redrawn()))
        return {bank: tuple(found[bank]) for bank in first}

    def shared(self, space: Sequence[int]) -> int:
        """Passes a sample, whatever the number of competitors: subsets, both ends, and what fixes the target."""
        banks = self.banks
        whole = {b.baseline for b in banks if b.ends == 2}
        if any(isinstance(b, BothEnds) for b in banks):
            whole |= {c.baseline for c in self.competitors if is_baseline(c.baseline)}
        opened = {b.baseline for b in banks if b.ends} | whole
        return sum(b.shared(space) for b in banks) + len(whole) + len(opened) + bool(opened)

    def own(self, space: Sequence[int]) -> int:
        """Passes a sample and competitor, besides those that draw maps."""
        return sum(b.own(space) for b in self.banks)

    def forwards(self, space: Sequence[int], competitors: int | None = None) -> int:
        """Passes a sample, besides those that draw maps."""
        count = len(self.competitors) if competitors is None else competitors
        return self.shared(space) + count * self.own(space)

    @property
    def redrawn(self) -> int:
        """How often each competitor draws a map anew for a sample."""
        return sum(b.redrawn() for b in self.banks)

    def line(self, space: Sequence[int], samples: int | None = None) -> str:
        """The cost in a line."""
        each = self.forwards(space)
        text = (
            f"{counted(len(self.competitors), 'method')}, {counted(len(self.metrics), 'metric')}: "
            f"{counted(self.shared(space), 'pass')} an input for all methods together and "
            f"{self.own(space)} for each, {each} in all"
        )
        text += f"; {each * samples} for {samples} inputs" if samples and samples > 1 else ""
        many = 1 + self.redrawn
        return f"{text}; besides, each method draws {counted(many, 'map')} an input."

    def same_ground(self) -> list[str]:
        """A warning for each method that hides things behind the baseline that metrics use too."""
        said = []
        for c in self.competitors:
            names = [m.name for m in self.metrics if c.baseline and m.bank.ends and m.bank.baseline == c.baseline]
            if names and not c.blind:
                said.append(
                    f"{c.name} and {', '.join(names)} hide things behind the same baseline, {c.baseline}, which "
                    "favours it: measure on another one too."
                )
        return said
