"""Path methods that leave the straight line, or weigh it otherwise: from blur to sharp, along the least gradients, by
what moves the score; and integrated gradients gathered in regions.

All take one batch of gradients a step, so memory does not depend on the number of steps.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.baselines import blur, make_baseline
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.heatmaps.path import IntegratedGradients
from pellucid.media.segments import felzenszwalb
from pellucid.models.targets import Target
from pellucid.progress import task
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze

_MISSED = 0.05  # of the change of score: a completeness gap above it is said


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, kw_only=True)
class PathMethod(Method):
    """Base: a walk of gradients; a subclass is its `start` and its `walk`.

    Args:
        steps: of the walk.
    """

    steps: int = 50
    complete: ClassVar[bool] = True  # whether the map sums to the change of the score

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"{self.name} needs at least 1 step.")

    def quick(self) -> Self:
        """Few steps."""
        return replace(self, steps=min(8, self.steps))

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @abstractmethod
    def walk(self, x: Tensor, start: Tensor, slope: Slope) -> Tensor:
        """The attribution `(N, C, *space)`; `slope` gives gradients and scores at inputs."""

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """Where the walk starts."""

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method and target on its own."""
        targets = freeze(job)
        return [[m._explain(job, target) for target in targets] for m in methods]

    def _explain(self, job: Job, target: Target) -> Attribution:
        x, cost = job.inputs.detach(), Cost(len(job.inputs))
        start = self.start(x)
        with Capture(job.module, watch=job.watch, input_gradient=True) as capture:
            slope = Slope(capture, target, cost)
            values = self.walk(x, start, slope).float()
            change = slope.score(x) - slope.score(start)
        if not self.complete:
            return Attribution(values, cost=cost)
        missing = (values.double().flatten(1).sum(1) - change).abs()
        gap = (missing / change.abs().clamp(min=1e-12)).tolist()
        notes = []
        if max(gap) > _MISSED:
            notes.append(f"The completeness gap is {max(gap):.1%} after {self.steps} steps: raise steps.")
        return Attribution(values, notes=notes, facts={"completeness_gap": gap}, cost=cost)


@dataclass(frozen=True, kw_only=True)
class BaselinePath(PathMethod):
    """Base: the walk starts at a baseline.

    Args:
        steps: of the walk.
        baseline: where it starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
    """

    baseline: str | Tensor = "zero"

    def start(self, x: Tensor) -> Tensor:
        """The baseline."""
        return make_baseline(self.baseline, x, torch.Generator().manual_seed(0))


class Slope:
    """Gradients and scores of a target at inputs, counted."""

    def __init__(self, capture: Capture, target: Target, cost: Cost) -> None:
        self._capture, self._target, self._cost = capture, target, cost

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient `(N, C, *space)` and the score `(N,)` in double precision."""
        _, (score,) = self._capture.scored(inputs, lambda y, w: [self._target.score(y, w)])
        (found,) = self._capture.gradients([score])
        self._cost.forwards += len(inputs)
        self._cost.backwards += len(inputs)
        return found["input"], score.detach().double()

    def score(self, inputs: Tensor) -> Tensor:
        """The score alone."""
        with torch.no_grad():
            _, (score,) = self._capture.scored(inputs, lambda y, w: [self._target.score(y, w)])
        self._cost.forwards += len(inputs)
        return score.detach().double()


def _steps(label: str, count: int) -> Iterator[int]:
    with task(label, count) as advance:
        for k in range(count):
            yield k
            advance(1)


@method(
    "blur-ig",
    family="path",
    needs="gradients",
    cost="steps (50) forwards and backwards",
    paper="Xu et al. 2020, arXiv:2004.03383, eq. 6",
)
@dataclass(frozen=True, kw_only=True)
class BlurIG(PathMethod):
    """`sum_k dy/dx(z_k) (z_k+1 - z_k)` as a picture goes from fully blurred to sharp; sums to `f(x) - f(blurred)`.

    Args:
        steps: of the walk.
        sigma: of the first blur, as a share of the picture's size.
    """

    sigma: float = 0.25

    def start(self, x: Tensor) -> Tensor:
        """The picture, blurred."""
        return blur(x, torch.Generator(), self.sigma)

    def walk(self, x: Tensor, start: Tensor, slope: Slope) -> Tensor:
        """Gradients at the middle of each step of the blur's strength."""
        values, before = torch.zeros_like(x), start
        for k in _steps(self.name, self.steps):
            share = 1 - (k + 1) / self.steps
            after = blur(x, torch.Generator(), self.sigma * share) if share else x
            values += slope((before + after) / 2)[0] * (after - before)
            before = after
        return values


