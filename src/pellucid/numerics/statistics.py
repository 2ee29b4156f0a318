"""Statistics that several rooms need: intervals that hold their rate, and tests of many hypotheses at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit
from torch import Tensor

from pellucid.numerics.ranks import mid_ranks

Correction = Literal["holm", "bh", "none"]


LEVEL = 0.95
"""Of every interval that is stated."""


def half_width(error: Tensor, freedom: float | Tensor, *, pooled: bool = False) -> Tensor:
    """Half of the 95 % interval around values with these standard errors (Student 1908).

    Args:
        error: standard errors; `(K, T)` where they are `pooled`.
        freedom: degrees of freedom that they were estimated with; a tensor of a shape that broadcasts to theirs.
        pooled: the K variances share one degree of freedom more, their common mean's (Smyth 2004's moderated
            statistic): of a few draws some agree by luck, and their own spread alone would be believed.

    Returns:
        As `error`, in double precision; NaN where there are no degrees of freedom.
    """
    error, free = error.double(), torch.as_tensor(freedom, dtype=torch.float64)
    free = torch.where(free > 0, free, torch.nan).to(error.device)
    if pooled:
        error = ((free * error**2 + (error**2).mean(0)) / (free + 1)).sqrt()
        free = free + 1
    factor = torch.from_numpy(np.asarray(stdtrit(free.cpu().numpy(), (1 + LEVEL) / 2), np.float64))
    return factor.to(error.device) * error


class RowMean:
    """The mean of rows that come one after the other, and its interval: no row is kept (Pebay 2008's updates).

    Attributes:
        count: rows so far, n.
        mean: `(K,)`.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self._squares = self._cubes = torch.zeros((), dtype=torch.float64)

    def add(self, row: Tensor) -> None:
        """The next row `(K,)`."""
        self.count += 1
        n, away = self.count, row.double() - self.mean
        step = away / n
        grown = away * step * (n - 1)
        self.mean = self.mean + step
        self._cubes = self._cubes + grown * step * (n - 2) - 3 * step * self._squares
        self._squares = self._squares + grown

    @property
    def variance(self) -> Tensor:
        """Of the mean, `(K,)`, unbiased; NaN for fewer than two rows."""
        return (
            self._squares / (self.count - 1) / self.count if self.count > 1 else torch.full_like(self.mean, torch.nan)
        )

    @property
    def third(self) -> Tensor:
        """Third cumulant of the mean, `(K,)`, unbiased; zero for fewer than three rows, which show none."""
        n = self.count
        return self._cubes / ((n - 1) * (n - 2)) / n if n > 2 else torch.zeros_like(self.mean)

    def interval(self) -> tuple[Tensor, Tensor, Tensor]:
        """`(mean, low, high)`, each `(K,)`; of fewer than two rows the interval is NaN."""
        freedom = torch.full_like(self.mean, self.count - 1)
        return self.mean, *_skewed(self.mean, self.variance, self.third, freedom)

    def less(self, other: RowMean) -> tuple[Tensor, Tensor, Tensor]:
        """The difference of the two means, with its interval (Welch 1947's degrees of freedom)."""
        one, two = self.variance, other.variance
        parts = one**2 / max(1, self.count - 1) + two**2 / max(1, other.count - 1)
        freedom = torch.where(parts > 0, (one + two) ** 2 / parts.clamp(min=1e-300), 1.0)
        mean = self.mean - other.mean
        return mean, *_skewed(mean, one + two, self.third - other.third, freedom)


def _skewed(mean: Tensor, variance: Tensor, third: Tensor, freedom: Tensor) -> tuple[Tensor, Tensor]:
    """The 95 % interval of means `(K,)`: Student's, wider on the side where rare large rows may not have come yet.

    Student's interval holds its rate for rows of any symmetric law, and loses up to a tenth of it for skewed ones. A
    cubic transformation takes the skewness out of Student's statistic (Hall 1992, sec. 3.9); it is too sure of a
    skewness that a few rows show by chance. So the ends are the outer ones of both.
    """
    error = variance.sqrt()
    reach = half_width(torch.ones_like(error), freedom)
    skew = torch.where(error > 0, third / (error**3).clamp(min=1e-300), 0.0)

    def turned(q: Tensor) -> Tensor:
        inside = 1 + skew * (q - skew / 6)
        bent = 3 * (inside.sign() * inside.abs() ** (1 / 3) - 1) / torch.where(skew.abs() > 1e-6, skew, 1.0)
        return torch.where(skew.abs() > 1e-6, bent, q)

    return mean - error * torch.maximum(reach, turned(reach)), mean + error * torch.maximum(reach, -turned(-reach))


def row_mean(rows: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """`(mean, low, high)` of rows `(n, K)` as `RowMean` has them."""
    found = RowMean()
    for row in torch.from_numpy(np.array(rows, np.float64)):
        found.add(row)
    mean, low, high = (v.numpy() for v in found.interval())
    return mean, low, high


def bootstrap_mean(
    rows: ArrayLike, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean `(K,)` of rows `(n, K)` with its percentile-bootstrap interval over the rows (Efron 1979).

    For figures between 0 and 1 of some dozens of rows: of few rows it is too narrow, see `RowMean`. Of fewer than two
    rows there is no interval: it is NaN.
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


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of two maps, flattened; 0 where one of them is flat or not finite. Ties share a rank."""
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return 0.0
    ranks = [mid_ranks(t.flatten().double()) for t in (a, b)]
    centred = [r - r.mean() for r in ranks]
    norm = centred[0].norm() * centred[1].norm()
    return float((centred[0] @ centred[1]) / norm) if norm > 0 else 0.0
