"""Statistics that several rooms need: intervals of means by resampling, and tests of many hypotheses at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Correction = Literal["holm", "bh", "none"]


def bootstrap_mean(
    rows: ArrayLike, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean `(K,)` of rows `(n, K)` with its percentile-bootstrap interval over the rows (Efron 1979).

    Of fewer than two rows there is no interval: it is NaN.
    """
    values = np.asarray(rows, np.float64)
    mean = values.mean(0)
    if len(values) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    counts = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), size=draws)
    means = counts @ values / len(values)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return mean, low, high


def adjusted(p: ArrayLike, how: Correction = "holm") -> NDArray[np.float64]:
    """p-values adjusted for their number: compare them with the level as they are.

    `holm` (Holm 1979) bounds the chance of any false discovery, `bh` (Benjamini & Hochberg 1995) the expected share of
    false ones among the discoveries.
    """
    values = np.asarray(p, np.float64).ravel()
    order, count = np.argsort(values, kind="stable"), len(values)
    ranked = values[order]
    if how == "holm":
        ranked = np.maximum.accumulate(ranked * (count - np.arange(count)))
    elif how == "bh":
        ranked = np.minimum.accumulate((ranked * count / (1 + np.arange(count)))[::-1])[::-1]
    found = np.empty(count)
    found[order] = np.minimum(ranked, 1)
    return found.reshape(np.shape(p))
