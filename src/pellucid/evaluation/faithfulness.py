"""Insertion and deletion: does the score follow the order in which the map ranks the picture?

Insertion shows the picture cell by cell on its own blur, most important first; deletion blurs the cells in the same
order (Petsiuk et al. 2018, arXiv:1806.07421). A faithful map raises the first curve early and lowers the second early.
Both are compared with random orders of the same cells of the same picture, since absolute areas depend on the picture
and on the model. Both use the blur: on a grey or black fill the curves mostly measure how a model takes holes (random
orders, which make many holes, then look better than they are). On one fill a deletion in some order is an insertion in
the reverse order, so the random orders serve both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.engine import adaptive_batches, default_batch
from pellucid.engine.baselines import blur
from pellucid.explanation import Curve

CELLS = 14  # along the longer space axis of a picture
STEPS = 16
RANDOM_ORDERS = 12

Score = Callable[[Tensor], Tensor]  # inputs (M, C, *space) -> scores (M,)


def frame_grid(space: Sequence[int]) -> tuple[int, ...]:
    """The grid of a clip's frames: up to 16 stretches of time, each of whole frames."""
    return (min(space[0], STEPS), *[1] * (len(space) - 1))


def cell_grid(space: Sequence[int]) -> tuple[int, ...]:
    """The grid of cells that is ranked: `CELLS` along the longest axis, about square cells, at least 2 an axis."""
    longest = max(space)
    return tuple(max(min(2, s), min(s, round(CELLS * s / longest))) for s in space)


def cell_ranking(attribution: Tensor, grid: Sequence[int]) -> Tensor:
    """Cells `(cells,)` from most to least important, of a map `(*any)` resampled to `grid`.

    Ties are broken in a fixed random order: in the order of the cells, a map that is zero but for a spot would be
    judged by whether the evidence happens to lie at the top of the picture.
    """
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[attribution.ndim]
    size = [max(g, n - n % g) for g, n in zip(grid, attribution.shape, strict=True)]
    fine = interpolate(attribution[None, None].float(), size=size, mode=mode, align_corners=False)
    for axis, g in enumerate(grid):  # exact mean over each cell
        fine = fine.reshape(*fine.shape[: 2 + axis], g, -1, *fine.shape[3 + axis :]).mean(3 + axis)
    shuffled = torch.randperm(math.prod(grid), generator=torch.Generator().manual_seed(0)).to(fine.device)
    return shuffled[fine.flatten()[shuffled].argsort(descending=True, stable=True)]


@dataclass
class Perturbed:
    """One picture's perturbed scores; those of the random orders are measured once and kept.

    Args:
        score: inputs `(M, C, *space)` -> scores `(M,)`; probabilities where the target has them.
        x: the picture as the model takes it, `(1, C, *space)`.
        seed: of the random orders.
        grid: of the cells; by default that of `cell_grid`.
    """

    score: Score
    x: Tensor
    seed: int = 0
    grid: tuple[int, ...] = ()
    _random: Tensor | None = field(default=None, init=False, repr=False)
    _ends: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.grid = self.grid or cell_grid(self.x.shape[2:])
        self.steps = min(STEPS, math.prod(self.grid))
        self.blurred = blur(self.x, torch.Generator(), sigma=0.1)

    def curves(self, order: Tensor) -> tuple[Curve, Curve]:
        """Insertion and deletion of one order of the cells `(cells,)`, with the random orders beside it."""
        if self._random is None:
            generator = torch.Generator().manual_seed(self.seed)
            cells = math.prod(self.grid)
            self._random = self._inserted(
                torch.stack([torch.randperm(cells, generator=generator) for _ in range(RANDOM_ORDERS)])
            )
        insertion, reverse = self._inserted(torch.stack([order, order.flip(0)]))
        return _curve(insertion, self._random), _curve(reverse.flip(0), self._random.flip(1))

    def _inserted(self, orders: Tensor) -> Tensor:
        """Scores `(orders, steps + 1)` as the cells of each order `(orders, cells)` are shown on the blur."""
        if self._ends is None:
            self._ends = self.score(torch.cat([self.blurred, self.x])).float().cpu()
        cells = orders.shape[1]
        rank = torch.empty_like(orders).scatter_(1, orders, torch.arange(cells).expand_as(orders))
        counts = torch.linspace(0, cells, self.steps + 1).round().long()
        shown = rank[:, None] < counts[None, 1:-1, None]  # (orders, steps, cells); the ends are the same for all
        scores = self._scores(shown.flatten(0, 1)).reshape(len(orders), -1)
        ends = self._ends.expand(len(orders), 2)
        return torch.cat([ends[:, :1], scores, ends[:, 1:]], dim=1)

    def _scores(self, masks: Tensor) -> Tensor:
        """Scores `(M,)` of the picture where `masks (M, cells)` is true and of its blur elsewhere."""
        out = torch.empty(len(masks))

        def run(start: int, stop: int) -> None:
            low = masks[start:stop].reshape(-1, 1, *self.grid).to(self.x)
            mask = interpolate(low, size=self.x.shape[2:], mode="nearest-exact")
            out[start:stop] = self.score(torch.lerp(self.blurred, self.x, mask)).float().cpu()

        adaptive_batches(run, len(masks), default_batch(self.x), label="insertion and deletion")
        return out


def _curve(scores: Tensor, random: Tensor) -> Curve:
    """Areas under the curves by the trapezoid rule."""
    steps = len(scores) - 1
    areas = torch.trapezoid(random, dx=1 / steps, dim=1)
    return Curve(
        auc=float(torch.trapezoid(scores, dx=1 / steps)),
        random_mean=float(areas.mean()),
        random_std=float(areas.std()),
        fractions=torch.linspace(0, 1, steps + 1).tolist(),
        scores=scores.tolist(),
        random_scores=random.mean(0).tolist(),
    )


def insertion_deletion(score: Score, x: Tensor, attribution: Tensor, seed: int = 0) -> tuple[Curve, Curve]:
    """Insertion and deletion curves of one map.

    Args:
        score: inputs `(M, C, *space)` -> scores `(M,)`.
        x: the picture as the model takes it, `(1, C, *space)`.
        attribution: the map `(*grid)` over the whole of `x`.
        seed: of the random orders.
    """
    perturbed = Perturbed(score, x, seed)
    return perturbed.curves(cell_ranking(attribution, perturbed.grid))
