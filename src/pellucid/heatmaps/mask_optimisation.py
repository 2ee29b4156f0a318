"""Mask optimisation: the mask itself is fitted, by gradient descent, until it hides or shows what the score lives on.

With `m` a mask (1 shows the picture `x`, 0 its baseline `b`), drawn from a coarse grid, the model sees
`P(m) = m x + (1 - m) b`. The methods differ in what they ask of the score `s(m)` and of the mask. So that their weights
mean the same for every score, it is measured on the way from baseline to picture: `s(m) = (f(P(m)) - f(b)) / |f(x) -
f(b)|`; the papers take softmax probabilities instead. A probability has ends, a score has none: what is left counts as
0 once it is below the baseline's score, and what is brought back as 1 once it is above the picture's. Otherwise all
that speaks for another answer would be worth deleting too.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from pellucid.engine import Capture, Cost, adaptive_batches, default_batch
from pellucid.engine.baselines import make_baseline
from pellucid.engine.masks import GridMasks
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.heatmaps.sampling import cells_per_axis
from pellucid.models.targets import Target
from pellucid.progress import task
from pellucid.scoring.job import Job

_CELLS = 784  # in all, of a grid that is not given: 28 x 28 on a square picture
_STREAM = 0x51F15EED  # sets the jitter's random numbers apart from those of a random baseline with the same seed
_MOST_CELLS = 4096  # the smooth maximum compares every cell with every other


def fitting_grid(cells: int | tuple[int, ...] | None, space: Sequence[int]) -> tuple[int, ...]:
    """The mask's grid: what the user gave (see `cells_per_axis`), or some 784 about cubic cells over all axes."""
    if cells is not None:
        return cells_per_axis(cells, space)
    free, grid = list(range(len(space))), [0] * len(space)
    budget = float(_CELLS)
    while free:  # an axis shorter than its share (few frames) gives the rest to the others
        edge = (budget / math.prod(space[a] for a in free)) ** (1 / len(free))
        short = [a for a in free if space[a] * edge < 2 or edge > 1] or free
        for a in short:
            grid[a] = min(space[a], max(2, round(space[a] * edge)))
            budget = max(1.0, budget / grid[a])
        free = [a for a in free if a not in short]
    return tuple(grid)


class Blend:
    """The normalised score of masked inputs, differentiable in the masks; the model's own graph is cut at its input.

    Args:
        capture: an open `Capture` with `input_gradient`.
        target: frozen.
        inputs: `(N, C, *space)`.
        baseline: `(N, C, *space)`.
        cost: grows with every pass.
    """

    def __init__(self, capture: Capture, target: Target, inputs: Tensor, baseline: Tensor, cost: Cost) -> None:
        self.capture, self.target, self.inputs, self.baseline, self.cost = capture, target, inputs, baseline, cost
        self.batch = default_batch(inputs)
        self.low = self.high = torch.zeros(len(inputs), device=inputs.device)
        rows = torch.arange(len(inputs), device=inputs.device)
        self.low, self.high = self._plain(baseline, rows), self._plain(inputs, rows)

    @property
    def span(self) -> Tensor:
        """`|f(x) - f(b)|`, `(N,)`; zero where nothing can be explained."""
        return (self.high - self.low).abs()

    def score(self, masks: Tensor, rows: Tensor, shift: Sequence[int] = ()) -> Tensor:
        """`s(m)`, `(R,)`, of masks `(R, *grid)` over the inputs `rows` `(R,)`; the picture is rolled by `shift`."""
        drawn = GridMasks(masks, tuple(self.inputs.shape[2:]), "linear").render(slice(None)).to(self.inputs)
        shown = torch.lerp(self.baseline[rows], self.inputs[rows], drawn)
        if any(shift):
            shown = shown.roll(tuple(shift), tuple(range(2, shown.ndim)))
        values = torch.empty(len(rows), device=rows.device)
        slopes = torch.empty_like(shown, requires_grad=False)

        def run(start: int, stop: int) -> None:
            chosen = self.target.select(rows[start:stop])
            _, scores = self.capture.scored(shown[start:stop].detach(), lambda y, w: [chosen.score(y, w)])
            values[start:stop] = scores[0].detach().float()
            slopes[start:stop] = self.capture.gradients(scores)[0]["input"]

        self.batch = adaptive_batches(run, len(rows), self.batch)
        self.cost.forwards += len(rows)
        self.cost.backwards += len(rows)
        # Equal to the score in value and in gradient, since the second term is zero with slope `slopes`.
        linear = values + ((shown - shown.detach()) * slopes).flatten(1).sum(1).float()
        return (linear - self.low[rows]) / self.span[rows].clamp(min=1e-12)

    def _plain(self, inputs: Tensor, rows: Tensor) -> Tensor:
        values = torch.empty(len(rows), device=rows.device)

        def run(start: int, stop: int) -> None:
            chosen = self.target.select(rows[start:stop])
            output = self.capture.forward(inputs[start:stop])
            values[start:stop] = chosen.score(output, self.capture.watched).detach().float()

        with torch.no_grad():
            self.batch = adaptive_batches(run, len(rows), self.batch)
        self.cost.forwards += len(rows)
        return values


