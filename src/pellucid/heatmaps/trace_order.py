"""How far any ranking of the picture can go: the order of its cells, fitted to the insertion and deletion curves.

A map is judged by the curves of its ranking. Fitting the ranking to the curves themselves, with no map in between,
bounds what any map of that grid can reach: a random order is the floor of the bracket, this is its ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pellucid.engine.masks import SegmentMasks, grid_labels
from pellucid.engine.perturb import MaskScorer
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.heatmaps.sampling import cells_per_axis
from pellucid.scoring.job import Job
from pellucid.scoring.masked import masked

_STREAM = 0x7BACE  # sets the exchanges' random numbers apart from those of a random baseline with the same seed


@method(
    "trace-order",
    family="perturbation",
    needs="outputs",
    cost="some 900 forwards, and up to 4 a cell in each of 2 sweeps; tried=None: cells (cells + 1) (2450), and these",
    paper="Wang & Wang 2024, ICML, Benchmarking Deletion Metrics with the Principled Explanations (TRACE)",
)
@dataclass(frozen=True, kw_only=True)
class TraceOrder(PerturbationMethod):
    """`argmax_order sum_k f(first k cells) - f(all but the first k)`, greedily: a bracket, not a map. `(N, *grid)`.

    Cells are taken one by one, each time the one that does best next. Then neighbours in the order change places, and
    cells a few ranks apart, drawn at random, wherever that raises the sum. A cell's value is its rank: 1 for the
    first, down to `1 / cells` for the last; the sizes mean nothing else.

    Args:
        cells: grid cells on the longest axis, the others in proportion, or a number for each axis.
        curve: `both`; or `deletion` (the second term alone) or `insertion` (the first), for half the cost.
        tried: how many cells are tried for each rank after the first: those that gained most when they last were (after
            Minoux 1978: where gains never grow, only cells that cannot win are passed over); None: all.
        ranks: so many ranks are searched like that; each further one goes to the cell that gained most when it last was
            tried. None: all.
        sweeps: rounds of exchanges after the greedy order; it ends early where a round changes nothing.
        baseline: what shows where a cell is hidden: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the exchanges and of a random baseline.
    """

    dear: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    cells: int | tuple[int, ...] = 7
    curve: Literal["both", "deletion", "insertion"] = "both"
    tried: int | None = 8
    ranks: int | None = None
    sweeps: int = 2
    baseline: str | Tensor = "blur"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.curve not in ("both", "deletion", "insertion") or self.sweeps < 0:
            raise MethodError("The curve of trace-order is `both`, `deletion` or `insertion`, its sweeps 0 or more.")
        if min(self.tried or 1, self.ranks or 1) < 1 or 0 in (self.tried, self.ranks):
            raise MethodError(
                f"Cells tried for a rank, and ranks searched, are 1 or more, or None for all; got {self.tried} and "
                f"{self.ranks}."
            )

    def quick(self) -> TraceOrder:
        """At most 4 cells along an axis, no exchanges."""
        few = min(4, self.cells) if isinstance(self.cells, int) else tuple(min(4, c) for c in self.cells)
        return replace(self, cells=few, sweeps=0)

    def perturb(self, job: Job) -> list[Attribution]:
        """One order for each input and target; all inputs go step by step together."""
        with masked(job, self.baseline, self.seed) as scorer:
            grid = cells_per_axis(self.cells, scorer.space)
            labels = grid_labels(scorer.space, grid).to(job.inputs.device)
            return [self._bracket(scorer, t, labels, grid) for t in range(len(job.targets))]

    def _bracket(self, scorer: MaskScorer, target: int, labels: Tensor, grid: tuple[int, ...]) -> Attribution:
        count, cells = len(scorer.inputs), math.prod(grid)

        def scores(first: Tensor) -> tuple[Tensor, Tensor]:
            """Insertion and deletion scores `(N, M)` of the cells taken so far, `(N, M, cells)`."""
            both = torch.cat([first, 1 - first], 1)
            values = scorer([SegmentMasks(m, labels) for m in both], label=self.name)[:, :, target]
            return values[:, : first.shape[1]], values[:, first.shape[1] :]

        def gain(first: Tensor) -> Tensor:
            """What a set of first cells adds to the sum, `(N, M, cells) -> (N, M)`."""
            if self.curve == "both":
                inserted, deleted = scores(first)
                return inserted - deleted
            kept = first if self.curve == "insertion" else 1 - first
            values = scorer([SegmentMasks(m, labels) for m in kept], label=self.name)[:, :, target]
            return values if self.curve == "insertion" else -values

        tried = [self.tried or cells if k < (self.ranks or cells) else 1 for k in range(cells)]
        order, gains = _greedy(gain, count, [cells, *tried[1:]], scorer.inputs.device)
        generator = torch.Generator().manual_seed(self.seed + _STREAM)
        for _ in range(self.sweeps):
            won = [_exchange(gain, order, gains, windows) for windows in _windows(cells, generator)]
            if not any(won):
                break
        inserted, deleted = scores(_prefixes(order))
        facts = {
            "insertion_area": torch.trapezoid(inserted, dx=1 / cells).tolist(),
            "deletion_area": torch.trapezoid(deleted, dx=1 / cells).tolist(),
        }
        rank = order.argsort(1)
        values = (1 - rank / cells).reshape(count, *grid).float()
        extras = {"order": order, "insertion": inserted.float(), "deletion": deleted.float()}
        return Attribution(values, facts=facts, extras=extras, cost=scorer.cost)


def _prefixes(order: Tensor) -> Tensor:
    """Which cells belong to the first k, for k from 0 to all: `(N, cells) -> (N, cells + 1, cells)`."""
    rank = order.argsort(1)
    return (rank[:, None] < torch.arange(order.shape[1] + 1, device=order.device)[:, None]).float()


def _greedy(
    gain: Callable[[Tensor], Tensor], count: int, tried: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Orders `(N, cells)` of the best next cell, and the gain of the first k cells, k = 1 to cells - 1.

    For each rank so many are tried, those that added most when they last were.
    """
    cells = len(tried)
    taken = torch.zeros(count, cells, device=device)
    added = torch.full((count, cells), torch.inf, dtype=torch.float64, device=device)  # by each, when last tried
    order = torch.empty(count, cells, dtype=torch.long, device=device)
    gains = torch.empty(count, cells - 1, dtype=torch.float64, device=device)
    rows = torch.arange(count, device=device)
    some = any(few < cells - k for k, few in enumerate(tried))
    before = gain(taken[:, None]) if some else torch.zeros(count, 1, dtype=torch.float64, device=device)
    for k in range(cells):
        left = (taken == 0).nonzero()[:, 1].reshape(count, cells - k)
        if k == cells - 1:
            order[:, k] = left[:, 0]
            break
        if tried[k] < cells - k:
            left = left.gather(1, added.gather(1, left).topk(tried[k]).indices.sort().values)
        sets = taken[:, None].repeat(1, left.shape[1], 1).scatter_(2, left[:, :, None], 1.0)
        found = gain(sets)
        added.scatter_(1, left, found - before)
        best = found.max(1)
        before = best.values[:, None]
        order[:, k], gains[:, k] = left[rows, best.indices], best.values
        taken[rows, order[:, k]] = 1.0
    return order, gains


