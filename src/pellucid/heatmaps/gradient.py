"""Gradients at the input: one forward and one backward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.scoring.job import Job


class GradientMethod(Method):
    """Base: a formula in the input `x` and the gradient `g = dy/dx`, both `(N, C, *space)`."""

    @abstractmethod
    def combine(self, x: Tensor, g: Tensor) -> Tensor:
        """The attribution `(N, C, *space)`."""

    def pass_key(self) -> Hashable:
        """All gradient methods share one backward pass."""
        return GradientMethod

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """One forward and a backward per target."""
        with Capture(job.module, watch=job.watch, input_gradient=True) as capture:
            _, scores = capture.scored(job.inputs, lambda y, w: [t.score(y, w) for t in job.targets])
            gradients = [g["input"].float() for g in capture.gradients(scores)]
        x = job.inputs.detach().float()
        cost = Cost(len(job.inputs), len(job.inputs) * len(job.targets))
        return [[Attribution(m.combine(x, g), cost=cost) for g in gradients] for m in methods]


@method(
    "saliency",
    family="gradient",
    needs="gradients",
    cost="1 forward + 1 backward",
    paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class Saliency(GradientMethod):
    """`|dy/dx|`: how strongly the score reacts to each value; a map takes the largest channel.

    Args:
        absolute: False keeps the sign of the gradient.
    """

    absolute: bool = True

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """Only where the sign is kept."""
        return not self.absolute

    @property
    def channels(self) -> Literal["sum", "max"]:  # type: ignore[override]
        """The largest channel of absolute values, the sum of signed ones."""
        return "max" if self.absolute else "sum"

    def combine(self, x: Tensor, g: Tensor) -> Tensor:
        """The gradient, without its sign."""
        return g.abs() if self.absolute else g


@method(
    "input-x-gradient",
    family="gradient",
    needs="gradients",
    cost="1 forward + 1 backward",
    paper="Shrikumar et al. 2016, arXiv:1605.01713",
)
@dataclass(frozen=True, kw_only=True)
class InputXGradient(GradientMethod):
    """`x dy/dx`, signed: each value's share of the score's first-order expansion around zero."""

    def combine(self, x: Tensor, g: Tensor) -> Tensor:
        """The product."""
        return x * g
