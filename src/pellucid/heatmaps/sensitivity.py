"""Global sensitivity analysis of masks: how much of the score's variation does a cell account for.

Cells of a grid are shown, half shown or hidden at random, and statistics made for the analysis of computer experiments
say which of them the score depends on. Both are unsigned: a cell that speaks against the target counts as well.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from pellucid.engine.masks import GridMasks
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.sampling import Extremes, SamplingMethod, cells_per_axis, orthogonal_block
from pellucid.numerics.games import answered
from pellucid.numerics.statistics import half_width
from pellucid.numerics.stopping import Stopping
from pellucid.scoring.job import Job
from pellucid.scoring.masked import masked

_FIRST_CHECK = 4  # units of a design: fewer say too little about their own error
_LATIN = 32  # masks in a block that cannot be orthogonal


def total_indices(a: Tensor, b: Tensor, ab: Tensor) -> tuple[Tensor, Tensor]:
    """Jansen's estimate of the total-order indices: `S_i = mean (f(A) - f(AB_i))^2 / (2 V)`.

    Args:
        a: scores at the points A, `(R, n)`.
        b: scores at the points B, `(R, n)`.
        ab: scores at A with coordinate i taken from B, `(R, n, d)`.

    Returns:
        Indices `(R, d)`, and their standard errors by the delta method as if points were drawn independently, which
        for a low-discrepancy sequence is on the safe side.
    """
    mean = (a.mean(1, keepdim=True) + b.mean(1, keepdim=True)) / 2
    variance = ((a - mean) ** 2 + (b - mean) ** 2) / 2  # (R, n), a share for each point
    total = variance.mean(1).clamp(min=torch.finfo(a.dtype).tiny)[:, None]
    lost = (a[:, :, None] - ab) ** 2 / 2
    indices = lost.mean(1) / total
    influence = (lost - indices[:, None] * variance[:, :, None]) / total[:, None]
    return indices, influence.std(1) / math.sqrt(a.shape[1])


@dataclass(frozen=True, kw_only=True)
class DesignMethod(SamplingMethod):
    """Base: masks in units of a design (rows, blocks), the more the better; scored, and estimated on all so far."""

    signed = False

    cells: int | tuple[int, ...] = 8

    def perturb(self, job: Job) -> list[Attribution]:
        """Unit after unit, for all inputs and targets; a map that is good enough rests."""
        still_yet, done = Extremes(), Stopping(self.tolerance)
        points: list[Tensor] = []
        seen: list[Tensor] = []
        kept: tuple[Tensor, ...] = ()
        broken, device = "", job.inputs.device
        with masked(job, self.baseline, self.seed) as scorer:
            grid = cells_per_axis(self.cells, scorer.space)
            draw, size, least = self.design(math.prod(grid))
            units = max(least, self.budget // size)
            for more in _rounds(units, _FIRST_CHECK if self.samples == "auto" else units):
                fresh = draw(more).to(device)  # (more, size, d)
                fresh = fresh if scorer.soft else fresh.round()  # whole tokens: coin flips
                masks = GridMasks(fresh.float().reshape(-1, *grid), scorer.space)
                answers, failure = scorer.answered(masks, self.name)
                scores = answers.transpose(1, 2).reshape(-1, more, size)  # (N * T, more, size)
                if failure is not None:
                    broken = str(failure)
                    whole = answered(scores.transpose(0, 1))  # units that were answered for every map
                    if sum(map(len, points)) + whole < least:
                        raise failure
                    if not whole:
                        break
                    fresh, scores = fresh[:whole], scores[:, :whole]
                still = still_yet.add(scores.flatten(1))
                points.append(fresh)
                seen.append(scores)
                values, error = self.estimate(torch.cat(points), torch.cat(seen, 1))
                spent = torch.full((len(values),), sum(map(len, points)) * size, device=device)
                found = values, error, spent, still
                if not kept:
                    kept, resting = found, torch.zeros_like(still)
                kept = tuple(torch.where(_rows(resting, n), old, n) for old, n in zip(kept, found, strict=True))
                resting = resting | still | done(values, error)
                if resting.all() or broken:
                    break
            values, error, spent, still = kept
            low, high = self.ends(values, error, spent // size)
            values, error, low, high = (v.reshape(-1, *grid) for v in (values, error, low, high))
            return self.answer(job, values, error, (low, high), spent, still, scorer.cost, broken)

    def ends(self, values: Tensor, error: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends `(R, cells)` of Student's 95 % interval after so many units `(R,)`; no value is below zero."""
        half = half_width(error, (units - 1)[:, None])
        return (values - half).clamp(min=0), values + half

    @abstractmethod
    def design(self, cells: int) -> tuple[Callable[[int], Tensor], int, int]:
        """A source of units of masks, count -> `(count, size, cells)`; the size; and how few units can be estimated."""

    @abstractmethod
    def estimate(self, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Values and standard errors `(R, cells)` from masks `(n, size, cells)` and scores `(R, n, size)`."""


def _rounds(units: int, first: int) -> Iterator[int]:
    """How many units to add before each check: half as many again, since an estimate takes in all units so far."""
    have = 0
    while have < units:
        more = min(max(1, have // 2) if have else first, units - have)
        yield more
        have += more


def _rows(chosen: Tensor, like: Tensor) -> Tensor:
    return chosen.reshape(-1, *[1] * (like.ndim - 1))


@method(
    "sobol",
    family="perturbation",
    needs="outputs",
    cost="1 forward a masked input: rows x (cells + 2), 2112 for 32 rows of 8 x 8 cells",
    paper="Fel et al. 2021, arXiv:2111.04138, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class Sobol(DesignMethod):
    """Total-order Sobol indices: the share of the score's variance in which a cell has a part. `(N, *grid)`, >= 0.

    `S_i = E[Var(f | all cells but i)] / Var(f)` for masks uniform in `[0, 1]` on each cell. A cell that matters only
    together with others gets its full share, so shares may add up to more than 1. Points are a scrambled Sobol
    sequence; the estimate is Jansen's (see `total_indices`).

    Args:
        cells: grid cells on the longest axis, the others in proportion, or a number for each axis.
        samples: masked inputs, cut to whole rows of `cells + 2`, but four rows at least; `auto` stops by `tolerance`.
        tolerance: for `auto`, the standard error to reach, relative to the spread of the map.
        max_samples: masked inputs that `auto` may take.
        baseline: what shows where the mask is 0: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the scrambling and of a random baseline.
    """

    samples: int | Literal["auto"] = 2112

    def quick(self) -> Sobol:
        """At most 528 masked inputs."""
        return replace(self, samples=min(528, self.budget))

    def design(self, cells: int) -> tuple[Callable[[int], Tensor], int, int]:
        """Rows of `cells + 2` points: A, B, and A with one coordinate from B."""
        if 2 * cells > SobolEngine.MAXDIM:
            raise MethodError(f"{cells} cells are more than a Sobol sequence has dimensions for: give fewer cells.")
        engine = SobolEngine(2 * cells, scramble=True, seed=self.seed)  # type: ignore[no-untyped-call]

        def draw(count: int) -> Tensor:
            a, b = engine.draw(count, dtype=torch.float64).reshape(count, 2, cells).unbind(1)
            mixed = torch.where(torch.eye(cells, dtype=torch.bool), b[:, None], a[:, None])
            return torch.cat([a[:, None], b[:, None], mixed], dim=1)

        return draw, cells + 2, 4

    def estimate(self, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Jansen's."""
        return total_indices(scores[..., 0], scores[..., 1], scores[..., 2:])


def hsic(masks: Tensor, scores: Tensor, bandwidth: Tensor | None = None) -> Tensor:
    """Dependence of scores on each cell: `HSIC_i = tr(K_i H L H) / (n - 1)^2`, `(n, d), (R, n) -> (R, d)`.

    `K_i[a, b] = 1 if mask_a and mask_b agree on cell i, else 0`; `L[a, b] = exp(-(y_a - y_b)^2 / (2 bandwidth^2))`;
    `H` centres. With `z = 2 mask - 1`, agreement is `(1 + z_a z_b) / 2`, and the trace is `z' H L H z / 2`: all
    cells come out of one product with `L`. (The Sobolev kernel of order 1 on values 0 and 1 is half of that.)

    Args:
        masks: 0 or 1.
        scores: R scores of each mask.
        bandwidth: `(R,)`; None: the median distance of two scores.
    """
    z = 2 * masks.double() - 1
    z = z - z.mean(0)
    widths = median_distance(scores) if bandwidth is None else bandwidth
    found = [
        (z * (torch.exp(-((y[:, None] - y) ** 2) / (2 * width**2)) @ z)).sum(0)
        for y, width in zip(scores, widths, strict=True)
    ]
    return torch.stack(found) / 2 / (len(masks) - 1) ** 2


def median_distance(scores: Tensor) -> Tensor:
    """Median of `|y_a - y_b|` over all pairs, `(R, n) -> (R,)`; the mean where most scores are equal. Never 0."""
    found = []
    for y in scores.double():
        distances = torch.pdist(y[:, None])
        median = distances.median()
        found.append(median if median > 0 else distances.mean())
    return torch.stack(found).clamp(min=torch.finfo(torch.float64).tiny ** 0.25)


@method(
    "hsic",
    family="perturbation",
    needs="outputs",
    cost="1 forward a mask, up to max_samples (4096); some 500 to 2500 at a tolerance of 0.2",
    paper="Novello et al. 2022, arXiv:2206.06219, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class HSIC(DesignMethod):
    """Hilbert-Schmidt independence criterion between a cell's being shown and the score. `(N, *grid)`, >= 0.

    Any change of the score's distribution counts, not of its mean or variance alone (see `hsic`). Masks are a Latin
    hypercube of coin flips: over a block each cell is shown exactly half of the time. As soon as the budget holds two
    orthogonal blocks (see `orthogonal_block`), which are the Latin hypercubes with uncorrelated cells, those are taken.
    The error comes from leaving out one block at a time (the jackknife).

    A cell without influence has a small positive value, the same for all such cells, of the order of `1 / samples`.

    Args:
        cells: grid cells on the longest axis, the others in proportion, or a number for each axis.
        samples: masks, cut to whole blocks, but two blocks at least; `auto` stops by `tolerance`.
        tolerance: for `auto`, the standard error to reach, relative to the spread of the map.
        max_samples: masks that `auto` may take.
        baseline: what shows where the mask is 0: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the masks and of a random baseline.
    """

    tolerance: float = 0.2

    def quick(self) -> HSIC:
        """At most 256 masks."""
        return replace(self, samples=min(256, self.budget))

    def design(self, cells: int) -> tuple[Callable[[int], Tensor], int, int]:
        """Blocks of balanced masks."""
        generator = self.stream()
        size = 2 << (cells - 1).bit_length()
        if 2 * size <= self.budget:
            return lambda count: torch.stack([orthogonal_block(cells, generator) for _ in range(count)]), size, 2
        size = min(_LATIN, self.budget // 4 * 2)

        def draw(count: int) -> Tensor:
            return (torch.rand(count, size, cells, generator=generator).argsort(1) % 2).float()

        return draw, size, 2

    def estimate(self, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """On all masks; the error by leaving out one block at a time, at the same bandwidth."""
        blocks, size, _ = masks.shape
        widths = median_distance(scores.flatten(1))
        pairs = torch.stack([_pair_sums(masks, s, w) for s, w in zip(scores, widths, strict=True)])  # (R, n, n, d)
        total = pairs.sum((1, 2))
        own = pairs.diagonal(dim1=1, dim2=2).movedim(-1, 1)
        without = total[:, None] - pairs.sum(1) - pairs.sum(2) + own
        values = total / 2 / (blocks * size - 1) ** 2
        left = without / 2 / ((blocks - 1) * size - 1) ** 2
        return values, ((blocks - 1) * left.var(1, unbiased=False)).sqrt()


def _pair_sums(masks: Tensor, y: Tensor, width: Tensor) -> Tensor:
    """`z_k' L_kl z_l` of each cell for all pairs of blocks k, l: `(n, size, d), (n, size) -> (n, n, d)`.

    Blocks are balanced, so that `z` has no mean over any of them, and their sums make up `hsic` of any set of blocks.
    """
    z = 2 * masks.double() - 1
    sums = []
    for z_l, y_l in zip(z, y, strict=True):
        L = torch.exp(-((y.flatten()[:, None] - y_l) ** 2) / (2 * width**2))
        sums.append((z * (L @ z_l).reshape(z.shape)).sum(1))
    return torch.stack(sums, 1)
