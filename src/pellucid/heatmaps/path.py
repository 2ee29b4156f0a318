"""Path methods: gradients gathered on the way from a baseline, where nothing is seen, to the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost, adaptive_batches, default_batch
from pellucid.engine.baselines import make_baseline
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Job, Method, method
from pellucid.heatmaps.quadrature import Integral, integrate
from pellucid.models.targets import Target

_SCAN = 32  # cells of the forward scan that places the nodes


@method(
    "integrated-gradients",
    family="path",
    needs="gradients",
    cost="34 forwards + up to max_steps forwards and backwards",
    paper="Sundararajan et al. 2017, arXiv:1703.01365, eq. 1",
)
@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Method):
    """`(x - x') * integral over a in [0, 1] of df(x' + a (x - x'))/dx`, signed; sums to `f(x) - f(x')`.

    Nodes stand where 33 forward passes say that the score bends, and are added until the completeness gap is within
    `tolerance` (and the map's own estimated error within twice it), or `max_steps` is spent; the note then says so.
    Memory does not depend on the number of nodes.

    Args:
        baseline: `zero`, `mean`, `blur`, `uniform`, or a tensor that expands to the inputs.
        tolerance: completeness gap to reach, relative to `f(x) - f(x')`; None spends exactly `max_steps`.
        max_steps: gradients to spend on a path at the most.
        draws: paths to average over, for the random baseline `uniform`.
        seed: of the random baseline.
    """

    baseline: str | Tensor = "zero"
    tolerance: float | None = 0.01
    max_steps: int = 400
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.draws < 1:
            raise MethodError("integrated-gradients needs max_steps and draws of at least 1.")
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise MethodError("The tolerance of integrated-gradients is a positive share, such as 0.01, or None.")
        if self.draws > 1 and self.baseline != "uniform":
            raise MethodError("Only the baseline `uniform` is random: draws > 1 repeats the same path with the others.")

    def quick(self) -> IntegratedGradients:
        """24 nodes: within some 10 % of the converged map."""
        return replace(self, tolerance=None, max_steps=min(24, self.max_steps), draws=1)

    def pass_key(self) -> Any:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[IntegratedGradients], job: Job) -> list[list[Attribution]]:
        """One path per input, target and draw."""
        return [[m._explain(job, target) for target in job.targets] for m in methods]

    def _explain(self, job: Job, target: Target) -> Attribution:
        generator = torch.Generator().manual_seed(self.seed)
        cost = Cost()
        x = job.inputs.detach()
        paths = []
        for _ in range(self.draws):
            start = make_baseline(self.baseline, x, generator)
            paths.append(_path_integral(job, target, start, self.max_steps, self.tolerance, cost))
        return self._summary(paths, cost)

    def _summary(self, paths: list[Integral], cost: Cost) -> Attribution:
        values = torch.stack([p.attribution for p in paths]).mean(0).float()
        gap = torch.stack([p.gap for p in paths]).amax(0).tolist()
        error = torch.stack([p.error for p in paths]).amax(0).tolist()
        facts = {"completeness_gap": gap, "estimated_error": error, "steps": paths[0].steps.double().tolist()}
        notes = []
        if not values.any():
            notes.append(
                "The baseline equals the input (or the score never moves), so the map is zero: choose another."
            )
        elif self.tolerance is not None and max(gap) > self.tolerance:
            notes.append(
                f"The completeness gap is {max(gap):.1%} after {max(facts['steps']):.0f} gradients, above the "
                f"tolerance of {self.tolerance:.1%}: raise max_steps, or mind that error."
            )
        return Attribution(values, notes=notes, facts=facts, cost=cost)


def _path_integral(
    job: Job, target: Target, start: Tensor, max_steps: int, tolerance: float | None, cost: Cost
) -> Integral:
    x = job.inputs.detach()
    delta = x - start
    batch = default_batch(x)

    def point(rows: Tensor, alphas: Tensor) -> Tensor:
        return torch.addcmul(start[rows], _column(alphas, x), delta[rows])

    with Capture(job.module, watch=job.watch) as plain:
        target = target.freeze(plain.forward(x))
        cost.forwards += len(x)

        knots = torch.linspace(0, 1, _SCAN + 1, dtype=torch.float64, device=x.device).repeat(len(x))
        owner = torch.arange(len(x), device=x.device).repeat_interleave(_SCAN + 1)
        scanned = torch.empty_like(knots)

        def scan(a: int, b: int) -> None:
            output = plain.forward(point(owner[a:b], knots[a:b]))
            scanned[a:b] = target.select(owner[a:b]).score(output, plain.watched).double()

        with torch.no_grad():
            adaptive_batches(scan, len(knots), batch)
        cost.forwards += len(knots)

    with Capture(job.module, watch=job.watch, input_gradient=True) as capture:

        def gradients(rows: Tensor, alphas: Tensor, weights: Tensor) -> Tensor:
            total = torch.zeros_like(delta[rows])
            place = torch.arange(len(rows), device=x.device).repeat_interleave(alphas.shape[1])
            flat, shares = alphas.flatten(), weights.flatten().to(x.dtype)

            def run(a: int, b: int) -> None:
                inputs = point(rows[place[a:b]], flat[a:b])
                chosen = target.select(rows[place[a:b]])
                _, (score,) = capture.scored(inputs, lambda y, w: [chosen.score(y, w)])
                gradient = capture.gradients([score])[0]["input"]
                total.index_add_(0, place[a:b], gradient * _column(shares[a:b], gradient))

            adaptive_batches(run, len(flat), batch, label="integrated gradients")
            cost.forwards += len(flat)
            cost.backwards += len(flat)
            return total

        return integrate(scanned.reshape(len(x), -1), gradients, delta, max_steps, tolerance)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """`(M,)` as `(M, 1, ..., 1)`, to weigh samples."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
