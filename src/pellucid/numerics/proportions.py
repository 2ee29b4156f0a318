"""Shares of samples: their intervals, their differences, and how they change between two models on the same samples."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

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
