"""Gradients averaged over random copies of the input: SmoothGrad and its like, and expected gradients.

Copies are drawn one after the other from one seed, the same for every input of a batch; what is kept is a running mean
and its standard error, so memory does not depend on their number. Inputs stop on their own.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost, adaptive_batches, default_batch
from pellucid.engine.baselines import BASELINES, make_baseline
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.models.targets import Target
from pellucid.numerics.stopping import BlockMean, Stopping, relative_error
from pellucid.progress import task
from pellucid.scoring.job import Job

_CHECK = 8  # draws between two looks at the error
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class SampledGradients(Method):
    """Base: owns the draws, the passes and the stopping rule; a subclass says what a draw is.

    Args:
        samples: draws at the most.
        tolerance: an input stops when the map's standard error is within this share of its spread, and its strongest
            tenth has settled; None spends all `samples`.
        seed: of the draws.
    """

    samples: int = 50
    tolerance: float | None = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise MethodError(f"{self.name} needs at least 2 samples.")
        if self.tolerance is not None and not self.tolerance > 0:
            raise MethodError(f"The tolerance of {self.name} is a positive share, such as 0.1, or None.")

    @abstractmethod
    def drawn(self, x: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw `k` for inputs `x` `(R, C, *space)`: where the gradient is taken, and what it is multiplied by."""

    def read(self, mean: BlockMean) -> tuple[Tensor, Tensor]:
        """The map and its standard error, from the draws' running mean."""
        return mean.mean, mean.error

    def facts(self, job: Job, target: Target, mean: BlockMean, cost: Cost) -> dict[str, list[float]]:
        """Figures of one kind of map."""
        return {}

    def quick(self) -> Self:
        """Few draws."""
        return replace(self, samples=min(8, self.samples), tolerance=None)

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method and target on its own."""
        return [[m.explain_target(job, target) for target in job.targets] for m in methods]

    def explain_target(self, job: Job, target: Target) -> Attribution:
        """The map of one target."""
        x, cost = job.inputs.detach(), Cost()
        with Capture(job.module, watch=job.watch) as plain:  # the class on top is the untouched picture's
            target = target.freeze(plain.forward(x))
        cost.forwards += len(x)
        generator, mean = torch.Generator().manual_seed(self.seed), BlockMean(len(x))
        done = None if self.tolerance is None else Stopping(self.tolerance)
        active = torch.ones(len(x), dtype=torch.bool, device=x.device)
        with (
            Capture(job.module, watch=job.watch, input_gradient=True) as capture,
            task(self.name, self.samples) as advance,
        ):
            for start in range(0, self.samples, _CHECK):
                count = min(_CHECK, self.samples - start)
                rows = active.nonzero()[:, 0]
                draws = [self.drawn(x, start + k, generator) for k in range(count)]
                found = _gradients(capture, draws, rows, target, cost)
                for k in range(count):
                    block = x.new_zeros(x.shape, dtype=torch.float32)
                    block[rows] = found[k * len(rows) : (k + 1) * len(rows)]
                    mean.add(self.powered(block), active)
                advance(count)
                if done is not None:
                    active = active & ~done(*(t.flatten(1) for t in self.read(mean)))
                    if not active.any():
                        break
        values, error = self.read(mean)
        facts = {
            "relative_error": relative_error(values, error).tolist(),
            "samples": mean.count.expand(len(x)).double().tolist(),
            **self.facts(job, target, mean, cost),
        }
        return Attribution(values, notes=self._said(facts), facts=facts, extras={"standard_error": error}, cost=cost)

    def powered(self, gradient: Tensor) -> Tensor:
        """What is averaged of a draw's gradient."""
        return gradient

    def _said(self, facts: dict[str, list[float]]) -> list[str]:
        worst = max(facts["relative_error"])
        if self.tolerance is None or worst <= self.tolerance:
            return []
        return [
            f"After {self.samples} draws the map's standard error is {worst:.0%} of its spread: read regions rather "
            "than pixels, or raise samples."
        ]


