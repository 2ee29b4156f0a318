"""Random masks and the score under them: what Monte-Carlo methods share, and RISE.

A method draws its masks from one seed on the CPU, the same for all inputs, so that nothing depends on the device, the
batch size or the company in the batch. It says how large its own error is, and with `samples="auto"` stops when that
is small enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pellucid.engine.capture import Cost
from pellucid.engine.masks import GridMasks
from pellucid.engine.perturb import MaskScorer
from pellucid.errors import MethodError, ModelError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.numerics.statistics import half_width
from pellucid.numerics.stopping import BlockMean, Stopping, relative_error
from pellucid.scoring.job import Job
from pellucid.scoring.masked import broken_off, masked

STILL = 1e-6  # a score whose range is this share of its size has only moved by rounding
STILL_NOTE = "The score stands still whatever is hidden, so the map is zero: choose another baseline or target."
_STREAM = 0x9E3779B9  # sets the masks' random numbers apart from those of a random baseline with the same seed
_NOISE = 0.5  # relative error from which a map is called noise
_FIRST_CHECK = 4  # blocks: fewer say too little about their own scatter
_INDEPENDENT = 16  # masks in a block of independent ones: its own mean costs a sixteenth, and blocks are many


def cells_per_axis(cells: int | tuple[int, ...], space: Sequence[int]) -> tuple[int, ...]:
    """The grid over an input: what the user gave for each axis, or so many on the longest and the rest in proportion.

    No axis of more than one place gets fewer than two cells, since nothing could be told apart along it.
    """
    if isinstance(cells, int):
        longest = max(space)
        grid = [min(s, max(2, round(cells * s / longest))) for s in space]
    else:
        grid = list(cells)
    if len(grid) != len(space) or any(not 1 <= g <= s for g, s in zip(grid, space, strict=True)) or cells in (0, 1):
        raise MethodError(
            f"Cells are one number above 1 or one for each axis of the input {tuple(space)}, none finer than it; "
            f"got {cells}."
        )
    return tuple(grid)


def orthogonal_block(cells: int, generator: torch.Generator) -> Tensor:
    """Masks `(2 R, cells)` of 0 and 1, each one a fair coin per cell, whose cells are uncorrelated over the block.

    Columns of a Hadamard matrix of order R, the first power of two that holds all cells, shuffled and with random
    signs, followed by the opposite of each mask. So the block sees each cell's linear effect without noise from the
    others' linear effects (orthogonal columns) and pairs (opposite masks), yet each single mask is distributed as if
    its cells were drawn independently.
    """
    matrix = torch.ones(1, 1)
    while len(matrix) < cells:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])  # Sylvester's rule
    columns = torch.randperm(len(matrix), generator=generator)[:cells]
    signs = torch.randint(0, 2, (cells,), generator=generator) * 2.0 - 1
    half = matrix[:, columns] * signs
    return (torch.cat([half, -half]) + 1) / 2


@dataclass(frozen=True, kw_only=True)
class SamplingMethod(PerturbationMethod):
    """Base: the budget, the notes and the facts of Monte-Carlo methods."""

    continues: ClassVar[bool] = True
    no_interval: ClassVar[str] = "There are too few samples to state an interval: raise samples."

    samples: int | Literal["auto"] = "auto"
    tolerance: float = 0.1
    max_samples: int = 4096
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples != "auto" and (not isinstance(self.samples, int) or self.samples < 4):
            raise MethodError(f'The samples of {self.name} are a number of at least 4, or "auto"; got {self.samples}.')
        if not self.tolerance > 0 or self.max_samples < 4:
            raise MethodError(f"{self.name} needs a tolerance above 0 and max_samples of at least 4.")

    @property
    def budget(self) -> int:
        """Masked inputs that may be run."""
        return self.max_samples if self.samples == "auto" else self.samples

    def stream(self) -> torch.Generator:
        """The random numbers of the masks."""
        return torch.Generator().manual_seed(self.seed + _STREAM)

    def answer(
        self,
        job: Job,
        values: Tensor,
        error: Tensor,
        ends: tuple[Tensor, Tensor],
        samples: Tensor,
        still: Tensor,
        cost: Cost,
        broken: str = "",
    ) -> list[Attribution]:
        """Maps, errors and both ends of the 95 % interval `(N * T, *grid)`, by target.

        `samples` were spent, and the score stood still or not, `(N * T,)`. `broken` says what ended the sampling early,
        if anything did.
        """
        values, error, low, high = (
            torch.where(still.reshape(-1, *[1] * (v.ndim - 1)), 0.0, v) for v in (values, error, *ends)
        )
        relative = relative_error(values, error)

        def rows(flat: Tensor) -> list[Tensor]:  # (N * T, ...) -> T times (N, ...)
            return list(flat.reshape(-1, len(job.targets), *flat.shape[1:]).unbind(1))

        columns = (rows(v) for v in (values, error, low, high, samples, still, relative))
        return [
            Attribution(
                v.float(),
                notes=[
                    *self._notes(n, s, r),
                    *([self.no_interval] if a.isnan().any() else []),
                    *([broken_off(int(n.max()), broken)] if broken else []),
                ],
                facts={"samples": n.double().tolist(), "relative_standard_error": r.tolist()},
                extras={"standard_error": e.float(), "low": a.float(), "high": b.float()},
                cost=cost,
            )
            for v, e, a, b, n, s, r in zip(*columns, strict=True)
        ]

    def _notes(self, samples: Tensor, still: Tensor, relative: Tensor) -> list[str]:
        notes = []
        if still.any():
            notes.append(STILL_NOTE)
        worst, spent = float(relative.max()), int(samples.max())
        if self.samples == "auto" and worst > self.tolerance:
            notes.append(
                f"The standard error is {worst:.0%} of the map's spread after {spent} masked inputs, above the "
                f"tolerance of {self.tolerance:.0%}: raise max_samples, or mind that error."
            )
        elif worst > _NOISE:
            notes.append(
                f"The standard error is {worst:.0%} of the map's spread: much of this map is noise, raise samples."
            )
        return notes


def _scored_ahead(scorer: MaskScorer, blocks: Iterator[GridMasks], ahead: int, label: str) -> Iterator[GridMasks]:
    """The blocks, after so many at a time were scored together: more sets of tokens of one size fill batches."""
    while some := list(islice(blocks, ahead)):
        if scorer.memory is not None and len(some) > 1:
            shifts = torch.cat([b.shifts for b in some if b.shifts is not None])
            together = replace(some[0], values=torch.cat([b.values for b in some]), shifts=shifts)
            with suppress(ModelError):  # met again where it is dealt with, after the blocks that were scored
                scorer(together, label=label)
        yield from some


class Extremes:
    """The least and greatest score seen of each map, to tell a score that stands still."""

    def __init__(self) -> None:
        self.low = self.high = torch.zeros(())

    def add(self, scores: Tensor) -> Tensor:
        """More scores `(R, M)`; returns which of the R stand still so far."""
        low, high = scores.amin(1), scores.amax(1)
        self.low = low.minimum(self.low) if self.low.ndim else low
        self.high = high.maximum(self.high) if self.high.ndim else high
        return self.high - self.low <= STILL * self.high.abs().maximum(self.low.abs())


@method(
    "rise",
    family="perturbation",
    needs="outputs",
    cost="1 forward a mask, up to max_samples (4096); some 500 to 2000 at a tolerance of 0.1",
    paper="Petsiuk et al. 2018, arXiv:1806.07421, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class RISE(SamplingMethod):
    """`sum_m (s_m - mean s) (mask_m - p) / ((M - 1) p (1 - p))`: score gained by showing a place. `(N, *space)`.

    Masks are coin flips on a coarse grid, drawn smooth and shifted at random within one cell. The paper's own estimate,
    `sum_m s_m mask_m / (M p)` (`centred=False`), also adds up the mean score times the random number of times a place
    was shown. That part says nothing about the place and is most of its noise; the covariance of score and mask is
    free of it. For a score linear in the masks, `sum_j w_j mask_j + c`, its expectation is `w` smoothed by the
    correlation of the masks, whose sum over places is one cell's size: a value is in units of the score, per cell.

    For `p = 0.5` masks come in orthogonal blocks (see `orthogonal_block`; one shift a block), as soon as the budget
    holds two of them. Each mask alone is distributed as in the paper, so the expectation is the same; the variance is
    several times smaller, and the divisor is M, since nothing is lost to the mean. Other masks are independent. Blocks
    are independent of each other, so their scatter is the error: `extras["standard_error"]`, `(N, *space)`, and by
    Student's factor for their number the 95 % interval, from `extras["low"]` to `extras["high"]`.

    Args:
        cells: grid cells on the longest axis, the others in proportion, or a number for each axis.
        p: chance that a cell is kept.
        samples: masks, filled up to whole blocks; `auto` stops by `tolerance`.
        tolerance: for `auto`, the standard error to reach, relative to the spread of the map.
        max_samples: masks that `auto` may take.
        centred: False for the paper's estimate.
        baseline: what shows where the mask is 0: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the masks and of a random baseline.
    """

    cells: int | tuple[int, ...] = 7
    p: float = 0.5
    centred: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p < 1:
            raise MethodError(f"The chance p that a cell is kept lies between 0 and 1; got {self.p}.")

    def quick(self) -> RISE:
        """At most 256 masks."""
        return replace(self, samples=min(256, self.budget))

    def perturb(self, job: Job) -> list[Attribution]:
        """Block after block, for all inputs and targets; a map that is good enough rests."""
        generator, done = self.stream(), Stopping(self.tolerance)
        maps, scores_seen = BlockMean(len(job.inputs) * len(job.targets)), Extremes()
        active = still = torch.ones(len(maps.count), dtype=torch.bool, device=job.inputs.device)
        broken = ""
        with masked(job, self.baseline, self.seed) as scorer:
            scorer.expected = 0 if self.samples == "auto" else self.samples
            grid = tuple(c + 1 for c in cells_per_axis(self.cells, scorer.space))  # one to spare for the shift
            size, orthogonal = self._block_size(math.prod(grid))
            blocks = max(2, self.budget // size if self.samples == "auto" else -(-self.budget // size))
            drawn = (self._block(grid, scorer, size, orthogonal, generator) for _ in range(blocks))
            ahead = 1 if scorer.soft else _FIRST_CHECK if self.samples == "auto" else blocks
            for count, masks in enumerate(_scored_ahead(scorer, drawn, ahead, self.name), 1):
                answers, failure = scorer.answered(masks, self.name)
                if failure is not None:
                    if count <= 2:  # a single block has no error
                        raise failure
                    broken = str(failure)
                    break
                scores = answers.transpose(1, 2).flatten(0, 1)  # (N * T, M)
                still = torch.where(active, scores_seen.add(scores), still)
                maps.add(self.estimate(masks, scores, orthogonal), active)
                if self.samples == "auto" and count >= min(_FIRST_CHECK, blocks) and count % ahead == 0:
                    active = active & ~still & ~done(maps.mean, maps.error)
                    if not active.any():
                        break
            reach = self._reach(maps)
            ends = maps.mean - reach, maps.mean + reach
            return self.answer(job, maps.mean, maps.error, ends, maps.count * size, still, scorer.cost, broken)

    def estimate(self, masks: GridMasks, scores: Tensor, orthogonal: bool) -> Tensor:
        """One block's estimate of each map, `(R, M) -> (R, *space)`; unbiased."""
        count = len(masks)
        if not self.centred:
            return masks.accumulate(scores.T / (count * self.p))
        free = count - (not orthogonal)  # orthogonal masks are p on average, exactly: nothing is lost to the mean score
        # The weights sum to zero, so that of `mask - p` the `p` falls out.
        weights = (scores - scores.mean(1, keepdim=True)) / (free * self.p * (1 - self.p))
        return masks.accumulate(weights.T)

    def _reach(self, maps: BlockMean) -> Tensor:
        """Half of the 95 % interval, `(R, *space)`.

        A few blocks may have drawn the same shift, and agree by that; so the variances of a map's places are pooled,
        except of two or three blocks, for which Student's factors are so wide that nothing needs to be added.
        """
        error, freedom = maps.error.flatten(1).T, maps.count - 1
        pooled = half_width(error, freedom, pooled=True)
        half = torch.where(maps.count < _FIRST_CHECK, half_width(error, freedom), pooled)
        return half.T.reshape(maps.mean.shape)

    def _block_size(self, cells: int) -> tuple[int, bool]:
        """Masks in a block, and whether they are orthogonal."""
        size = 2 << (cells - 1).bit_length()
        if self.p == 0.5 and 2 * size <= self.budget:
            return size, True
        return max(2, min(_INDEPENDENT, self.budget // 4)), False

    def _block(
        self, grid: tuple[int, ...], scorer: MaskScorer, size: int, orthogonal: bool, generator: torch.Generator
    ) -> GridMasks:
        cells = math.prod(grid)
        if orthogonal:
            values = orthogonal_block(cells, generator)
        else:
            values = (torch.rand(size, cells, generator=generator) < self.p).float()
        widths = [-(-s // (g - 1)) for s, g in zip(scorer.space, grid, strict=True)]
        kinds = 1 if orthogonal else size  # masks of one block are orthogonal only in the same place
        shifts = torch.stack([torch.randint(0, w, (kinds,), generator=generator) for w in widths], dim=1)
        device = scorer.inputs.device
        mode: Literal["linear", "nearest"] = "linear" if scorer.soft else "nearest"
        return GridMasks(values.reshape(size, *grid).to(device), scorer.space, mode, shifts.expand(size, -1).to(device))
