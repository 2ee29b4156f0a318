"""What pictures that had no part in a repair prove of it: each class in each form, before and now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pellucid.language import some
from pellucid.numerics.proportions import interval, mcnemar
from pellucid.numerics.statistics import adjusted

NEUTRAL = "with the parts of any picture"  # a form: what classes rested on tells nothing
_LEVEL = 0.05


@dataclass(frozen=True)
class Try:
    """One way of learning anew.

    Attributes:
        way: in words.
        worst: accuracy of its worst group, on the pictures that choose.
        chosen: whether the repaired model is its.
    """

    way: str
    worst: float
    chosen: bool


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


@dataclass(frozen=True)
class Proof:
    """All groups of a repair.

    Attributes:
        found: the wrong reasons and weak slices that were repaired, in words.
        groups: each class in each form.
        tries: ways of learning anew, of which one was chosen.
    """

    found: tuple[str, ...]
    groups: tuple[ProvenGroup, ...]
    tries: tuple[Try, ...] = ()

    @property
    def worst(self) -> tuple[ProvenGroup, ProvenGroup]:
        """The group with the lowest accuracy before, and the one with the lowest now."""
        return min(self.groups, key=lambda g: g.accuracies[0]), min(self.groups, key=lambda g: g.accuracies[1])

    @property
    def fallen(self) -> list[ProvenGroup]:
        """Classes that got worse beyond chance (Holm): on pictures with the parts of any picture, if classes rested on
        parts, since to give up what these told is the repair itself; else on pictures as they are.
        """
        return self._lost(NEUTRAL if any(g.form == NEUTRAL for g in self.groups) else self.groups[0].form)

    @property
    def given_up(self) -> list[ProvenGroup]:
        """Classes that got worse beyond chance on pictures as they are, where the parts told them."""
        return [] if self.groups[0].form in {g.form for g in self.fallen} else self._lost(self.groups[0].form)

    def _lost(self, form: str) -> list[ProvenGroup]:
        shown = [g for g in self.groups if g.form == form]
        p = adjusted([g.p for g in shown], "holm")
        return [g for g, q in zip(shown, p, strict=True) if q < _LEVEL and g.accuracies[1] < g.accuracies[0]]

    @property
    def verdict(self) -> str:
        """`repaired`: the worst group has gained beyond chance, and no class has fallen; `worse`; `no better`."""
        if self.fallen:
            return "worse"
        weakest = self.worst[0]
        gained = weakest.accuracies[1] > weakest.accuracies[0] and weakest.p < _LEVEL
        return "repaired" if gained else "no better"

    def lines(self) -> Iterator[str]:
        """A sentence each; the verdict first."""
        before, now = self.worst
        yield f"Verdict: {self.verdict}."
        yield from (f"Found: {line}." for line in self.found)
        yield (
            f"The worst group was `{before.label}`, {before.form}: {_share(before.before)} right; it is now "
            f"{_share(before.now)} (p = {before.p:.2g})."
        )
        yield f"The worst group now is `{now.label}`, {now.form}: {_share(now.now)} right."
        for t in self.tries:
            reached = f"{t.way}; its worst group had {t.worst:.0%} right"
            yield f"Chosen: {reached}." if t.chosen else f"Tried: {reached}."
        yield from (
            f"`{g.label}` has fallen from {_share(g.before)} to {_share(g.now)}, {g.form}." for g in self.fallen
        )
        if given := self.given_up:
            yield (
                f"What a part told of {some(f'`{g.label}`' for g in given)} is given up; on pictures as they are "
                f"`{given[0].label}` had {_share(given[0].before)} right before and has {_share(given[0].now)} now."
            )

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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which `read` takes."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> Proof | None:
        """The proof that such values are of; None where there are none."""
        if values is None:
            return None
        groups = (ProvenGroup(g["label"], g["form"], tuple(g["before"]), tuple(g["now"])) for g in values["groups"])
        tries = (Try(t["way"], t["worst"], t["chosen"]) for t in values.get("tries", ()))
        return cls(tuple(values["found"]), tuple(groups), tuple(tries))


def _share(marks: tuple[bool, ...]) -> str:
    low, high = interval(sum(marks), len(marks))
    return f"{sum(marks) / max(1, len(marks)):.0%} [{low:.0%}, {high:.0%}]"