@method(
    "idgi",
    family="path",
    needs="gradients",
    cost="steps (50) forwards and backwards",
    paper="Yang et al. 2023, arXiv:2303.14242, eq. 8",
)
@dataclass(frozen=True, kw_only=True)
class IDGI(BaselinePath):
    """`sum_k g^2 / |g|^2 (f(z_k+1) - f(z_k))` on the straight line: each step's change, along its gradient alone.

    What integrated gradients gathers across the gradient's direction is noise, and left out; the sum is exact.

    Args:
        steps: of the walk.
        baseline: where it starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
    """

    def walk(self, x: Tensor, start: Tensor, slope: Slope) -> Tensor:
        """Squared gradients, scaled to each step's change of score."""
        values, (g, before) = torch.zeros_like(x), slope(start)
        for k in _steps(self.name, self.steps):
            following, after = slope(start + (k + 1) / self.steps * (x - start))
            square = g.square()
            total = square.flatten(1).sum(1).double().clamp(min=torch.finfo(x.dtype).tiny)
            values += square * _column((after - before) / total, x)
            g, before = following, after
        return values


@method(
    "integrated-decision-gradients",
    family="path",
    needs="gradients",
    cost="2 steps (50) forwards, and steps backwards",
    paper="Walker et al. 2024, arXiv:2305.20052, eq. 4",
)
@dataclass(frozen=True, kw_only=True)
class IntegratedDecisionGradients(BaselinePath):
    """`(x - x') * integral of df/dx df/da da`: gradients count where the score moves, not where it is saturated.

    Nodes stand where the score moves, by a first walk without gradients. The map sums to nothing in particular.

    Args:
        steps: of the walk.
        baseline: where it starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
    """

    complete: ClassVar[bool] = False

    def walk(self, x: Tensor, start: Tensor, slope: Slope) -> Tensor:
        """Nodes at even shares of the score's movement, each weighed by its change of score."""
        even = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64, device=x.device)
        scores = torch.stack([slope.score(start + float(a) * (x - start)) for a in even], 1)
        moved = scores.diff(dim=1).abs() + 1e-3 * (scores.amax(1) - scores.amin(1))[:, None] + 1e-12
        passed = torch.cat([torch.zeros_like(moved[:, :1]), moved.cumsum(1)], 1)
        passed = passed / passed[:, -1:]
        right = torch.searchsorted(passed, even.expand(len(x), -1).contiguous()).clamp(1, self.steps)
        low, high = passed.gather(1, right - 1), passed.gather(1, right)
        nodes = (right - 1 + (even - low) / (high - low).clamp(min=1e-12)) / self.steps
        values, before = torch.zeros_like(x), scores[:, 0]
        for k in _steps(self.name, self.steps):
            middle = (nodes[:, k] + nodes[:, k + 1]) / 2
            g, _ = slope(start + _column(middle, x) * (x - start))
            after = slope.score(start + _column(nodes[:, k + 1], x) * (x - start))
            values += g * _column(after - before, x)
            before = after
        return values * (x - start)


@method(
    "guided-ig",
    family="path",
    needs="gradients",
    cost="up to 3 steps (50) forwards and backwards",
    paper="Kapishnikov et al. 2021, arXiv:2106.09788, algorithm 1",
)
@dataclass(frozen=True, kw_only=True)
class GuidedIG(BaselinePath):
    """Integrated gradients on a path that moves the values of least `|dy/dx|` first; sums to `f(x) - f(x')`.

    Each step must shorten the way to the input by its share; values that the straight path would have left behind are
    moved up to it. So noise of steep places that cancel out is not gathered.

    Args:
        steps: of the walk.
        baseline: where it starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
        fraction: of the values that may move at a time.
        distance: how far a value may stay behind the straight path, as a share of the way.
    """

    fraction: float = 0.25
    distance: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction <= 1 or not 0 <= self.distance <= 1:
            raise MethodError("The fraction of guided-ig lies above 0 and up to 1, its distance between 0 and 1.")

    def walk(self, x: Tensor, start: Tensor, slope: Slope) -> Tensor:
        """One picture after the other: each has a path of its own."""
        # A picture's path is as long as it needs to be, so pictures of a batch are walked side by side until all are.
        goal, origin, shape = x.flatten(1), start.flatten(1), x.shape
        here, values = origin.clone(), torch.zeros_like(goal)
        whole = (goal - origin).abs().sum(1)
        for k in _steps(self.name, self.steps):
            share = (k + 1) / self.steps
            nearest = origin + (goal - origin) * max(share - self.distance, 0.0)
            farthest = origin + (goal - origin) * min(share + self.distance, 1.0)
            wanted = whole * (1 - share)
            active = torch.ones(len(x), dtype=torch.bool, device=x.device)
            for _ in range(3):
                g = slope(here.reshape(shape))[0].flatten(1)
                moved = torch.where(self._behind(here, nearest, origin, goal), nearest, here)
                values += torch.where(active[:, None], (moved - here) * g, 0.0)
                here = torch.where(active[:, None], moved, here)
                left = (goal - here).abs().sum(1)
                active = active & (left > wanted + 1e-6 * whole.clamp(min=1e-12))
                if not active.any():
                    break
                movable = (farthest - here).abs() > 1e-12
                size = torch.where(movable, g.abs(), math.inf)
                bound = size.kthvalue(max(1, int(self.fraction * size.shape[1])), dim=1, keepdim=True).values
                chosen = movable & (size <= bound)
                room = torch.where(chosen, (farthest - here).abs(), 0.0).sum(1)
                part = torch.where(active, ((left - wanted) / room.clamp(min=1e-12)).clamp(max=1.0), 0.0)
                step = torch.where(chosen, (farthest - here) * part[:, None].to(here), 0.0)
                values += step * g
                here = here + step
            # Whatever is still missing of this step is taken straight.
            left = (goal - here).abs().sum(1)
            part = torch.where(left > wanted, 1 - wanted / left.clamp(min=1e-12), 0.0)[:, None].to(here)
            if bool((part > 1e-6).any()):
                g = slope((here + part / 2 * (goal - here)).reshape(shape))[0].flatten(1)
                values += part * (goal - here) * g
                here = here + part * (goal - here)
        return values.reshape(shape)

    @staticmethod
    def _behind(here: Tensor, nearest: Tensor, origin: Tensor, goal: Tensor) -> Tensor:
        return (nearest - here) * (goal - origin) > 0