def _gradients(
    capture: Capture, draws: Sequence[tuple[Tensor, Tensor]], rows: Tensor, target: Target, cost: Cost
) -> Tensor:
    """Gradient times weight of each draw and row, `(draws * rows, C, *space)`, draw by draw."""
    total = len(draws) * len(rows)
    found = draws[0][0].new_zeros((total, *draws[0][0].shape[1:]), dtype=torch.float32)
    owner = rows.repeat(len(draws))

    def run(a: int, b: int) -> None:
        inputs = torch.stack([draws[k // len(rows)][0][owner[k]] for k in range(a, b)])
        weights = torch.stack([draws[k // len(rows)][1][owner[k]] for k in range(a, b)])
        chosen = target.select(owner[a:b])
        _, (score,) = capture.scored(inputs, lambda y, w: [chosen.score(y, w)])
        found[a:b] = (capture.gradients([score])[0]["input"] * weights).float()

    adaptive_batches(run, total, default_batch(draws[0][0]))
    cost.forwards += total
    cost.backwards += total
    return found


@dataclass(frozen=True, kw_only=True)
class _Noisy(SampledGradients):
    noise: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise > 0:
            raise MethodError(f"The noise of {self.name} is a positive share of the input's range, such as 0.15.")

    def drawn(self, x: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The input with Gaussian noise of its own range's scale."""
        noise = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
        low, high = (f(x.flatten(1), 1).reshape(-1, *[1] * (x.ndim - 1)) for f in (torch.amin, torch.amax))
        return x + self.noise * (high - low) * noise, torch.ones_like(x)


_SAMPLED = "up to samples (50) forwards and backwards"


@method(
    "smooth-grad",
    family="gradient",
    needs="gradients",
    cost=_SAMPLED,
    paper="Smilkov et al. 2017, arXiv:1706.03825",
)
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(_Noisy):
    """Mean of `dy/dx` over copies of the input with Gaussian noise, signed.

    Args:
        samples: copies at the most.
        tolerance: an input stops when the map's standard error is within this share of its spread, and its strongest
            tenth has settled; None spends all `samples`.
        seed: of the noise.
        noise: its standard deviation, as a share of the input's range.
    """


@method(
    "smooth-grad-squared",
    family="gradient",
    needs="gradients",
    cost=_SAMPLED,
    paper="Hooker et al. 2019, arXiv:1806.10758, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class SmoothGradSquared(_Noisy):
    """Mean of `(dy/dx)^2` over copies of the input with Gaussian noise.

    Args:
        samples: copies at the most.
        tolerance: an input stops when the map's standard error is within this share of its spread, and its strongest
            tenth has settled; None spends all `samples`.
        seed: of the noise.
        noise: its standard deviation, as a share of the input's range.
    """

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """Squares have no sign."""
        return False

    def powered(self, gradient: Tensor) -> Tensor:
        """The square."""
        return gradient.square()


@method(
    "var-grad",
    family="gradient",
    needs="gradients",
    cost=_SAMPLED,
    paper="Adebayo et al. 2018, arXiv:1810.03307, appendix; Seo et al. 2018, arXiv:1806.03000",
)
@dataclass(frozen=True, kw_only=True)
class VarGrad(_Noisy):
    """Variance of `dy/dx` over copies of the input with Gaussian noise.

    Args:
        samples: copies at the most.
        tolerance: an input stops when the map's standard error is within this share of its spread, and its strongest
            tenth has settled; None spends all `samples`.
        seed: of the noise.
        noise: its standard deviation, as a share of the input's range.
    """

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """A variance has no sign."""
        return False

    def read(self, mean: BlockMean) -> tuple[Tensor, Tensor]:
        """The unbiased variance; its error as that of Gaussian gradients, `s^2 sqrt(2 / (n - 1))`."""
        variance = mean.variance
        count = mean.count.reshape(-1, *[1] * (variance.ndim - 1))
        return variance, variance * (2 / (count - 1)).sqrt()


@method(
    "expected-gradients",
    family="path",
    needs="gradients",
    cost="up to samples (50) forwards and backwards, and as many forwards",
    paper="Erion et al. 2019, arXiv:1906.10670, eq. 3",
)
@dataclass(frozen=True, kw_only=True)
class ExpectedGradients(SampledGradients):
    """Mean of `(x - x') df(x' + a (x - x'))/dx` over references `x'` and places `a`; sums to `f(x) - mean f(x')`.

    The places run through [0, 1] evenly (a golden-ratio sequence from a random start), so that the sum is right sooner.

    Args:
        samples: draws at the most.
        tolerance: an input stops when the map's standard error is within this share of its spread, and its strongest
            tenth has settled; None spends all `samples`.
        seed: of the references and places.
        baseline: `uniform` (a new draw each time), `zero`, `mean`, `blur`, or a tensor `(K, C, *space)` of references.
    """

    baseline: str | Tensor = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.baseline, str) and self.baseline not in BASELINES:
            raise MethodError(f"The baseline of {self.name} is one of {', '.join(BASELINES)}, or a tensor (K, C, ...).")

    def reference(self, x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Reference `k`, `(1 or R, C, *space)`."""
        if not isinstance(self.baseline, Tensor) or self.baseline.ndim != x.ndim or len(self.baseline) < 2:
            return make_baseline(self.baseline, x, generator)
        if self.baseline.shape[1:] != x.shape[1:]:
            raise MethodError(f"References are {tuple(self.baseline.shape[1:])} each, and inputs {tuple(x.shape[1:])}.")
        return self.baseline[k % len(self.baseline)][None].to(x)

    def drawn(self, x: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A point on the way from a reference to the input."""
        first = torch.Generator().manual_seed(self.seed)
        place = (float(torch.rand((), generator=first)) + k * _GOLDEN) % 1.0
        way = x - self.reference(x, k, generator)
        return x - (1 - place) * way, way

    def facts(self, job: Job, target: Target, mean: BlockMean, cost: Cost) -> dict[str, list[float]]:
        """The completeness gap, with the references that each input was given."""
        x, generator = job.inputs.detach(), torch.Generator().manual_seed(self.seed)
        spent = mean.count.reshape(-1).long()
        with Capture(job.module, watch=job.watch) as plain, torch.no_grad():
            own = target.score(plain.forward(x), plain.watched).double()
            total = torch.zeros_like(own)
            for k in range(int(spent.max())):
                seen = self.reference(x, k, generator).expand_as(x)
                total += target.score(plain.forward(seen), plain.watched).double() * (k < spent).to(total)
        cost.forwards += len(x) * (1 + int(spent.max()))
        change = own - total / spent
        gap = (mean.mean.double().flatten(1).sum(1) - change).abs() / change.abs().clamp(min=1e-12)
        return {"completeness_gap": gap.tolist()}
