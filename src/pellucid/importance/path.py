"""How a score flows from a baseline to an input through the activations of one layer (or of the input itself).

Conductance (Dhamdhere et al. 2018, arXiv:1805.12233, eq. 2) of a unit `A_j` along the straight path
`x(a) = b + a (x - b)` is

    cond_j = integral over a in [0, 1] of  dF/dA_j(x(a))  dA_j(x(a))/da  da,

and the units of a layer that every path must pass share `F(x) - F(b)` among them. At the input it is integrated
gradients. The integral is taken in the activation itself, by the trapezoid rule
`sum_i (G_i + G_i+1) / 2 (A_i+1 - A_i)`: no derivative of the activation is needed, and the rule is exact where the
score is quadratic in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.engine import Capture, adaptive_batches, default_batch
from pellucid.models.targets import Target
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze

_FIRST, _MOST = 32, 512  # steps


@dataclass
class Path:
    """What flows along a path.

    Attributes:
        flow: `(T, *shape)`, the share of each element of the layer's activation of one input; double precision.
        slope: `(T, *shape)`, the mean gradient; at the input `flow` is this times `x - b`.
        full, empty: `(T,)`, the score at the input and at the baseline.
        steps: of the last quadrature.
        passes: forwards and backwards spent.
    """

    flow: Tensor
    slope: Tensor
    full: Tensor
    empty: Tensor
    steps: int
    passes: int

    @property
    def gap(self) -> Tensor:
        """`(T,)`: `full - empty - sum of the flow`, what the quadrature misses (or what passes the layer by)."""
        return self.full - self.empty - self.flow.flatten(1).sum(1)


def follow(job: Job, layer: str | None, baseline: Tensor, *, tolerance: float = 0.01, steps: int | None = None) -> Path:
    """The path's flow through a layer, or through the input (None).

    Args:
        job: one input `(1, C, *space)`.
        layer: module path.
        baseline: `(1, C, *space)`.
        tolerance: relative gap at which it stops doubling the steps, from 32 to 512 at the most. A gap that no
            longer shrinks (a layer that some of the score passes by) ends it too.
        steps: take just so many.
    """
    targets = freeze(job)
    path = _trapezoid(job, targets, layer, baseline, steps or _FIRST)
    spent = path.passes
    while steps is None and path.steps < _MOST:
        before = path.gap.abs()
        if bool((before <= tolerance * (path.full - path.empty).abs().clamp(min=1e-12)).all()):
            break
        path = _trapezoid(job, targets, layer, baseline, 2 * path.steps)
        spent += path.passes
        if bool((path.gap.abs() > 0.9 * before).all()):
            break
    path.passes = spent
    return path


def _trapezoid(job: Job, targets: Sequence[Target], layer: str | None, baseline: Tensor, steps: int) -> Path:
    x, b = job.inputs.detach(), baseline.detach()
    alphas = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    flow = slope = torch.zeros(())
    last: tuple[Tensor, list[Tensor]] | None = None
    scores = torch.empty(steps + 1, len(targets), dtype=torch.float64)
    layers = [] if layer is None else [layer]
    with Capture(job.module, layers, watch=job.watch, input_gradient=layer is None) as capture:

        def run(start: int, stop: int) -> None:
            nonlocal flow, slope, last
            a = alphas[start:stop].to(x).reshape(-1, *[1] * (x.ndim - 1))
            rows = torch.zeros(stop - start, dtype=torch.long)
            _, found = capture.scored(torch.lerp(b, x, a), lambda y, w: [t.select(rows).score(y, w) for t in targets])
            key = layer or "input"
            A = capture.activations[key].detach().double()
            G = [g[key].double() for g in capture.gradients(found)]
            scores[start:stop] = torch.stack([s.detach().double().cpu() for s in found], dim=1)
            if last is not None:
                A, G = torch.cat([last[0], A]), [torch.cat(both) for both in zip(last[1], G, strict=True)]
            rise, mean = A.diff(dim=0), [(g[1:] + g[:-1]) / 2 for g in G]
            flow = flow.to(A) + torch.stack([(m * rise).sum(0) for m in mean])
            slope = slope.to(A) + torch.stack([m.sum(0) / steps for m in mean])
            last = A[-1:], [g[-1:] for g in G]

        adaptive_batches(run, steps + 1, default_batch(x.device), label="path")
    return Path(flow, slope, scores[-1], scores[0], steps, steps + 1)
