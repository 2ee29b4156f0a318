"""When a Monte-Carlo map is good enough: its error is small beside its spread, and the places on top stay on top."""

from __future__ import annotations

import torch
from torch import Tensor

_TOP, _KEPT = 0.1, 0.9  # share of places on top, and of those that must have been on top at the last check


class BlockMean:
    """Running mean and standard error of independent, equally distributed blocks of work, for several maps at once.

    A map that is told to rest keeps its figures while the others go on, so that no map depends on its company.

    Args:
        maps: how many maps, R.
    """

    def __init__(self, maps: int) -> None:
        self.count = torch.zeros(maps)
        self.mean = self._squares = torch.zeros(())

    def add(self, block: Tensor, active: Tensor) -> None:
        """One more block's estimates `(R, *space)`, taken by the maps `active` `(R,)` (Welford's update)."""
        if not self.mean.ndim:
            self.count = self.count.to(block)
            self.mean, self._squares = torch.zeros_like(block), torch.zeros_like(block)
        self.count += active
        step = torch.where(_over(active, block), block - self.mean, 0.0)
        self.mean = self.mean + step / _over(self.count, block).clamp(min=1)
        self._squares = self._squares + step * (block - self.mean)

    @property
    def error(self) -> Tensor:
        """Standard error of the mean, `(R, *space)`; NaN after a single block."""
        return (self.variance / _over(self.count, self.mean)).sqrt()

    @property
    def variance(self) -> Tensor:
        """Unbiased variance of the blocks, `(R, *space)`; NaN after a single block."""
        return self._squares / (_over(self.count, self.mean) - 1)


def _over(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def relative_error(values: Tensor, error: Tensor) -> Tensor:
    """Root mean square of the standard error over the standard deviation of the map, `(R, *space) x 2 -> (R,)`.

    At 0.1 the map correlates with what it converges to by `1 / sqrt(1 + 0.1^2) = 0.995`. 0 for a map that is zero.
    """
    noise = error.double().flatten(1).square().mean(1).sqrt()
    spread = values.double().flatten(1).std(1, unbiased=False)
    return torch.where(noise == 0, 0.0, noise / spread)


class Stopping:
    """Says at each check which maps are done.

    Args:
        tolerance: of `relative_error`.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self._before: Tensor | None = None

    def __call__(self, values: Tensor, error: Tensor) -> Tensor:
        """`(R, *space) x 2 -> (R,)`: error within the tolerance, and the strongest tenth known from the last check.

        A place that has left the strongest tenth by less than the tolerance has not left it. The first check only
        remembers.
        """
        strength = values.flatten(1).abs()
        count = max(1, round(_TOP * strength.shape[1]))
        best = strength.topk(count, dim=1)
        before, self._before = (
            self._before,
            torch.zeros_like(strength, dtype=torch.bool).scatter_(1, best.indices, True),
        )
        if before is None:
            return torch.zeros(len(strength), dtype=torch.bool, device=strength.device)
        slack = self.tolerance * values.flatten(1).std(1, unbiased=False, keepdim=True)
        left = (before & (strength < best.values[:, -1:] - slack)).sum(1)
        return (left <= (1 - _KEPT) * count) & (relative_error(values, error) <= self.tolerance)
