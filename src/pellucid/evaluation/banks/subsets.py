"""Random subsets of cells taken away, and each cell alone: asked once a sample, whatever map is measured on them.

What a map predicts of them is a matrix product, so one more map costs the model nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine.masks import SegmentMasks, grid_labels
from pellucid.evaluation.banks.base import AnswerBank, cell_labels, cells_of, refuse_stills, unit_sums
from pellucid.evaluation.banks.parts import PartSums
from pellucid.evaluation.faithfulness import frame_grid
from pellucid.evaluation.sample import SCORE, Candidate, Inquiry
from pellucid.numerics.games.orders import exact_shapley

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, eq=False)
class SubsetEffects:
    """What taking subsets away does to the score, beside one map.

    Attributes:
        relevance: of each cell, the map's sum over it, `(K,)`.
        subsets: `(M, K)`, 1 where a cell is taken away.
        effects: `(M,)`, by how much the score falls.
        sizes: `(M,)`, cells of each subset.
        alone: `(K,)`, by how much the score falls where each cell alone is taken away.
        plain: the score of the input.
    """

    relevance: Tensor
    subsets: Tensor
    effects: Tensor
    sizes: Tensor
    alone: Tensor
    plain: float

    @property
    def predicted(self) -> Tensor:
        """The map's sum over each subset, `(M,)`."""
        return self.subsets @ self.relevance

    @property
    def kinds(self) -> list[float]:
        """The sizes that there are."""
        return sorted(set(self.sizes.tolist()))

    def of_size(self, share: float) -> Tensor:
        """Which subsets are of the size nearest to a share of the cells, `(M,)` bool."""
        return self.sizes == min(self.kinds, key=lambda size: abs(size - share * len(self.relevance)))


@dataclass(frozen=True)
class RandomSubsets(AnswerBank):
    """Effects of subsets of a coarse grid's cells (or of superpixels).

    Attributes:
        unit: `cells`, `superpixels` or `frames`.
        count: cells along the longest axis, or superpixels.
        draws: subsets of each size.
        shares: sizes, as shares of the cells.
    """

    name: ClassVar[str] = "random subsets"
    ends: ClassVar[int] = 1

    unit: str = "cells"
    count: int = 7
    draws: int = 32
    shares: tuple[float, ...] = SHARES

    def shared(self, space: Sequence[int]) -> int:
        """Subsets, and single cells."""
        cells = self._units(space)
        return self.draws * len(set(sizes_of(cells, self.shares).tolist())) + cells

    def _units(self, space: Sequence[int]) -> int:
        if self.unit == "frames":
            return frame_grid(space)[0]
        return cells_of(space, self.count) if self.unit == "cells" else self.count

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[SubsetEffects]:
        """The masks are those of the sample's seed, and know no map."""
        if self.unit == "frames":
            refuse_stills(inquiry)
        sample = inquiry.sample
        labels = cell_labels(sample.space, self.unit, sample.x[0], self.count)
        assert labels is not None
        subsets = random_subsets(int(labels.max()) + 1, self.shares, self.draws, sample.seed)
        cells = subsets.shape[1]
        hidden = torch.cat([subsets, torch.eye(cells)])
        scores = inquiry.ask(SegmentMasks(1 - hidden, labels), self.baseline, "random subsets")[:, SCORE]
        plain = inquiry.plain(self.baseline)[SCORE]
        effects = plain - scores
        sums = unit_sums(torch.stack([c.values for c in candidates]), labels)
        many = len(subsets)
        return [
            SubsetEffects(
                row, subsets.double(), effects[:many], subsets.sum(1), effects[many:], float(plain)
            )
            for row in sums
        ]  # fmt: skip


@dataclass(frozen=True)
class FrameCoalitions(AnswerBank):
    """All sets of a few stretches of time, so that what each stretch adds is exact: its Shapley value.

    Attributes:
        count: of the stretches at most, each of whole frames.
    """

    name: ClassVar[str] = "all sets of stretches of time"

    count: int = 6

    def shared(self, space: Sequence[int]) -> int:
        """Every set."""
        return int(2 ** min(self.count, space[0]))

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[PartSums]:
        """The sets know no map."""
        refuse_stills(inquiry)
        space = inquiry.sample.space
        stretches = min(self.count, space[0])
        labels = grid_labels(space, (stretches, *[1] * (len(space) - 1)))

        def score(shown: Tensor) -> Tensor:
            found = inquiry.ask(SegmentMasks(shown.float(), labels), self.baseline, "stretches of time")
            return found[:, SCORE, None].double()

        true = exact_shapley(score, stretches).values[:, 0]
        sums = unit_sums(torch.stack([c.values for c in candidates]), labels)
        return [PartSums(row, true) for row in sums]


def sizes_of(cells: int, shares: Sequence[float]) -> Tensor:
    """How many cells each share is, at least one and not all, each size once."""
    wanted = [min(max(1, round(share * cells)), max(1, cells - 1)) for share in shares]
    return torch.tensor(sorted(set(wanted)))


def random_subsets(cells: int, shares: Sequence[float], draws: int, seed: int) -> Tensor:
    """`(sizes x draws, cells)`, 1 where a cell is taken away; `draws` subsets of each size, uniformly drawn."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for size in sizes_of(cells, shares).tolist():
        order = torch.rand(draws, cells, generator=generator).argsort(1)
        rows.append(torch.zeros(draws, cells).scatter_(1, order[:, :size], 1.0))
    return torch.cat(rows)
