"""What `repair` did to a model, in words and as a table; what is saved is its comparison, beside the new weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.explanation import Brief
from pellucid.models.model import VisionModel
from pellucid.numerics.proportions import interval, mcnemar
from pellucid.numerics.statistics import adjusted
from pellucid.results.base import Result
from pellucid.results.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

_LEVEL = 0.05


@dataclass(frozen=True)
class ProvenGroup:
    """Pictures of one class in one form, which had no part in the repair.

    Attributes:
        label: of the class.
        form: how they were shown: as they are, or with a part exchanged.
        before, now: whether each answer is right, of the model as it was and as it is.
    """

    label: str
    form: str
    before: tuple[bool, ...]
    now: tuple[bool, ...]

    @property
    def accuracies(self) -> tuple[float, float]:
        """Before and now."""
        count = max(1, len(self.now))
        return sum(self.before) / count, sum(self.now) / count

    @property
    def p(self) -> float:
        """Of as many answers lost as won (McNemar, exact, two-sided)."""
        pairs = list(zip(self.before, self.now, strict=True))
        return mcnemar(sum(b and not n for b, n in pairs), sum(n and not b for b, n in pairs))


@dataclass(repr=False)
class Repair(Brief, Result):
    """A model whose last layer was learned anew.

    Attributes:
        model: the repaired one.
        layer: that was learned anew.
        strength: inverse of the penalty, chosen for the worst group.
        reasons, slices: what was found, in words.
        groups: each class in each form, on the half that proves.
        comparison: both models on that half.
        files: the weights, and the tables of both halves.
        notes: what a reader must know.
    """

    model: VisionModel
    layer: str
    strength: float
    reasons: list[str]
    slices: list[str]
    groups: list[ProvenGroup]
    comparison: Comparison
    files: list[Path]
    notes: list[str]

    @property
    def caption(self) -> str:
        """What was repaired."""
        return f"Repair of {self.comparison.names[0]} on {self.comparison.name}"

    @property
    def worst(self) -> tuple[ProvenGroup, ProvenGroup]:
        """The group with the lowest accuracy before, and the one with the lowest now."""
        return min(self.groups, key=lambda g: g.accuracies[0]), min(self.groups, key=lambda g: g.accuracies[1])

    @property
    def fallen(self) -> list[ProvenGroup]:
        """Classes that got worse on pictures as they are, beyond chance (Holm)."""
        plain = [g for g in self.groups if g.form == self.groups[0].form]
        p = adjusted([g.p for g in plain], "holm")
        return [g for g, q in zip(plain, p, strict=True) if q < _LEVEL and g.accuracies[1] < g.accuracies[0]]

    @property
    def verdict(self) -> str:
        """`repaired`: the worst group has gained beyond chance, and no class has fallen; `worse`; `no better`."""
        if self.fallen:
            return "worse"
        weakest = self.worst[0]
        gained = weakest.accuracies[1] > weakest.accuracies[0] and weakest.p < _LEVEL
        return "repaired" if gained else "no better"

    def lines(self) -> Iterator[str]:
        """The summary, a sentence each; the verdict first."""
        before, now = self.worst
        yield f"Verdict: {self.verdict}."
        yield from (f"Found: {line}." for line in (*self.reasons, *self.slices))
        yield (
            f"The worst group was `{before.label}`, {before.form}: {_share(before.before)} right; it is now "
            f"{_share(before.now)} (p = {before.p:.2g})."
        )
        yield f"The worst group now is `{now.label}`, {now.form}: {_share(now.now)} right."
        a, b = self.comparison.paired.accuracies
        yield f"Of pictures as they are {a:.1%} were right before and {b:.1%} are now."
        yield from (f"`{g.label}` has fallen from {_share(g.before)} to {_share(g.now)}." for g in self.fallen)

    def table(self) -> list[dict[str, Any]]:
        """One row a group."""
        return [
            {
                "class": g.label,
                "shown": g.form,
                "pictures": len(g.now),
                "right before": g.accuracies[0],
                "right now": g.accuracies[1],
                "p": g.p,
            }
            for g in self.groups
        ]

    def figure(self) -> Figure:
        """The summary as a sheet."""
        from pellucid.render.audit import draw_lines

        found = self.comparison
        return draw_lines(self.caption, list(self.lines()), self.notes, found.paired.calibrations[1])

    def on_page(self, file: str = "") -> Card:
        """The summary, the groups, and the comparison of both models."""
        from pellucid.render.pages.audit import repair_card

        return repair_card(self, self.caption, file=file)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the comparison (see `Comparison.save`), the groups (.csv) and the page of the repair into `folder`."""
        from pellucid.keep.files import comma_separated, write_bytes

        home = Path(folder)
        groups, page = home / "repair.csv", home / "repair.html"
        write_bytes(groups, comma_separated(self.table()).encode())
        write_bytes(page, self.html().encode())
        return [*self.files, *self.comparison.save(home), groups, page]


def _share(marks: tuple[bool, ...]) -> str:
    low, high = interval(sum(marks), len(marks))
    return f"{sum(marks) / max(1, len(marks)):.0%} [{low:.0%}, {high:.0%}]"
