"""Path methods at a layer: what its cells add on the way from a baseline to the input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.baselines import make_baseline
from pellucid.engine.capture import find_layer
from pellucid.engine.hooks import Hooks
from pellucid.engine.leaves import replace_first_tensor
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.newer_cams import LayerPasses
from pellucid.models.layers import Layer
from pellucid.models.targets import Target
from pellucid.progress import task
from pellucid.scoring.job import Job

_MISSED = 0.05  # of the change of score: a gap above it is said


@dataclass
class _Way:
    """A layer of a network on the way from a baseline to the inputs.

    Attributes:
        job: what is explained; target: which score.
        layer: where.
        x: inputs; start: the baseline of each.
        cost: counts every pass.
    """

    job: Job
    target: Target
    layer: Layer
    x: Tensor
    start: Tensor
    cost: Cost

    def at(self, inputs: Tensor, activation: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's activation, the gradient of the score to it, and the score `(N,)` in double precision.

        With an `activation`, that one stands in its place.
        """
        name = self.layer.name
        with Capture(self.job.module, [name], watch=self.job.watch, runs={name: self.layer.runs}) as capture:
            with given_activation(capture, name, activation):
                _, (score,) = capture.scored(inputs, lambda y, w: [self.target.score(y, w)])
            (found,) = capture.gradients([score])
            self.cost.forwards += len(inputs)
            self.cost.backwards += len(inputs)
            return capture.activations[name].detach(), found[name], score.detach().double()


@contextmanager
def given_activation(capture: Capture, name: str, activation: Tensor | None) -> Iterator[None]:
    """Inside, the layer answers this activation; None: its own."""
    with Hooks() as hooks:
        if activation is not None:
            layer, value = find_layer(capture.module, name), activation
            hooks.behind(layer, lambda _m, _a, output: replace_first_tensor(output, value.clone()), first=True)
        yield


@dataclass(frozen=True, kw_only=True)
class LayerPath(LayerPasses):
    """Base: a subclass is its `walk`.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        baseline: where the way starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
        steps: of the way.
    """

    baseline: str | Tensor = "zero"
    steps: int = 50
    signed: ClassVar[bool] = True
    complete: ClassVar[bool] = True  # whether cells sum to the change of the score

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"{self.name} needs at least 1 step.")

    def quick(self) -> Self:
        """Few steps."""
        return replace(self, steps=min(8, self.steps))

    @abstractmethod
    def walk(self, way: _Way) -> tuple[Tensor, Tensor]:
        """What each value of the layer adds, of the activation's shape, and the change of the score `(N,)`."""

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """The sum over channels, with the completeness gap."""
        x = job.inputs.detach()
        start = make_baseline(self.baseline, x, torch.Generator().manual_seed(0))
        way = _Way(job, target, layer, x, start, Cost(len(x)))
        values, change = self.walk(way)
        cells = layer.layout.to_map(values).float()
        made = self.attribution(cells.sum(1), layer, way.cost)
        if self.complete:
            missing = (values.double().reshape(len(x), -1).sum(1) - change).abs()
            gap = (missing / change.abs().clamp(min=1e-12)).tolist()
            made.facts["completeness_gap"] = gap
            if max(gap) > _MISSED:
                made.notes.append(
                    f"The completeness gap is {max(gap):.1%} after {self.steps} steps: raise steps, or what counts "
                    "goes round this layer."
                )
        return made


@method(
    "layer-integrated-gradients",
    family="path",
    needs="gradients, a layer",
    cost="steps (50) forwards + tail backwards, and 4 forwards",
    paper="Sundararajan et al. 2017, arXiv:1703.01365, eq. 1, of a layer's activation in place of the input",
)
@dataclass(frozen=True, kw_only=True)
class LayerIntegratedGradients(LayerPath):
    """`(A - A') * integral over a in [0, 1] of df(A' + a (A - A'))/dA`, summed over channels. `(N, *grid)`, signed.

    `A'` is the layer's activation at the baseline; the layer itself is led straight from one to the other.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        baseline: where the way starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
        steps: of the way, taken in their middles.
    """

    def walk(self, way: _Way) -> tuple[Tensor, Tensor]:
        """Gradients at the middle of each step."""
        if way.layer.runs is not None:
            raise MethodError(
                "layer-integrated-gradients leads one activation from the baseline to the input, and this layer runs "
                "several times in a pass: use conductance, or name a layer that runs once."
            )
        end, _, score = way.at(way.x)
        begin, _, before = way.at(way.start)
        total = torch.zeros_like(end)
        with task(self.name, self.steps) as advance:
            for k in range(self.steps):
                _, slope, _ = way.at(way.x, begin + (k + 0.5) / self.steps * (end - begin))
                total += slope / self.steps
                advance(1)
        return total * (end - begin), score - before


@method(
    "conductance",
    family="path",
    needs="gradients, a layer",
    cost="steps (50) forwards + tail backwards, and 3 forwards",
    paper="Dhamdhere et al. 2018, arXiv:1805.12233, eq. 2",
)
@dataclass(frozen=True, kw_only=True)
class LayerConductance(LayerPath):
    """`integral of dy/dA dA` along the straight way of the input, summed over channels. `(N, *grid)`, signed.

    What of the integrated gradients of the input flows through each cell of the layer.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        baseline: where the way starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
        steps: of the way, whose ends are taken.
    """

    def walk(self, way: _Way) -> tuple[Tensor, Tensor]:
        """The mean gradient at both ends of each step, times what the layer moves in it."""
        activation, slope, first = way.at(way.start)
        total, score = torch.zeros_like(activation), first
        with task(self.name, self.steps) as advance:
            for k in range(1, self.steps + 1):
                moved, other, score = way.at(way.start + k / self.steps * (way.x - way.start))
                total += (slope + other) / 2 * (moved - activation)
                activation, slope = moved, other
                advance(1)
        return total, score - first


@method(
    "internal-influence",
    family="path",
    needs="gradients, a layer",
    cost="steps (50) forwards + tail backwards, and 2 forwards",
    paper="Leino et al. 2018, arXiv:1802.03788, def. 1",
)
@dataclass(frozen=True, kw_only=True)
class InternalInfluence(LayerPath):
    """`dy/dA` averaged over the straight way of the input, summed over channels. `(N, *grid)`, signed.

    How the score reacts to each cell between the baseline and this input. How active a cell is does not count.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        baseline: where the way starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
        steps: of the way, taken in their middles.
    """

    complete: ClassVar[bool] = False

    def walk(self, way: _Way) -> tuple[Tensor, Tensor]:
        """Gradients at the middle of each step."""
        total: Any = 0.0
        score = torch.zeros(len(way.x), dtype=torch.float64)
        with task(self.name, self.steps) as advance:
            for k in range(self.steps):
                _, slope, score = way.at(way.start + (k + 0.5) / self.steps * (way.x - way.start))
                total = total + slope / self.steps
                advance(1)
        return total, score
