"""Two models on the same pictures: which answers flipped, where it got worse, whose evidence moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from pellucid.audit.columns import Columns, evidence_figures
from pellucid.audit.review import Calibration
from pellucid.audit.samples import SampleTable
from pellucid.audit.slices import best_slices, distinct
from pellucid.errors import DataError
from pellucid.language import chance
from pellucid.numerics.proportions import mcnemar
from pellucid.numerics.statistics import adjusted, row_mean

_LEVEL = 0.05


@dataclass(frozen=True)
class WorseSlice:
    """Pictures on which the second model errs where the first does not.

    Attributes:
        name: what they share.
        members: numbers of the samples, of both halves.
        count: those of the half on which it was tested.
        lost, won: answers that are right with the first model alone, and with the second alone.
        p: of no more lost than won (exact, one-sided), adjusted for all slices tested (Benjamini & Hochberg).
    """

    name: str
    members: tuple[int, ...]
    count: int
    lost: int
    won: int
    p: float

    @property
    def line(self) -> str:
        """It in words."""
        return f"{self.name}: of {self.count} pictures {self.lost} got lost and {self.won} were won ({chance(self.p)})"


@dataclass(frozen=True)
class Paired:
    """What changed from the first model to the second.

    Attributes:
        accuracies: share of right answers of each; NaN where nothing is known of the truth.
        changed: samples whose answer is another.
        lost, won: samples that are right with the first model alone, and with the second alone.
        p: of as many lost as won (McNemar, exact, two-sided).
        calibrations: of each; None where too little is known.
        slices: that got worse, the surest first.
        agreement: correlation of each sample's two heat maps, `(N,)`.
        border: mean change of the share of the evidence at the border, with its 95 % interval.
    """

    accuracies: tuple[float, float]
    changed: tuple[int, ...]
    lost: tuple[int, ...]
    won: tuple[int, ...]
    p: float
    calibrations: tuple[Calibration | None, Calibration | None]
    slices: tuple[WorseSlice, ...]
    agreement: NDArray[np.float64]
    border: tuple[float, float, float]

    @property
    def verdict(self) -> str:
        """`worse`: it has lost more than it has won, or a slice has; `better`, or `no difference`, beyond chance."""
        if (self.p < _LEVEL and len(self.lost) > len(self.won)) or self.worse_slices:
            return "worse"
        return "better" if self.p < _LEVEL and len(self.won) > len(self.lost) else "no difference"

    @property
    def worse_slices(self) -> tuple[WorseSlice, ...]:
        """Slices that got worse beyond chance; of those that are nearly the same the surest."""
        return tuple(distinct([s for s in self.slices if s.p <= _LEVEL]))

    def lines(self) -> Iterator[str]:
        """The summary, a sentence each; the verdict first."""
        known = not np.isnan(self.accuracies[0])
        yield f"Verdict: {self.verdict}." if known else "Without the true classes only changes can be told."
        if known:
            a, b = self.accuracies
            yield (
                f"{a:.1%} right before, {b:.1%} now: {len(self.lost)} got lost and {len(self.won)} were won "
                f"({chance(self.p)})."
            )
        yield f"{len(self.changed)} of {len(self.agreement)} answers changed."
        yield from (f"{s.line}." for s in self.worse_slices)
        for when, c in zip(("before", "now"), self.calibrations, strict=True):
            if c is not None:
                yield f"Calibration error {when} {c.error:.1%} [{c.low:.1%}, {c.high:.1%}]."
        alike = float(np.nanmean(self.agreement))
        yield (
            f"Both models' maps of one picture correlate with {alike:.2f} on average (1: the evidence lies at the same "
            "places, 0: it has nothing to do with where it lay)."
        )
        mean, low, high = self.border
        if low > 0 or high < 0:
            yield (
                f"The share of the evidence at the border of the picture has changed by {100 * mean:+.1f} percentage "
                f"points [{100 * low:+.1f}, {100 * high:+.1f}]."
            )


def aligned(second: SampleTable, first_labels: Sequence[str], second_labels: Sequence[str]) -> SampleTable:
    """The second model's table with its classes numbered as the first model's.

    Raises:
        DataError: the two models have other classes.
    """
    if list(first_labels) == list(second_labels):
        return second
    names = {name.casefold(): k for k, name in enumerate(second_labels)}
    order = [names.get(name.casefold(), -1) for name in first_labels]
    if min(order) < 0 or len(first_labels) != len(second_labels):
        missing = [name for name, k in zip(first_labels, order, strict=True) if k < 0]
        which = f"the second has no {', '.join(missing[:3])}" if missing else "the second has more"
        raise DataError(
            f"The two models have other classes ({which}): compare models "
            "of the same labels, or name them alike with labels=."
        )
    back = np.argsort(order)
    truth = np.where(second.truth >= 0, back[second.truth], -1)
    return replace(second, scores=second.scores[:, order], probabilities=second.probabilities[:, order], truth=truth)


def compare(
    first: SampleTable,
    second: SampleTable,
    columns: Columns,
    calibrations: tuple[Calibration | None, Calibration | None],
    seed: int = 0,
) -> Paired:
    """What changed between two tables of the same pictures, row by row."""
    known = first.known
    lost, won = known & ~first.wrong & second.wrong, known & first.wrong & ~second.wrong
    ring = evidence_figures(second)[:, 0] - evidence_figures(first)[:, 0]
    mean, low, high = (float(v[0]) for v in row_mean(ring[:, None]))
    share = (float(1 - first.wrong[known].mean()), float(1 - second.wrong[known].mean())) if known.any() else None
    return Paired(
        accuracies=share or (float("nan"), float("nan")),
        changed=_where(first.answers != second.answers),
        lost=_where(lost),
        won=_where(won),
        p=mcnemar(int(lost.sum()), int(won.sum())),
        calibrations=calibrations,
        slices=_worse(columns, lost, won, known, seed),
        agreement=_agreement(first, second),
        border=(mean, low, high),
    )


def _where(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask))


def _agreement(first: SampleTable, second: SampleTable) -> NDArray[np.float64]:
    """The correlation of two maps of each sample; NaN where one of them is flat."""
    a, b = (t.maps.reshape(len(t), -1).astype(np.float64) for t in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: NDArray[np.float64] = np.where(size > 0, (a * b).sum(1) / np.where(size > 0, size, 1), np.nan)
    return found


def _worse(
    columns: Columns, lost: NDArray[np.bool_], won: NDArray[np.bool_], known: NDArray[np.bool_], seed: int
) -> tuple[WorseSlice, ...]:
    """Slices searched on one half of the known samples for answers that got lost, tested on the other half."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(known))
    search, test = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    if not len(search):
        return ()
    rows = []
    for literals, _ in best_slices(columns.values[search], lost[search], columns.sources):
        inside = np.logical_and.reduce(columns.values[:, list(literals)], axis=1)
        here = inside[test]
        away, back = int((lost[test] & here).sum()), int((won[test] & here).sum())
        p = float(binom.sf(away - 1, away + back, 0.5)) if away + back else 1.0
        name = " and ".join(columns.names[j] for j in literals)
        rows.append(WorseSlice(name, _where(inside), int(here.sum()), away, back, p))
    if not rows:
        return ()
    p_values = adjusted([r.p for r in rows], "bh")
    again = [replace(r, p=float(q)) for r, q in zip(rows, p_values, strict=True)]
    return tuple(sorted(again, key=lambda r: (r.p, -r.lost)))
