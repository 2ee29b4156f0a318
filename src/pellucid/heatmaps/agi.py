"""Adversarial gradient integration: no baseline, but ways from the picture to what the model takes for others."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.models.targets import Target
from pellucid.progress import task
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze

_MISSED = 0.1  # of the change of score: a gap above it is said


@method(
    "agi",
    family="path",
    needs="gradients",
    cost="classes (8) x steps (20) forwards, and 2 backwards each",
    paper="Pan et al. 2021, Explaining Deep Neural Network Models with Adversarial Gradient Integration (IJCAI)",
)
@dataclass(frozen=True, kw_only=True)
class AGI(Method):
    """`- sum over a way of dy/dx dx`, averaged over steepest ways to other classes. `(N, C, *space)`, signed.

    From the picture, small steps of the sign of another class's gradient are taken until the model answers that class.
    What the target's score loses on the way is given to the pixels that moved; the map sums to that loss.

    Args:
        classes: other classes, drawn at random.
        steps: of each way at the most.
        step: length of a step in each value, as a share of the input's range.
        seed: of the classes.
    """

    classes: int = 8
    steps: int = 20
    step: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes < 1 or self.steps < 1 or not self.step > 0:
            raise MethodError("agi needs classes and steps of at least 1, and a step above 0, such as 0.02.")

    def quick(self) -> Self:
        """Two classes, and few steps."""
        return replace(self, classes=min(2, self.classes), steps=min(8, self.steps))

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method and target on its own."""
        targets = freeze(job)
        return [[m._explain(job, t) for t in targets] for m in methods]

    def _explain(self, job: Job, target: Target) -> Attribution:
        x, cost = job.inputs.detach(), Cost(len(job.inputs))
        adversaries = self._adversaries(job)
        flat = x.flatten(1)
        reach = self.step * (flat.amax(1) - flat.amin(1)).reshape(-1, *[1] * (x.ndim - 1))
        total, change = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        with (
            Capture(job.module, watch=job.watch, input_gradient=True) as capture,
            task(self.name, adversaries.shape[1] * self.steps) as advance,
        ):
            for k in range(adversaries.shape[1]):
                walk = _Walk(capture, job, target, adversaries[:, k], cost)
                moved, lost = walk.run(x, reach, self.steps)
                total += moved / adversaries.shape[1]
                change += lost / adversaries.shape[1]
                advance(self.steps)
        missing = (total.double().flatten(1).sum(1) - change).abs()
        gap = (missing / change.abs().clamp(min=1e-12)).tolist()
        notes = []
        if max(gap) > _MISSED:
            notes.append(f"The completeness gap is {max(gap):.1%}: make step smaller, and steps more.")
        return Attribution(total.float(), notes=notes, facts={"completeness_gap": gap}, cost=cost)

    def _adversaries(self, job: Job) -> Tensor:
        """Other classes of each input, `(N, k)`: never the one that the model answers."""
        with Capture(job.module, watch=job.watch) as capture, torch.no_grad():
            scores = job.reading.class_scores(capture.forward(job.inputs))
        count = scores.shape[1]
        if count < 2:
            raise MethodError("agi needs a model of several classes: use integrated-gradients.")
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.stack([torch.randperm(count - 1, generator=generator) for _ in range(len(scores))])
        top = scores.argmax(1).cpu()[:, None]
        chosen = order[:, : min(self.classes, count - 1)]
        return (chosen + (chosen >= top)).to(scores.device)


@dataclass
class _Walk:
    """From each input to a class of its own."""

    capture: Capture
    job: Job
    target: Target
    classes: Tensor
    cost: Cost

    def run(self, x: Tensor, reach: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """What moved, and what the score lost on the way, `(N, C, *space)` and `(N,)`."""
        total, here = torch.zeros_like(x), x
        slope, upward, first, there = self._slopes(here)
        last = first
        for _ in range(steps):
            if bool(there.all()):
                break
            going = (~there).to(x).reshape(-1, *[1] * (x.ndim - 1))
            moved = reach * upward.sign() * going
            before = slope
            here = here + moved
            slope, upward, last, there = self._slopes(here, there)
            total -= (before + slope) / 2 * moved
        return total, first - last

    def _slopes(self, inputs: Tensor, done: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the score and of the class, the score, and whether the model answers that class."""

        answers: list[Tensor] = []

        def score(output: Any, watched: Any) -> list[Tensor]:
            every = self.job.reading.class_scores(output)
            answers.append(every.argmax(1) == self.classes)
            own = every.softmax(1).gather(1, self.classes[:, None])[:, 0]
            return [self.target.score(output, watched), own]

        _, scores = self.capture.scored(inputs, score)
        slope, upward = (g["input"] for g in self.capture.gradients(scores))
        self.cost.forwards += len(inputs)
        self.cost.backwards += 2 * len(inputs)
        there = answers[-1] if done is None else answers[-1] | done
        return slope, upward, scores[0].detach().double(), there