def descend(
    masks: Sequence[Tensor], loss: Callable[[int], Tensor], iterations: int, rate: float, label: str
) -> list[float]:
    """Adam with projection of the masks to 0..1, in place; returns the losses, summed over the rows."""
    adam, losses = torch.optim.Adam(list(masks), lr=rate), []
    with task(label, iterations) as advance:
        for i in range(iterations):
            value = loss(i).sum()
            for mask, gradient in zip(masks, torch.autograd.grad(value, list(masks)), strict=True):
                mask.grad = gradient
            adam.step()
            with torch.no_grad():
                for mask in masks:
                    mask.clamp_(0, 1)
            losses.append(float(value.detach()))
            advance(1)
    return losses


def variation(masks: Tensor, power: float, weights: Sequence[Tensor] | None = None) -> Tensor:
    """Mean over the cells of `|difference to the next cell|^power`, summed over the axes: `(R, *grid) -> (R,)`."""
    cells = math.prod(masks.shape[1:])
    total = torch.zeros(len(masks), device=masks.device)
    for axis in range(1, masks.ndim):
        steps = masks.diff(dim=axis).abs().pow(power)
        total = total + (steps if weights is None else steps * weights[axis - 1]).flatten(1).sum(1) / cells
    return total


@dataclass(frozen=True, kw_only=True)
class MaskOptimisation(PerturbationMethod):
    """Base: opens the model once, runs a fit for each target, and says what came of it."""

    signed: ClassVar[bool] = False

    iterations: int = 100
    cells: int | tuple[int, ...] | None = None
    rate: float = 0.1
    baseline: str | Tensor = "blur"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.rate > 0:
            raise MethodError(f"{self.name} needs at least one iteration and a rate above 0.")

    def quick(self) -> MaskOptimisation:
        """At most 30 iterations."""
        return replace(self, iterations=min(30, self.iterations))

    def perturb(self, job: Job) -> list[Attribution]:
        """One fit per target, of all inputs side by side; they do not influence each other."""
        grid = self.grid(job.space)
        inputs = job.inputs.detach()
        baseline = make_baseline(self.baseline, inputs, torch.Generator().manual_seed(self.seed))
        cost, found = Cost(), []
        with Capture(job.module, watch=job.watch, input_gradient=True) as capture:
            with torch.no_grad():
                output = capture.forward(inputs)
                targets = [target.freeze(output) for target in job.targets]
            cost.forwards += len(inputs)
            for target in targets:
                blend = Blend(capture, target, inputs, baseline, cost)
                fitted = self.fit(blend, grid)
                fitted.cost = cost
                still = blend.span <= 1e-6 * torch.maximum(blend.low.abs(), blend.high.abs())
                if still.any():
                    fitted.values = torch.where(still.reshape(-1, *[1] * len(grid)), 0.0, fitted.values)
                    fitted.notes.append(
                        "The picture and its baseline score the same, so the map is zero: choose another baseline or "
                        "target."
                    )
                found.append(fitted)
        return found

    def grid(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """The mask's cells along each axis of the input."""
        return fitting_grid(self.cells, space)

    @abstractmethod
    def fit(self, blend: Blend, grid: tuple[int, ...]) -> Attribution:
        """Fit the masks of all inputs; the map is `(N, *grid)`."""

    def shifts(self, space: Sequence[int], most: Sequence[int]) -> list[tuple[int, ...]]:
        """A random shift for each iteration, of at most so many places along each axis either way."""
        generator = torch.Generator().manual_seed(self.seed + _STREAM)
        drawn = torch.rand(self.iterations, len(space), generator=generator)
        reach = torch.tensor(most)
        return [tuple(row) for row in (drawn * (2 * reach + 1)).long().sub(reach).tolist()]


@method(
    "meaningful-perturbation",
    family="mask",
    needs="gradients",
    cost="1 forward and 1 backward an iteration (100)",
    paper="Fong & Vedaldi 2017, arXiv:1704.03296, sec. 4",
)
@dataclass(frozen=True, kw_only=True)
class MeaningfulPerturbation(MaskOptimisation):
    """`1 - m` for the mask that minimises `s(m) + a mean(1 - m) + v TV_3(m)`: the least that must go. `(N, *grid)`.

    The picture is shifted by a few random pixels at each iteration, so that the mask cannot live on a fine pattern
    that only this one position shows to the model.

    Args:
        area_weight: a, price of deleting everything, in units of the score (the paper's, for probabilities, is 0.08).
        smooth_weight: v, of the cubed differences between neighbours, mean over the cells (the paper: 7.8).
        jitter: largest shift in pixels; None: a 56th of each axis, 4 pixels of 224.
        iterations: steps of Adam.
        cells: of the mask on the longest axis, or for each axis; None: some 784 in all, 28 x 28 on a square.
        rate: of Adam.
        baseline: what shows where the mask is 0: `zero`, `mean`, `blur`, `uniform`, or a tensor.
        seed: of the shifts and of a random baseline.
    """

    area_weight: float = 0.2
    smooth_weight: float = 7.8
    jitter: int | None = None

    def fit(self, blend: Blend, grid: tuple[int, ...]) -> Attribution:
        """From the mask that deletes nothing."""
        space = tuple(blend.inputs.shape[2:])
        rows = torch.arange(len(blend.inputs), device=blend.inputs.device)
        shifts = self.shifts(space, [s // 56 if self.jitter is None else self.jitter for s in space])
        mask = torch.ones(len(rows), *grid, device=rows.device, requires_grad=True)

        def loss(i: int) -> Tensor:
            price = self.area_weight * (1 - mask).flatten(1).mean(1)
            left = blend.score(mask, rows, shifts[i]).clamp(min=0)
            return left + price + self.smooth_weight * variation(mask, 3)

        descend([mask], loss, self.iterations, self.rate, self.name)
        left = blend.score(mask, rows).detach()
        deleted = 1 - mask.detach()
        facts = {"score_left": left.tolist(), "area_deleted": deleted.flatten(1).mean(1).tolist()}
        return Attribution(deleted, facts=facts)


@method(
    "extremal-perturbation",
    family="mask",
    needs="gradients",
    cost="1 forward and 1 backward an iteration (100) and area",
    paper="Fong et al. 2019, arXiv:1910.08485, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class ExtremalPerturbation(MaskOptimisation):
    """`argmax_m s(m) - w |sort(m) - r_a|^2`: the part of a given area `a` that scores most, shown alone. `(N, *grid)`.

    `r_a` is 0 for a share `1 - a` of the cells and 1 for the rest, so that the regulariser asks for an area without
    asking where. Masks are smooth maxima of shifted kernels, `m(u) = smax_v k(u - v) p(v)`, which bounds how fast they
    change; soft edges never fit `r_a` quite, so the mean of the mask is held to `a` by a term of its own. With several
    areas the map is the mean of their masks: high where already the smallest mask shows.

    Args:
        areas: shares of the picture to show, each fitted by itself.
        area_weight: w at the end; it grows a thousandfold on the way, so that the score chooses the place first.
        smoothing: radius of the kernel's flat top in cells; 0: cells are independent.
        iterations: steps of Adam.
        cells: of the mask on the longest axis, or for each axis; None: some 784 in all, 28 x 28 on a square.
        rate: of Adam.
        baseline: what shows where the mask is 0: `zero`, `mean`, `blur`, `uniform`, or a tensor.
        seed: of a random baseline.
    """

    areas: tuple[float, ...] = (0.1,)
    area_weight: float = 300.0
    smoothing: float = 0.5
    rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.areas or any(not 0 < a < 1 for a in self.areas):
            raise MethodError(f"Areas are shares between 0 and 1, such as (0.1,); got {self.areas}.")

    def fit(self, blend: Blend, grid: tuple[int, ...]) -> Attribution:
        """All inputs and areas side by side, from the mask that shows half of everything."""
        cells, count, device = math.prod(grid), len(blend.inputs), blend.inputs.device
        if cells > _MOST_CELLS and self.smoothing > 0:
            raise MethodError(
                f"A mask of {cells} cells is too fine to be smoothed: give cells of {_MOST_CELLS} in all."
            )
        rows = torch.arange(count, device=device).repeat_interleave(len(self.areas))
        kernel = _kernel(grid, self.smoothing).to(device) if self.smoothing > 0 else None
        reference = torch.stack([_ramp(cells, a) for a in self.areas]).repeat(count, 1).to(device)
        coarse = torch.full((len(rows), *grid), 0.5, device=device, requires_grad=True)

        def mask() -> Tensor:
            return coarse if kernel is None else smooth_maximum(coarse, kernel)

        def loss(i: int) -> Tensor:
            m = mask()
            # At first all cells are equal, and sorting them would choose by their numbers.
            weight = self.area_weight * math.pow(_GROWTH, i / max(1, self.iterations - 1) - 1) if i else 0.0
            ranked = m.flatten(1).sort(1).values
            excess = (ranked - reference).mean(1)  # soft edges leave some, which the squares alone would bear
            return weight * ((ranked - reference).square().mean(1) + 30 * excess.square()) - blend.score(m, rows)

        descend([coarse], loss, self.iterations, self.rate, self.name)
        with torch.no_grad():
            masks = mask().detach()
        shown = blend.score(masks, rows).detach()
        facts = {
            f"{what}_{a:g}": value.tolist()
            for what, values in (("score", shown), ("area", masks.flatten(1).mean(1)))
            for a, value in zip(self.areas, values.reshape(count, -1).T, strict=True)
        }
        masks = masks.reshape(count, len(self.areas), *grid)
        return Attribution(masks.mean(1), facts=facts, extras={"masks": masks})


_GROWTH = 1000.0
_TEMPERATURE = 1 / 20  # of the smooth maximum, as in the paper
_REACH = 0.02  # kernel values below are taken for 0


def _ramp(cells: int, area: float) -> Tensor:
    """`r_a`: zeros, then ones."""
    return (torch.arange(cells) >= cells - round(area * cells)).float()


def _kernel(grid: Sequence[int], radius: float) -> Tensor:
    """`k(u - v) = exp(-max(0, |u - v| / radius - 1)^2 / 4)` between all cells, `(cells, cells)`; 0 far away."""
    at = torch.cartesian_prod(*[torch.arange(g, dtype=torch.float32) for g in grid]).reshape(-1, len(grid))
    values = torch.exp(-0.25 * (torch.cdist(at, at) / radius - 1).clamp(min=0).square())
    return torch.where(values < _REACH, 0.0, values)


def smooth_maximum(coarse: Tensor, kernel: Tensor) -> Tensor:
    """`smax_v k(u - v) p(v)`, `(R, *grid)`: a mean with weights `exp(value / temperature)` over the kernel's reach."""
    values = coarse.flatten(1)[:, None] * kernel  # (R, cells, cells)
    weights = (values / _TEMPERATURE).masked_fill(kernel == 0, -math.inf).softmax(-1)
    maximum: Tensor = (weights * values).sum(-1)
    return maximum.reshape(coarse.shape)


@method(
    "igos++",
    family="mask",
    needs="gradients",
    cost="4 forwards and 4 backwards a node (5) of an iteration (20)",
    paper="Khorram et al. 2021, arXiv:2012.15783",
)
@dataclass(frozen=True, kw_only=True)
class IGOSPlusPlus(MaskOptimisation):
    """`1 - m`, `m = m_d m_i`: a mask fitted to delete the score, times one fitted to bring it back. `(N, *grid)`.

    Minimises `D(m_d) + D(m) - I(m_i) - I(m) + a mean(1 - m) + v BTV(m)`, where `D(m)`, the score left of `m`, and
    `I(m)`, the score of what `m` takes away, are means over the path from 0 to the mask: `D(m) = mean_j s(j m / J)`,
    `I(m) = mean_j s(1 - j m / J)`. The path's gradient points to what changes the score for good, and not only next
    to a saturated mask. `BTV` is a total variation that costs little across edges of the picture.

    Args:
        nodes: J, of the integrated gradient.
        area_weight: a, price of deleting everything.
        smooth_weight: v.
        edge: step between neighbouring cells, in shares of the picture's range, that counts as an edge.
        iterations: steps of Adam.
        cells: of the mask on the longest axis, or for each axis; None: some 784 in all, 28 x 28 on a square.
        rate: of Adam.
        baseline: what shows where the mask is 0: `zero`, `mean`, `blur`, `uniform`, or a tensor.
        seed: of a random baseline.
    """

    nodes: int = 5
    area_weight: float = 1.0
    smooth_weight: float = 20.0
    edge: float = 0.1
    iterations: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes < 1 or not self.edge > 0:
            raise MethodError("igos++ needs at least one node and an edge above 0.")

    def quick(self) -> IGOSPlusPlus:
        """At most 10 iterations of 3 nodes."""
        return replace(self, iterations=min(10, self.iterations), nodes=min(3, self.nodes))

    def fit(self, blend: Blend, grid: tuple[int, ...]) -> Attribution:
        """From masks that delete nothing."""
        count, device = len(blend.inputs), blend.inputs.device
        weights = _edge_weights(blend.inputs, grid, self.edge)
        delete, insert = (torch.ones(count, *grid, device=device, requires_grad=True) for _ in range(2))
        steps = [(j + 1) / self.nodes for j in range(self.nodes)]
        rows = torch.arange(count, device=device)

        def loss(_: int) -> Tensor:
            both = delete * insert
            shown = [v for j in steps for v in (j * delete, 1 - j * insert, j * both, 1 - j * both)]
            scores = blend.score(torch.cat(shown), rows.repeat(len(shown))).reshape(self.nodes, 4, count)
            left, alone = scores[:, 0::2].clamp(min=0), scores[:, 1::2].clamp(max=1)
            regular = self.area_weight * (1 - both).flatten(1).mean(1)
            return (left - alone).sum((0, 1)) / self.nodes + regular + self.smooth_weight * variation(both, 2, weights)

        descend([delete, insert], loss, self.iterations, self.rate, self.name)
        mask = (delete * insert).detach()
        left, alone = (blend.score(m, rows).detach() for m in (mask, 1 - mask))
        facts = {
            "score_left": left.tolist(),
            "score_alone": alone.tolist(),
            "area_deleted": (1 - mask).flatten(1).mean(1).tolist(),
        }
        extras = {"deletion": 1 - delete.detach(), "insertion": 1 - insert.detach()}
        return Attribution(1 - mask, facts=facts, extras=extras)


def _edge_weights(inputs: Tensor, grid: tuple[int, ...], edge: float) -> list[Tensor]:
    """`exp(-(step of the picture / edge)^2)` between neighbouring cells, for each axis."""
    pool: dict[int, Callable[..., Tensor]] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
    x = inputs.float()
    dims = tuple(range(1, x.ndim))
    spread = (x.amax(dims, keepdim=True) - x.amin(dims, keepdim=True)).clamp(min=1e-12)
    small = pool[len(grid)](x / spread, grid)
    return [(-(small.diff(dim=axis) / edge).square().mean(1)).exp() for axis in range(2, small.ndim)]
