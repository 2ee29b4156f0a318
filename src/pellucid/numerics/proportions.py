"""Shares of samples: their intervals, their differences, and how they change between two models on the same samples."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, t

_Z = 1.959963984540054  # of the normal law, for 95 %


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); (0, 1) where there are no samples."""
    if count == 0:
        return 0.0, 1.0
    share, extra = hits / count, _Z**2 / count
    middle = (share + extra / 2) / (1 + extra)
    half = _Z * sqrt(share * (1 - share) / count + extra / (4 * count)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(hits: int, count: int, others: int, total: int) -> tuple[float, float, float]:
    """A share less that of other samples, with its 95 % interval (Newcombe 1998, method 10)."""
    a, b = hits / count, others / total
    (low_a, high_a), (low_b, high_b) = interval(hits, count), interval(others, total)
    return (
        a - b,
        a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2),
        a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2),
    )


def grouped_difference(
    errors: NDArray[np.bool_], inside: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float, float, float]:
    """The share of errors inside less that outside, where samples of one group are not independent; its 95 % interval,
    and the p-value of no more errors inside.

    The variance is summed over groups (Liang & Zeger 1986), times G / (G - 1); Student with G - 1. Fewer than two
    groups prove nothing.

    Args:
        errors: `(N,)`.
        inside: `(N,)`, of some but not all.
        groups: `(N,)`, the number of each sample's group.
    """
    rates = errors[inside].mean(), errors[~inside].mean()
    away = np.where(inside, (errors - rates[0]) / inside.sum(), (rates[1] - errors) / (~inside).sum())
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, away)
    gap, count = float(rates[0] - rates[1]), len(sums)
    if count < 2:
        return gap, -1.0, 1.0, 1.0
    error = sqrt(float((sums**2).sum()) * count / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * error
    p = float(t.sf(gap / error, count - 1)) if error > 0 else float(gap <= 0)
    return gap, gap - half, gap + half, p


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact p-value, two-sided, of as many samples right with one model alone as with the other (McNemar 1947)."""
    flips = only_first + only_second
    return 1.0 if flips == 0 else min(1.0, 2 * float(binom.cdf(min(only_first, only_second), flips, 0.5)))


def calibration_error(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 15
) -> tuple[float, list[tuple[float, float, int]]]:
    """The expected calibration error (Naeini et al. 2015), and of each bin of equal width its mean confidence, its
    accuracy and its size; empty bins are left out.
    """
    place = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    rows = []
    for k in range(bins):
        inside = place == k
        if inside.any():
            rows.append((float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    return sum(n * abs(c - a) for c, a, n in rows) / max(1, len(place)), rows
