"""Statistics that several rooms need: intervals of means by resampling, and tests of many hypotheses at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

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


class Bootstrap:
    """The mean of rows that come one after the other, and its percentile-bootstrap interval over them.

    How often each of N rows is drawn into a resample is multinomial, and so, row after row, binomial in the draws that
    are left. So no row is kept: memory is `draws x K`, however many rows there are.

    Args:
        rows: N, how many will come.
        draws: resamples.
        seed: of the draws.
    """

    def __init__(self, rows: int, draws: int = 1000, seed: int = 0) -> None:
        self.rows, self.seen = rows, 0
        self.left = torch.full((draws,), float(rows), dtype=torch.float64)
        self.total: Tensor | None = None
        self.sums: Tensor | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, row: Tensor) -> None:
        """The next row `(K,)`."""
        row = row.double()
        chance = torch.tensor(1 / (self.rows - self.seen), dtype=torch.float64)
        times = (
            self.left
            if self.seen == self.rows - 1
            else torch.binomial(self.left, chance.expand_as(self.left).contiguous(), generator=self._generator)
        )
        self.left, self.seen = self.left - times, self.seen + 1
        if self.sums is None or self.total is None:
            self.sums, self.total = torch.zeros(len(times), len(row), dtype=torch.float64), torch.zeros_like(row)
        self.sums.addr_(times, row)
        self.total += row

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
        """`(mean, low, high)`, each `(K,)`; of fewer than two rows the interval is NaN."""
        assert self.total is not None
        assert self.seen == self.rows
        mean = self.total / self.rows
        if self.rows < 2:
            return mean, torch.full_like(mean, torch.nan), torch.full_like(mean, torch.nan)
        low, high = self.quantiles([(1 - level) / 2, (1 + level) / 2])
        return mean, low, high

    def quantiles(self, at: list[float], less: Bootstrap | None = None) -> Tensor:
        """`(len(at), K)`: quantiles of the resampled means, less those of another sample."""
        assert self.sums is not None
        means = self.sums / self.rows
        if less is not None and less.sums is not None:
            means = means - less.sums / less.rows
        return torch.quantile(means, torch.tensor(at, dtype=torch.float64), dim=0)


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
