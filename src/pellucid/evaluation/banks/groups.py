"""What a map chooses, taken away by itself: each group of ranks alone; and the input under the map as a soft mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine.masks import GridMasks, SegmentMasks
from pellucid.evaluation.banks.base import AnswerBank, unit_sums
from pellucid.evaluation.banks.curves import unit_ranks
from pellucid.evaluation.sample import SCORE, Candidate, Inquiry


@dataclass(frozen=True, eq=False)
class GroupEffects:
    """Groups of equal size, from the most to the least relevant.

    Attributes:
        relevance: the map's sum over each group, `(G,)`.
        effects: by how much the score falls where a group alone is taken away, `(G,)`.
    """

    relevance: Tensor
    effects: Tensor


@dataclass(frozen=True)
class RankGroups(AnswerBank):
    """Each of `groups` stretches of a map's order, taken away alone."""

    name: ClassVar[str] = "rank groups"
    ends: ClassVar[int] = 1

    groups: int = 10

    def own(self, space: Sequence[int]) -> int:
        """One a group."""
        return self.groups

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[GroupEffects]:
        """Equal values at the edge of two groups all belong to the one that holds the middle of them."""
        plain = inquiry.plain(self.baseline)[SCORE]
        found = []
        for c in candidates:
            ranks, units = unit_ranks(c.values[None], None)
            labels = (ranks[0] * self.groups / units).long().clamp(max=self.groups - 1).cpu()
            masks = SegmentMasks(1 - torch.eye(self.groups), labels)
            scores = inquiry.ask(masks, self.baseline, "rank groups")[:, SCORE]
            sums = unit_sums(c.values[None], labels)[0]
            full = torch.zeros(self.groups, dtype=torch.float64)
            full[: len(sums)] = sums
            found.append(GroupEffects(full, plain - scores))
        return found


@dataclass(frozen=True, eq=False)
class ShownAlone:
    """Scores `(3,)` of the input as it is, and of what shines through the map."""

    plain: Tensor
    shown: Tensor


@dataclass(frozen=True)
class SoftMask(AnswerBank):
    """The input through its map as a mask: negative values as 0, the largest as 1, on zeros.

    Attributes:
        inside: whether what the map holds is shown; else it is what is hidden.
    """

    name: ClassVar[str] = "the map as a mask"
    ends: ClassVar[int] = 1

    baseline: str = "zero"
    inside: bool = True

    def own(self, space: Sequence[int]) -> int:
        """One."""
        return 1

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[ShownAlone]:
        """All maps in one go."""
        plain = inquiry.plain(self.baseline)
        masks = soft_masks(torch.stack([c.values for c in candidates])).cpu()
        shown = GridMasks(masks if self.inside else 1 - masks, inquiry.sample.space)
        return [ShownAlone(plain, row) for row in inquiry.ask(shown, self.baseline, "maps as masks")]


def soft_masks(maps: Tensor) -> Tensor:
    """Maps `(K, *space)` as masks: negative values as 0, the largest of each as 1."""
    positive = maps.clamp(min=0)
    return positive / positive.flatten(1).amax(1).clamp(min=1e-30).reshape(-1, *[1] * (maps.ndim - 1))
