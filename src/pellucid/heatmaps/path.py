"""Path methods: gradients gathered on the way from a baseline, where nothing is seen, to the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost, adaptive_batches, default_batch
from pellucid.engine.baselines import make_baseline
from pellucid.engine.misfit import NEVER_MOVES, NO_SLOPE
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.heatmaps.jumps import NEAR, Jump, jump
from pellucid.models.targets import Target
from pellucid.numerics.quadrature import Integral, gap_scale, integrate
from pellucid.scoring.job import Job

_SCAN = 32  # cells of the forward scan that places the nodes
_PLAIN = ("zero", "mean", "blur")  # baselines to try where the score jumps on the way from the one asked for


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
    `tolerance` (and the map's own estimated error within twice it), or `max_steps` is spent; the note then says so, or
    that the score jumps on the way, which no number of steps helps. Where it jumps right at the baseline, a place that
    no integral sees, the gap is that to the limit of the score beside it, and a remark tells the jump. Memory does not
    depend on the number of nodes.

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
        draws = []
        for _ in range(self.draws):
            path = _Path(job, target, make_baseline(self.baseline, job.inputs.detach(), generator), cost)
            draws.append((path, path.integral(self.max_steps, self.tolerance)))
        found = [integral for _, integral in draws]
        jumps = [path.jumps(integral, self.tolerance) for path, integral in draws]
        starts = torch.stack([_beside(*draw, jumped) for draw, jumped in zip(draws, jumps, strict=True)]).mean(0)
        values = torch.stack([f.attribution for f in found]).mean(0).float()
        gap = torch.stack([f.gap for f in found]).amax(0).tolist()
        error = torch.stack([f.error for f in found]).amax(0).tolist()
        facts = {"completeness_gap": gap, "estimated_error": error, "steps": found[0].steps.double().tolist()}
        remarks = []
        if starts.any():
            facts["jump_at_baseline"] = starts.tolist()
            changes = torch.stack([path.change for path, _ in draws]).mean(0)
            remarks = [
                [_started(*row)] if row[0] else [] for row in zip(starts.tolist(), changes.tolist(), strict=True)
            ]
        notes = []
        if not values.any():
            notes.append(NO_SLOPE if any(bool(path.change.any()) for path, _ in draws) else NEVER_MOVES)
        elif self.tolerance is not None and max(gap) > self.tolerance:
            worst = max(range(len(draws)), key=lambda d: float(found[d].gap.max()))
            why = _jumped(*draws[worst], jumps[worst], self.tolerance) or (
                f", above the tolerance of {self.tolerance:.1%}: raise max_steps, or mind that error."
            )
            notes.append(f"The completeness gap is {max(gap):.1%} after {max(facts['steps']):.0f} gradients{why}")
        return Attribution(values, notes=notes, facts=facts, cost=cost, remarks=remarks)


@dataclass(eq=False)
class _Path:
    """The straight line from a baseline to the inputs, for a target; what it runs is counted in `cost`."""

    job: Job
    target: Target
    start: Tensor
    cost: Cost
    x: Tensor = field(init=False)
    scores: Tensor = field(init=False)  # (N, _SCAN + 1), at even knots

    def __post_init__(self) -> None:
        self.x = self.job.inputs.detach()
        knots = torch.linspace(0, 1, _SCAN + 1, dtype=torch.float64, device=self.x.device).repeat(len(self.x))
        owner = torch.arange(len(self.x), device=self.x.device).repeat_interleave(_SCAN + 1)
        with Capture(self.job.module, watch=self.job.watch) as plain:
            self.target = self.target.freeze(plain.forward(self.x))
        self.cost.forwards += len(self.x)
        self.scores = self.along(owner, knots).reshape(len(self.x), -1)

    def point(self, rows: Tensor, alphas: Tensor) -> Tensor:
        """`(M, C, *space)`: at `alphas` `(M,)` of the way to the inputs `rows` `(M,)`."""
        start = self.start[rows]
        return torch.addcmul(start, _column(alphas, start), self.x[rows] - start)

    def along(self, rows: Tensor, alphas: Tensor) -> Tensor:
        """The scores `(M,)` there, in double precision."""
        scores = torch.empty_like(alphas)

        def scan(a: int, b: int) -> None:
            output = plain.forward(self.point(rows[a:b], alphas[a:b]))
            scores[a:b] = self.target.select(rows[a:b]).score(output, plain.watched).double()

        with Capture(self.job.module, watch=self.job.watch) as plain, torch.no_grad():
            adaptive_batches(scan, len(alphas), default_batch(self.x))
        self.cost.forwards += len(alphas)
        return scores

    def integral(self, max_steps: int, tolerance: float | None) -> Integral:
        """The mean gradient along each path, times its length."""
        with Capture(self.job.module, watch=self.job.watch, input_gradient=True) as capture:

            def gradients(rows: Tensor, alphas: Tensor, weights: Tensor) -> Tensor:
                total = torch.zeros_like(self.x[rows])
                place = torch.arange(len(rows), device=self.x.device).repeat_interleave(alphas.shape[1])
                flat, shares = alphas.flatten(), weights.flatten().to(self.x.dtype)

                def run(a: int, b: int) -> None:
                    inputs = self.point(rows[place[a:b]], flat[a:b])
                    chosen = self.target.select(rows[place[a:b]])
                    _, (score,) = capture.scored(inputs, lambda y, w: [chosen.score(y, w)])
                    gradient = capture.gradients([score])[0]["input"]
                    total.index_add_(0, place[a:b], gradient * _column(shares[a:b], gradient))

                adaptive_batches(run, len(flat), default_batch(self.x), label="integrated gradients")
                self.cost.forwards += len(flat)
                self.cost.backwards += len(flat)
                return total

            return integrate(self.scores, gradients, self.x - self.start, max_steps, tolerance)

    @property
    def change(self) -> Tensor:
        """Of the scores `(N,)`, from the baseline to the inputs."""
        return self.scores[:, -1] - self.scores[:, 0]

    def missing(self, found: Integral) -> Tensor:
        """What an integral lacks of the change of each score, `(N,)`."""
        return self.change - found.attribution.flatten(1).double().sum(1)

    def jumps(self, found: Integral, tolerance: float | None) -> list[Jump | None]:
        """Of each input whose gap is above the tolerance, the jumps that an eighth of it or more are due to."""
        wide = (found.gap > (math.inf if tolerance is None else tolerance)).tolist()
        least = (self.missing(found).abs() / 8).tolist()
        return [self.jump(row, least[row]) if wide[row] else None for row in range(len(wide))]

    def jump(self, row: int, least: float) -> Jump | None:
        """Where the score of one input jumps by `least` or more; in half precision nothing is found."""
        if torch.finfo(self.x.dtype).bits < 32:  # its neighbouring numbers lie too far apart to tell
            return None
        return jump(self.scores[row], lambda alphas: self.along(torch.full_like(alphas, row).long(), alphas), least)

    def replaced(self, row: int, baseline: str) -> _Path:
        """From another baseline to one of the inputs."""
        rows = torch.tensor([row], device=self.x.device)
        start = make_baseline(baseline, self.x[rows], torch.Generator())
        return _Path(replace(self.job, inputs=self.x[rows]), self.target.select(rows), start, self.cost)


def _beside(path: _Path, found: Integral, jumps: list[Jump | None]) -> Tensor:
    """How far each score jumps right at its baseline, `(N,)`; the gap there becomes that to the limit beside it."""
    sizes = path.scores.new_tensor([j.size if j is not None and j.at_start else 0 for j in jumps])
    limits = torch.cat((path.scores[:, :1] + sizes[:, None], path.scores[:, 1:]), 1)
    gap = (path.missing(found) - sizes).abs() / gap_scale(limits)
    found.gap = torch.where(sizes == 0, found.gap, gap)
    return sizes


def _started(size: float, change: float) -> str:
    """A score that jumps right at the baseline, in words."""
    return (
        f"The score jumps by {size:.3g} right at the baseline, as soon as the input differs from it at all: no "
        f"gradient sees that. The map explains the other {change - size:.3g} of the {change:.3g} from the baseline to "
        "the input."
    )


def _jumped(path: _Path, found: Integral, jumps: list[Jump | None], tolerance: float) -> str:
    """That the score jumps, and a baseline that was tried, if it makes the widest gap; else nothing."""
    row = int(found.gap.argmax())
    missing, jumped = float(path.missing(found)[row]), jumps[row]
    if jumped is None or jumped.at_start or abs(missing - jumped.size) > abs(missing) / 2:
        return ""
    return (
        f", because the score jumps by {jumped.size:.3g} (of {path.change[row]:.3g} in all) {jumped.said}: no gradient "
        f"sees that, the map leaves it out, and more steps do not help. {_cure(path, row, jumped, tolerance)}"
    )


def _cure(path: _Path, row: int, jumped: Jump, tolerance: float) -> str:
    if jumped.last < NEAR:  # the rest of the same path is free of it
        return f"Give a tensor {NEAR:.0%} of the way from the baseline to the input as the baseline."
    for name in _PLAIN:
        other = path.replaced(row, name)
        if (change := abs(float(other.change[0]))) and other.jump(0, tolerance * change) is None:
            return f'From baseline="{name}" it does not jump.'
    return f"It jumps from {', '.join(_PLAIN[:-1])} and {_PLAIN[-1]} too: give another baseline as a tensor."


def _column(values: Tensor, like: Tensor) -> Tensor:
    """`(M,)` as `(M, 1, ..., 1)`, to weigh samples."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