@method(
    "xrai",
    family="path",
    needs="gradients",
    cost="68 forwards, and 2 x steps (24) forwards and backwards",
    paper="Kapishnikov et al. 2019, arXiv:1906.02825, algorithm 1",
)
@dataclass(frozen=True, kw_only=True)
class XRAI(Method):
    """Integrated gradients summed in regions of many sizes, which are taken by their gain a pixel. `(N, H, W)`.

    Each pixel's value is the mean attribution of the part of the region with which it was taken. The integral starts
    from the least and from the greatest value of each channel, so that neither black nor white pixels are blind.

    Args:
        steps: gradients on each path.
        scales: of the segmentations (Felzenszwalb & Huttenlocher).
        least: pixels that a region must add, else what it adds is left.
    """

    steps: int = 24
    scales: tuple[float, ...] = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
    least: int = 16

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.scales:
            raise MethodError("xrai needs at least 1 step and one scale.")

    def quick(self) -> Self:
        """Fewer steps."""
        return replace(self, steps=min(8, self.steps))

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method on its own."""
        return [m._all(job) for m in methods]

    def _all(self, job: Job) -> list[Attribution]:
        if len(job.space) != 2:
            raise MethodError(f"xrai cuts pictures into regions; this input has {len(job.space)} space axes.")
        x, cost = job.inputs.detach(), Cost()
        dims = (2, 3)
        found: list[list[Attribution]] = []
        for end in (x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)):
            ig = IntegratedGradients(baseline=end.expand_as(x), tolerance=None, max_steps=self.steps)
            found += IntegratedGradients.run([ig], job)
            cost.forwards += found[-1][0].cost.forwards * len(job.targets)
            cost.backwards += found[-1][0].cost.backwards * len(job.targets)
        regions = [[felzenszwalb(each, scale=s, min_size=20) for s in self.scales] for each in x]
        attributions = []
        for k in range(len(job.targets)):
            pixels = (found[0][k].values + found[1][k].values).sum(1) / 2
            maps = [self._ranked(p.double().cpu(), r) for p, r in zip(pixels, regions, strict=True)]
            attributions.append(Attribution(torch.stack(maps).to(x).float(), cost=cost))
        return attributions

    def _ranked(self, pixels: Tensor, segmentations: Sequence[Tensor]) -> Tensor:
        """Regions by gain a pixel, greedily; `(H, W)`."""
        masks = [labels == k for labels in segmentations for k in range(int(labels.max()) + 1)]
        stack = torch.stack(masks).flatten(1).double()
        free, flat = torch.ones(pixels.numel(), dtype=torch.float64), pixels.flatten()
        values, left = torch.zeros_like(flat), list(range(len(masks)))
        while left and free.any():
            size = stack[left] @ free
            gain = torch.where(size >= self.least, (stack[left] @ (free * flat)) / size.clamp(min=1), -math.inf)
            best = int(gain.argmax())
            if gain[best] == -math.inf:
                break
            taken = (stack[left[best]] * free).bool()
            values[taken] = gain[best]
            free[taken] = 0.0
            left.pop(best)
        rest = free.bool()
        if rest.any():
            values[rest] = flat[rest].mean()
        return values.reshape(pixels.shape)
