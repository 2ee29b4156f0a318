"""From values to an order: ranks on each metric, put together with how far the metrics disagree; and who to take."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pellucid.evaluation.banks.oracle import ORACLE
from pellucid.evaluation.metrics.registry import MetricFacts
from pellucid.evaluation.verdict import SHOWS_MODEL
from pellucid.numerics.agreement import PairedTest, krippendorff, mean_interval, paired_test, sample_ranks
from pellucid.numerics.statistics import adjusted

Array = NDArray[np.float64]

COUNTED = ("faithfulness", "localisation")
"""Categories that decide: a map may be robust, sparse and complete, and wrong."""

RESOLUTION = 1e-3
"""Share of the range between best and worst on an input up to which neighbours are ties: rounding, and other masks,
differ by as much."""


@dataclass(frozen=True)
class MethodStanding:
    """Where one method stands.

    Attributes:
        name: of the method.
        rank: mean over categories of its mean rank on their metrics, 1 the best; NaN where nothing counts.
        spread: standard deviation of its mean ranks over metrics: how far they disagree about it.
        blind: an anchor, which never looked at the model.
    """

    name: str
    rank: float
    spread: float
    blind: bool


@dataclass(frozen=True)
class OverallRanking:
    """All methods, best first, and how far the metrics agree.

    Attributes:
        standings: best first; those without a rank last.
        alpha: Krippendorff's, over metrics that count, of the ranks on each sample; NaN where there is one metric.
    """

    standings: tuple[MethodStanding, ...]
    alpha: float


def mean_ranks(values: Array, metrics: Sequence[MetricFacts]) -> Array:
    """Mean over samples of the ranks on each sample, `(methods, metrics)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of metrics without any value
        return np.stack([np.nanmean(_ranks(values, k, m), 1) for k, m in enumerate(metrics)], 1)


def _ranks(values: Array, k: int, metric: MetricFacts) -> Array:
    return sample_ranks(values[:, k], higher=metric.better == "higher", resolution=RESOLUTION)


def _counted(metrics: Sequence[MetricFacts]) -> list[int]:
    return [k for k, m in enumerate(metrics) if m.category in COUNTED] or list(range(len(metrics)))


def ranking(
    values: Array, metrics: Sequence[MetricFacts], names: Sequence[str], blind: Sequence[bool]
) -> OverallRanking:
    """Put together over metrics of the categories that count, each category as much as the others.

    Args:
        values: `(methods, metrics, samples)`.
        metrics: their names and directions.
        names: of the methods.
        blind: which of them are anchors.
    """
    counted = _counted(metrics)
    means = mean_ranks(values, metrics)
    standings = []
    for c, name in enumerate(names):
        parts = []
        for category in dict.fromkeys(metrics[k].category for k in counted):
            own = means[c, [k for k in counted if metrics[k].category == category]]
            parts += [float(np.nanmean(own))] if np.isfinite(own).any() else []
        own = means[c, counted]
        spread = float(np.nanstd(own)) if np.isfinite(own).any() else math.nan
        standings.append(MethodStanding(name, sum(parts) / len(parts) if parts else math.nan, spread, blind[c]))
    judged = np.stack([_ranks(values, k, metrics[k]).ravel() for k in counted])
    alpha = krippendorff(judged) if len(counted) > 1 else math.nan
    ordered = sorted(standings, key=lambda s: (math.isnan(s.rank), s.rank))
    return OverallRanking(tuple(ordered), alpha)


def leads(
    values: Array, metrics: Sequence[MetricFacts], names: Sequence[str], blind: Sequence[bool]
) -> dict[str, PairedTest]:
    """By how many ranks each method lies before the anchor that comes nearest to it, over samples; best first.

    A sample's rank is put together as `ranking` does it. The p-value is the largest beside any anchor, adjusted for the
    number of methods (Holm). Without anchors there is nothing to be before.
    """
    counted = _counted(metrics)
    by_category: dict[str, list[Array]] = {}
    for k in counted:
        by_category.setdefault(metrics[k].category, []).append(_ranks(values, k, metrics[k]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of samples without any value
        ranks = np.nanmean([np.nanmean(own, 0) for own in by_category.values()], 0)  # (methods, samples)
    anchors = [c for c in range(len(names)) if blind[c]]
    entrants = [c for c in range(len(names)) if not blind[c] and np.isfinite(ranks[c]).any()]
    if not (anchors and entrants):
        return {}
    tests = [[paired_test(ranks[a], ranks[c]) for a in anchors] for c in entrants]
    nearest = [min(own, key=_ahead) for own in tests]
    # Who must be before all anchors has the largest of the p-values (intersection-union test).
    ps = adjusted([max(1.0 if math.isnan(t.p) else t.p for t in own) for own in tests]).tolist()
    found = [(names[c], replace(t, p=p)) for c, t, p in zip(entrants, nearest, ps, strict=True)]
    return dict(sorted(found, key=lambda pair: -_ahead(pair[1])))


def _ahead(test: PairedTest) -> float:
    return test.difference if math.isfinite(test.difference) else math.inf


@dataclass(frozen=True)
class Recommendation:
    """Which method to take, if any.

    Attributes:
        name: of the winner; empty where none beats the anchors.
        metric: that margins are of.
        margin: over the next best method; None where there is no other.
        runner: that method.
        anchors: the winner against each anchor, p-values adjusted for their number.
        failures: positions of samples where the winner is no better than an anchor.
        passes: forwards and backwards that one of its maps takes, and processor seconds.
        why: what rules the best by rank out, one sentence each.
    """

    name: str
    metric: str
    margin: PairedTest | None
    runner: str
    anchors: dict[str, PairedTest]
    failures: tuple[int, ...]
    passes: tuple[float, float, float]
    why: tuple[str, ...]


def recommend(
    values: Array, metrics: Sequence[MetricFacts], names: Sequence[str], blind: Sequence[bool], price: Array
) -> Recommendation | None:
    """The best by rank that changes with the weights, beside the anchors, by one metric that is fair to all.

    Args:
        values: `(methods, metrics, samples)`.
        metrics: their names and directions.
        names: of the methods.
        blind: which of them are anchors.
        price: `(methods, 3, samples)`: forwards, backwards, seconds.

    Returns:
        None where there is no method, or no metric that counts.
    """
    column = _fair(metrics)
    if column is None:
        return None
    higher = metrics[column].better == "higher"
    gains = values[:, column] if higher else -values[:, column]
    order = [names.index(s.name) for s in ranking(values, metrics, names, blind).standings if not math.isnan(s.rank)]
    able, why = [], []
    for c in order:
        if blind[c] or names[c] == ORACLE:  # the truth itself is no method that anyone could take
            continue
        if (sentence := _ruled_out(values[c], metrics, names[c])) is not None:
            why.append(sentence)
        else:
            able.append(c)
    anchors = [c for c in order if blind[c]]
    if not able:
        return Recommendation("", metrics[column].name, None, "", {}, (), (math.nan, math.nan, math.nan), tuple(why))
    best = able[0]
    tests = [paired_test(gains[best], gains[a]) for a in anchors]
    ps = adjusted([t.p for t in tests]).tolist() if tests else []
    against = {names[a]: replace(t, p=p) for a, t, p in zip(anchors, tests, ps, strict=True)}
    failures = tuple(n for n in range(values.shape[2]) if any(not gains[best, n] > gains[a, n] for a in anchors))
    margin = paired_test(gains[best], gains[able[1]]) if len(able) > 1 else None
    lost = [name for name, t in against.items() if not t.difference > 0]
    if lost:
        why.append(
            f"{names[best]} has the best rank, and does not beat {' and '.join(lost)} by {metrics[column].name}."
        )
    return Recommendation(
        name="" if lost else names[best],
        metric=metrics[column].name,
        margin=margin,
        runner=names[able[1]] if len(able) > 1 else "",
        anchors=against,
        failures=failures,
        passes=(_mean(price[best, 0]), _mean(price[best, 1]), _mean(price[best, 2])),
        why=tuple(why),
    )


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _fair(metrics: Sequence[MetricFacts]) -> int | None:
    """The metric that margins are stated in: one whose value for a random order is known, or the first that counts."""
    for wanted in ("srg", "road", "sensitivity-n", "faithfulness-correlation", "relevance-mass"):
        for k, m in enumerate(metrics):
            if m.name == wanted:
                return k
    return next((k for k, m in enumerate(metrics) if m.category in COUNTED), None)


def _ruled_out(values: Array, metrics: Sequence[MetricFacts], name: str) -> str | None:
    for k, m in enumerate(metrics):
        if m.name in ("mprt-last", "mprt") and np.isfinite(values[k]).any():
            mean = float(np.nanmean(values[k]))
            if mean >= SHOWS_MODEL:
                return f"{name} does not change when the weights are shuffled ({m.name} {mean:.2f}), so it is left out."
    return None


def mean_table(values: Array) -> Array:
    """`(methods, metrics, 3)`: mean and 95 % interval over the samples."""
    return np.array([[mean_interval(cell) for cell in row] for row in values])
