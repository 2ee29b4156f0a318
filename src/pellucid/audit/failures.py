"""Which answers look wrong: a score of each picture, learned from the table, that no picture has a part in for itself.

Failure prediction (Corbiere et al. 2019) by a logistic regression on a few facts of each answer, cross-fitted: the
answers are dealt into folds, and each is scored by a fit to the other folds, whose pictures alone are its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pellucid.audit.columns import EVIDENCE, evidence_figures
from pellucid.audit.samples import SampleTable
from pellucid.numerics.directions import directions

FACTS = (
    "log-odds of the confidence", "margin", "entropy", "margin of the scores", "log-sum-exp of the scores", *EVIDENCE,
    "neighbours of the class that was answered", "neighbours answered wrongly", "nearness of neighbours",
)  # fmt: skip
LEAST = 20  # wrong answers, and right ones, from which on a score is learned
_FOLDS, _BLOCK = 5, 1024
_DRAWS, _TOGETHER = 1000, 50  # of the bootstrap, and how many at once
_WIDTH = 0.1  # in cosine, over which a neighbour's weight falls to 1/e
_C = 0.003  # inverse strength of the ridge
_TRUST = 10  # by which the confidence is scaled: the ridge hardly holds it, so facts that say nothing leave it alone
_VALUES, _FIGURES = "failure.values", "failure.figures"  # names in the file

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FailureScore:
    """How likely each answer is wrong, and how well that ranks them beside the confidence alone.

    Attributes:
        values: `(N,)`, chance that the answer is wrong, as the fit to other pictures gives it.
        facts: names of what it is learned from.
        area: AUROC, the chance that of a wrong and a right answer the wrong one has the higher score.
        alone: that of the confidence alone.
        gap, low, high: `area` less `alone`, with its 95 % interval (paired bootstrap over the pictures; the fits are
            not drawn again).
    """

    values: Floats = field(repr=False)
    facts: tuple[str, ...]
    area: float
    alone: float
    gap: float
    low: float
    high: float

    @property
    def line(self) -> str:
        """It in words."""
        return (
            f"A score of {len(self.facts)} facts ranks wrong answers at AUROC {self.area:.3f} beside {self.alone:.3f} "
            f"of the confidence alone (difference {self.gap:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f})"
        )

    def arrays(self) -> dict[str, Floats]:
        """All numbers by name, to be stored."""
        figures = np.array([self.area, self.alone, self.gap, self.low, self.high])
        return {_VALUES: self.values, _FIGURES: figures}

    @classmethod
    def read(cls, found: Mapping[str, NDArray[Any]], facts: Sequence[str]) -> FailureScore | None:
        """As it was written down; None where there was none."""
        if _VALUES not in found:
            return None
        return cls(found[_VALUES], tuple(facts), *(float(v) for v in found[_FIGURES]))


def enough(samples: SampleTable) -> bool:
    """Whether there are `LEAST` answers of either kind."""
    wrong = int(samples.wrong.sum())
    return min(wrong, int(samples.known.sum()) - wrong) >= LEAST


def failure_score(samples: SampleTable, same: Sequence[tuple[int, int]] = (), seed: int = 0) -> FailureScore | None:
    """The score of a table of probabilities; None where too few answers are wrong, or right.

    Args:
        samples: the table. A picture whose class is unknown has the mean of all fits.
        same: pairs of samples that show one picture: both come into one fold.
        seed: of the folds and the bootstrap.
    """
    if not enough(samples):
        return None
    rng = np.random.default_rng(seed)
    folds, wrong = _dealt(samples, same, rng), samples.wrong
    if any(len(np.unique(wrong[samples.known & (folds != fold)])) < 2 for fold in range(_FOLDS)):
        return None  # all the wrong answers, or the right ones, are of one picture
    own, around = _own_facts(samples), _neighbours(samples, folds)
    chances = np.zeros((_FOLDS, len(samples)))
    for fold in range(_FOLDS):
        learned = samples.known & (folds != fold)
        facts = np.nan_to_num(
            np.concatenate([own, around[fold]], 1), posinf=0, neginf=0
        )  # a broken output tells nothing
        spread = facts[learned].std(0)
        facts = (facts - facts[learned].mean(0)) / np.where(spread > 0, spread, 1)
        facts[:, 0] *= _TRUST
        fit = LogisticRegression(C=_C, max_iter=1000).fit(facts[learned], wrong[learned])
        chances[fold] = fit.predict_proba(facts)[:, 1]
    values = np.where(folds >= 0, chances[folds, np.arange(len(samples))], chances.mean(0))
    known, sure = samples.known, samples.confidence.astype(np.float64)
    return FailureScore(values, FACTS, *paired_areas(values[known], -sure[known], wrong[known], rng))


def _dealt(samples: SampleTable, same: Sequence[tuple[int, int]], rng: np.random.Generator) -> Rows:
    """A fold for each sample, with as many wrong answers in each; -1 where the class is unknown."""
    first = np.arange(len(samples))  # of those that show one picture
    for a, b in sorted(same):
        if samples.known[a] and samples.known[b]:
            first[b] = first[a]
    firsts = np.flatnonzero(samples.known & (first == np.arange(len(samples))))
    order = rng.permutation(firsts)
    order = order[np.argsort(samples.wrong[order], kind="stable")]
    folds = np.full(len(samples), -1)
    folds[order] = np.arange(len(order)) % _FOLDS
    return folds[first]


def _own_facts(samples: SampleTable) -> Floats:
    """What an answer says of itself, `(N, 9)`."""
    p, scores = (np.sort(v.astype(np.float64), 1)[:, ::-1] for v in (samples.probabilities, samples.scores))
    second = min(1, p.shape[1] - 1)
    top = np.clip(p[:, 0], 1e-7, 1 - 1e-7)
    entropy = -(p * np.log(np.clip(p, 1e-12, None))).sum(1)
    energy = scores[:, 0] + np.log(np.exp(scores - scores[:, :1]).sum(1))
    said = (
        np.log(top / (1 - top)), p[:, 0] - p[:, second], entropy, scores[:, 0] - scores[:, second], energy,
    )  # fmt: skip
    return np.concatenate([np.stack(said, 1), evidence_figures(samples)], 1)


def _neighbours(samples: SampleTable, folds: Rows) -> Floats:
    """What the pictures around say of each, `(folds, N, 3)`: those of neither the fold that is scored nor its own.

    Were its own fold asked and only itself left out, a wrong answer would leave fewer wrong ones behind than a right
    one does, which tells. Every picture weighs by its cosine, without a bound at which it would begin to count.
    """
    rows = np.nan_to_num(samples.embedding.astype(np.float64), posinf=0, neginf=0)
    rows = directions(rows - rows.mean(0))
    sums = np.zeros((_FOLDS, len(rows), 4))  # over each fold: of the answered class, wrong, all; how many
    for fold in range(_FOLDS):
        others = np.flatnonzero(folds == fold)
        for start in range(0, len(rows), _BLOCK):
            here = slice(start, start + _BLOCK)
            w = np.exp((rows[here] @ rows[others].T - 1) / _WIDTH)
            agree = samples.answers[here, None] == samples.truth[others]
            sums[fold, here, :3] = np.stack([(w * agree).sum(1), w @ samples.wrong[others], w.sum(1)], 1)
        sums[fold, :, 3] = len(others)
    scored, own = np.arange(_FOLDS)[:, None, None], folds[:, None]
    inside = np.where(own >= 0, sums[folds, np.arange(len(rows))], 0)
    agree, wrong, weight, count = np.moveaxis(sums.sum(0) - sums - np.where(scored == own, 0, inside), 2, 0)
    weight = np.maximum(weight, 1e-12)
    return np.stack([agree / weight, wrong / weight, np.log(weight / np.maximum(count, 1))], 2)


def area_under(score: Floats, wrong: Bools, weights: Floats | None = None) -> Floats:
    """AUROC of a score `(N,)` for the wrong answers; ties count half.

    Args:
        score: large where the answer looks wrong.
        wrong: `(N,)`, with both kinds.
        weights: `(..., N)`, how often each picture counts; None counts each once.

    Returns:
        `(...)`.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(score[order]) > 0))
    counted = np.ones(len(score)) if weights is None else weights[..., order]
    hits = np.add.reduceat(counted * wrong[order], starts, axis=-1)
    rest = np.add.reduceat(counted * ~wrong[order], starts, axis=-1)
    below = np.cumsum(rest, -1) - rest / 2
    found: Floats = (hits * below).sum(-1) / (hits.sum(-1) * rest.sum(-1))
    return found


def paired_areas(
    score: Floats, other: Floats, wrong: Bools, rng: np.random.Generator
) -> tuple[float, float, float, float, float]:
    """AUROC of both scores, the first less the second, and the 95 % interval of that (bootstrap over the pictures)."""
    area, alone = float(area_under(score, wrong)), float(area_under(other, wrong))
    count, gaps = len(wrong), list[Floats]()
    for _ in range(_DRAWS // _TOGETHER):
        drawn = rng.multinomial(count, np.full(count, 1 / count), _TOGETHER).astype(np.float64)
        gaps.append(area_under(score, wrong, drawn) - area_under(other, wrong, drawn))
    low, high = (float(q) for q in np.quantile(np.concatenate(gaps), [0.025, 0.975]))
    return area, alone, area - alone, low, high
