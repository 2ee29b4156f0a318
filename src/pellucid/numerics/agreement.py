"""Do several judges rank alike, and is one contestant better than another on the same samples?"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import as_tensor, from_numpy

from pellucid.numerics.ranks import mid_ranks
from pellucid.numerics.statistics import LEVEL, bootstrap_mean, half_width

_MANY = 30  # rows from which on the bootstrap holds its rate

Array = NDArray[np.float64]


def mean_interval(values: ArrayLike) -> tuple[float, float, float]:
    """Mean and 95 % interval of a sample, NaN left out: the bootstrap's from 30 values on, Student's of fewer."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    if len(known) >= _MANY:
        mean, low, high = bootstrap_mean(known[:, None], level=LEVEL)
        return float(mean[0]), float(low[0]), float(high[0])
    middle = float(known.mean())
    if len(known) < 2:
        return middle, nan, nan
    error = as_tensor(float(known.std(ddof=1)) / len(known) ** 0.5)
    half = float(half_width(error, len(known) - 1))
    return middle, middle - half, middle + half


def krippendorff(ratings: ArrayLike) -> float:
    """Krippendorff's alpha for interval data: 1 where all raters agree, 0 as by chance.

    Args:
        ratings: `(raters, units)`, NaN where a unit was not rated; units of fewer than two ratings do not count.

    Returns:
        NaN where nothing varies.
    """
    rated = np.asarray(ratings, np.float64)
    rated = rated[:, np.isfinite(rated).sum(0) >= 2]
    known = np.isfinite(rated)
    count = known.sum(0)
    total = int(count.sum())
    if not total:
        return float("nan")
    filled = np.where(known, rated, 0.0)
    # sum over ordered pairs of squared differences = 2 (m sum x^2 - (sum x)^2)
    within = 2 * (count * np.square(filled).sum(0) - np.square(filled.sum(0)))
    observed = float((within / (count - 1)).sum()) / total
    every = rated[known]
    expected = float(2 * (total * np.square(every).sum() - every.sum() ** 2)) / (total * (total - 1))
    return 1 - observed / expected if expected > 0 else float("nan")


@dataclass(frozen=True)
class PairedTest:
    """One contestant against another on the same samples.

    Attributes:
        difference: mean of the first less the second.
        low: of its 95 % interval; `high` likewise.
        high: see `low`.
        p: of Wilcoxon's signed-rank test, two-sided; 1 where nothing differs.
        wins: share of samples on which the first is greater, ties as halves (common language effect size).
        count: samples that both have a value of.
    """

    difference: float
    low: float
    high: float
    p: float
    wins: float
    count: int


def paired_test(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Over the samples that both have a value of."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    away = (a - b)[both]
    if not len(away):
        return PairedTest(nan, nan, nan, nan, nan, 0)
    from scipy.stats import wilcoxon  # which takes seconds to import

    p = float(wilcoxon(away).pvalue) if np.any(away) else 1.0
    wins = float((np.sign(away) + 1).mean() / 2)
    return PairedTest(*mean_interval(away), p, wins, len(away))


def sample_ranks(values: ArrayLike, *, higher: bool, resolution: float = 0.0) -> Array:
    """Ranks along the first axis, 1 the best, ties in the middle; NaN stays NaN: `(contestants, ...)`.

    Neighbours that are no further apart than `resolution` of the range between best and worst are ties too.
    """
    rated = np.asarray(values, np.float64)
    last = np.where(np.isfinite(rated), -rated if higher else rated, np.inf)
    if resolution > 0:
        last = _levelled(last, resolution)
    ranked: Array = mid_ranks(from_numpy(np.ascontiguousarray(np.moveaxis(last, 0, -1)))).numpy() + 0.5
    return np.where(np.isfinite(rated), np.moveaxis(ranked, -1, 0), np.nan)


def _levelled(values: Array, resolution: float) -> Array:
    """Which step each value stands on, along the first axis, from 0; what is infinite stays last."""
    order = np.argsort(values, axis=0, kind="stable")
    stairs = np.take_along_axis(values, order, axis=0)
    finite = np.isfinite(stairs)
    top = np.where(finite, stairs, -np.inf).max(0)
    span = np.where(finite[0], top - np.where(finite[0], stairs[0], 0.0), 0.0)
    gaps = np.diff(np.where(finite, stairs, np.where(finite[0], top, 0.0)), axis=0)
    steps = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(gaps > resolution * span, axis=0)])
    found = np.empty_like(values)
    np.put_along_axis(found, order, np.where(finite, steps, np.inf), axis=0)
    return found