def _windows(cells: int, generator: torch.Generator) -> list[list[tuple[int, int]]]:
    """Three sets of pairs of ranks whose ranges are disjoint: neighbours from each of two starts, and random ones."""
    neighbours = [[(a, a + 1) for a in range(start, cells - 1, 2)] for start in (0, 1)]
    apart: list[tuple[int, int]] = []
    at = 0
    while True:
        width = int(torch.randint(2, 6, (), generator=generator))
        if at + width >= cells:
            return [*neighbours, apart]
        apart.append((at, at + width))
        at += width + 1


def _exchange(gain: Callable[[Tensor], Tensor], order: Tensor, gains: Tensor, windows: list[tuple[int, int]]) -> bool:
    """Try to exchange the two cells of each window, at once: ranges are disjoint, so no one changes another's sets.

    Writes to `order` and `gains`; says whether anything got better.
    """
    if not windows:
        return False
    tried = order.clone()
    for a, b in windows:
        tried[:, a], tried[:, b] = order[:, b], order[:, a]
    ranks = [k for a, b in windows for k in range(a + 1, b + 1)]  # how many cells the changed sets hold
    new = gains.clone()
    new[:, [k - 1 for k in ranks]] = gain(_prefixes(tried)[:, ranks])
    better = False
    for a, b in windows:
        won = new[:, a:b].sum(1) > gains[:, a:b].sum(1) + 1e-12
        gains[won, a:b] = new[won, a:b]
        order[won, a], order[won, b] = tried[won, a], tried[won, b]
        better |= bool(won.any())
    return better
