"""Methods whose unit is the segment: each segment of an input is a player, and comes in or is replaced by a baseline.

Each input is explained by itself, so that its numbers do not depend on its company in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pellucid.engine.capture import Cost
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution
from pellucid.heatmaps.perturbation import PerturbationMethod, segments_or_grid
from pellucid.media.segments import SEGMENTATIONS
from pellucid.numerics.games import Value
from pellucid.scoring.job import Job
from pellucid.scoring.masked import broken_off, masked, segment_game


@dataclass
class Found:
    """What a method found for one input.

    Attributes:
        values: of the segments, `(K, T)`.
        standard_error: `(K, T)`.
        low, high: `(K, T)`, 95 % interval of sampling.
        facts: figures for each target, `(T,)`.
        labels: `(*space)`, the segments.
        broken: what ended the game early, if anything did.
        no_interval: why there is none, in a sentence.
    """

    values: Tensor
    standard_error: Tensor
    low: Tensor
    high: Tensor
    facts: dict[str, Tensor]
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    broken: str = ""
    no_interval: str = ""


@dataclass(frozen=True, kw_only=True)
class SegmentMethod(PerturbationMethod):
    """Base: the segments are cut, the game is opened, the answer is drawn; what is left to a method is `solve`."""

    continues: ClassVar[bool] = True

    segments: str | Tensor = "grid"
    count: int = 49
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.segments, str) and self.segments not in SEGMENTATIONS:
            raise MethodError(
                f"There are no segments {self.segments!r}: choose {', '.join(SEGMENTATIONS)}, or give one integer for "
                "each place of the input."
            )
        if self.count < 2:
            raise MethodError(f"Nothing can be told apart with {self.count} segment: give a count of at least 2.")

    def solve(self, value: Value, labels: Tensor) -> Found:
        """The segments' values from the score as a game of segments."""
        raise MethodError(f"{self.name} cannot run.")

    def notes(self, facts: dict[str, list[float]]) -> list[str]:
        """What the reader must know, given the facts about each sample."""
        return []

    def ground(self, x: Tensor, labels: Tensor) -> str | Tensor:
        """The baseline of one input `(1, C, *space)`."""
        return self.baseline

    def perturb(self, job: Job) -> list[Attribution]:
        """One game for each input, for all targets at once."""
        cost = Cost()
        found = [self._one(job, n, cost) for n in range(len(job.inputs))]
        return [self._drawn(found, t, job.inputs.device, cost) for t in range(len(job.targets))]

    def _labels(self, x: Tensor) -> Tensor:
        if isinstance(self.segments, Tensor):
            return segments_or_grid(self.segments, tuple(x.shape[1:])).cpu()
        return SEGMENTATIONS[self.segments](x, self.count)

    def _one(self, job: Job, n: int, cost: Cost) -> Found:
        row = torch.tensor([n])
        memory = None if job.memory is None else job.memory.only(n)
        job_n = Job(job.module, job.inputs[n : n + 1], tuple(t.select(row) for t in job.targets), memory)
        labels = self._labels(job_n.inputs[0].detach())
        ground = self.ground(job_n.inputs.detach(), labels)
        if isinstance(ground, Tensor) and ground.ndim == job.inputs.ndim and len(ground) == len(job.inputs):
            ground = ground[n : n + 1]
        with masked(job_n, ground, self.seed) as scorer:
            if isinstance(self.segments, str):  # the user's own are taken as they are, or refused
                labels = scorer.fit_segments(labels)
            if int(labels.max()) == 0:
                raise MethodError(
                    f"{self.segments} found only one segment, so nothing can be told apart: use segments='grid', or "
                    "give your own."
                )
            found = replace(self.solve(segment_game(scorer, labels, self.name), labels), labels=labels.cpu())
            cost.add(scorer.cost)
        return found

    def _drawn(self, found: Sequence[Found], t: int, device: torch.device, cost: Cost) -> Attribution:
        values = [f.values[:, t].float() for f in found]
        maps = torch.stack([v[where] for v, where in zip(values, (f.labels for f in found), strict=True)])
        facts = {name: [float(f.facts[name][t]) for f in found] for name in found[0].facts}
        notes = self.notes(facts)
        if not maps.any():
            notes = ["No segment moves the score (or the baseline equals the input), so the map is zero."]
        notes += list(dict.fromkeys(f.no_interval for f in found if f.no_interval and f.standard_error[:, t].any()))
        notes += [broken_off(int(f.facts["samples"][t]), f.broken) for f in found if f.broken]
        extras = {
            name: pad_sequence(  # SLIC's number differs
                [getattr(f, of)[:, t].float() for f in found], batch_first=True, padding_value=torch.nan
            )
            for name, of in (("segments", "values"), ("standard_error",) * 2, ("low",) * 2, ("high",) * 2)
        } | {"labels": torch.stack([f.labels for f in found])}
        return Attribution(maps.to(device), notes=notes, facts=facts, extras=extras, cost=cost)
