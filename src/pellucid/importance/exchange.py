"""Permutation importance: what the score loses when a player's content comes from another picture.

Breiman (2001) permutes a feature's values among the samples, and counts the errors; Fisher et al. (2019,
arXiv:1801.01489, sec. 3) take the mean over exchanges of each sample with others. Here the samples are pictures, and
each borrows from a few others, drawn evenly. The loss of one exchange is a leave-one-out ablation whose "out" is
another picture's content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.trace import interruptible
from pellucid.errors import MethodError
from pellucid.importance.estimators import Ablation
from pellucid.importance.game import Players
from pellucid.importance.measure import Measured, measure
from pellucid.models.targets import ClassTarget
from pellucid.scoring.job import Job


@dataclass(frozen=True)
class Kept(ClassTarget):
    """1 where the model still gives its own answer, `index`; else 0."""

    index: int

    def __call__(self, output: Any) -> Tensor:
        """`(N,)`."""
        return (self._scores(output).argmax(1) == self.index).float()


@interruptible
def exchange(players: Players, donors: Sequence[Tensor], job: Job) -> Measured:
    """The mean loss over donors for each player of one input, `(K, T)`.

    Args:
        players: cut for this input.
        donors: other inputs `(1, C, *space)`, of the same size.
        job: one input, and the targets.
    """
    if any(donor.shape != job.inputs.shape for donor in donors):
        raise MethodError(
            "The pictures make inputs of different sizes, so contents cannot be exchanged: give the model a "
            "preprocessing of one size."
        )
    found = [measure(players.donated(donor), Ablation(), job, pairs=False) for donor in donors]
    values = torch.stack([f.values for f in found]).mean(0)
    first = found[0]
    first.values = first.low = first.high = values
    first.cost.forwards = sum(f.cost.forwards for f in found)
    return first
