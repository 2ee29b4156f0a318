"""LIME: a line fitted to the scores of pictures with some superpixels left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pellucid.heatmaps.base import method
from pellucid.heatmaps.segmented import Found, SegmentMethod
from pellucid.numerics.games import Value
from pellucid.numerics.line import sample_line


@method(
    "lime",
    family="perturbation",
    needs="outputs",
    cost="1 forward a sample",
    paper="Ribeiro et al. 2016, arXiv:1602.04938, eq. 1-2",
)
@dataclass(frozen=True, kw_only=True)
class LIME(SegmentMethod):
    """Weights of a linear model of the score over which superpixels are shown, fitted near the picture. `(N, *space)`.

    Each sample keeps every superpixel with probability 1/2 and weighs `exp(-d^2 / (2 kernel_width^2))`, with `d` the
    cosine distance to the whole picture. How well the line fits, R2, is part of the answer.

    Args:
        segments: `slic`, `felzenszwalb`, `grid`, or `(*space)` integers, the segment of each place.
        count: about how many segments to cut.
        samples: pictures to score.
        kernel_width: how far from the whole picture a sample may be; larger counts all more alike.
        alpha: strength of the penalty; for the lasso, in units of the score.
        penalty: `ridge`, or `lasso`, which sets weak superpixels to zero.
        baseline: what shows where a segment is out: `segment-mean` (its own mean colour, as in the paper's
            implementation), a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the samples and of a random baseline.
    """

    segments: str | Tensor = "slic"
    count: int = 50
    baseline: str | Tensor = "segment-mean"
    samples: int = 1000
    kernel_width: float = 0.25
    alpha: float = 1.0
    penalty: Literal["ridge", "lasso"] = "ridge"

    def quick(self) -> LIME:
        """At most 250 samples."""
        return replace(self, samples=min(250, self.samples))

    def ground(self, x: Tensor, labels: Tensor) -> str | Tensor:
        """Each segment's own mean colour, if that is asked for."""
        if isinstance(self.baseline, Tensor) or self.baseline != "segment-mean":
            return self.baseline
        where = labels.flatten().to(x.device)
        sums = torch.zeros(x.shape[1], int(labels.max()) + 1, dtype=torch.float64).to(x.device)
        sums.index_add_(1, where, x[0].flatten(1).double())
        return (sums / where.bincount())[:, where].reshape(x.shape).to(x.dtype)

    def solve(self, value: Value, labels: Tensor) -> Found:
        """The whole picture and random ones; one fit for each target."""
        players = int(labels.max()) + 1
        line = sample_line(
            value,
            players,
            samples=self.samples,
            generator=torch.Generator().manual_seed(self.seed),
            kernel_width=self.kernel_width,
            alpha=self.alpha,
            kind=self.penalty,
        )
        facts = {
            "r2": line.r2,
            "r2_held_out": line.r2_held_out,
            "samples": torch.full_like(line.r2, line.samples),
            "players": torch.full_like(line.r2, players),
        }
        ends = line.low, line.high
        return Found(line.weights, line.standard_error, *ends, facts, broken=line.broken, no_interval=line.no_interval)

    def notes(self, facts: dict[str, list[float]]) -> list[str]:
        """Whether a line is a poor stand-in for the model here."""
        worst = min(facts["r2_held_out"])
        if worst >= 0.5:
            return []
        return [
            f"The linear model explains only {max(worst, 0):.0%} of what the score does on samples it was not fitted "
            "to (R2): the weights say little. Take fewer segments or more samples, or use shapley."
        ]
