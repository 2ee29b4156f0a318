"""A bank: what a model is asked once, so that many metrics can read their values from the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine.masks import grid_labels
from pellucid.errors import MediaError, MethodError
from pellucid.evaluation.faithfulness import cell_grid, frame_grid
from pellucid.evaluation.sample import Candidate, Inquiry
from pellucid.media.segments import superpixels

UNITS = ("pixels", "cells", "superpixels", "frames")


@dataclass(frozen=True)
class AnswerBank(ABC):
    """A frozen dataclass of settings: metrics that name equal banks share one.

    Attributes:
        baseline: what shows where something is hidden; empty: the evaluation's own.
    """

    baseline: str = ""

    name: ClassVar[str]
    oracle: ClassVar[bool] = False  # of suites alone, whose truth is a map that is measured beside the others
    parts: ClassVar[bool] = False  # of scenes alone, whose parts are known
    swayed: ClassVar[bool] = False  # of models alone that a part of the input can bring to another answer
    across: ClassVar[bool] = False  # read when all samples are there
    reads: ClassVar[tuple[AnswerBank, ...]] = ()  # other banks, whose answers it puts together: it asks nothing itself
    ends: ClassVar[int] = 0  # 1: the input as it is counts too; 2: and nothing of it

    def shared(self, space: Sequence[int]) -> int:
        """Inputs that are asked for once a sample, whatever the number of maps, without the ends."""
        return 0

    def own(self, space: Sequence[int]) -> int:
        """Masked inputs that are asked for each map."""
        return 0

    def redrawn(self) -> int:
        """How often each competitor draws a map anew for a sample."""
        return 0

    @abstractmethod
    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """What metrics read, one for each candidate; or the exception that one of them ended in."""


def cell_labels(space: Sequence[int], unit: str, x: Tensor | None = None, count: int = 0) -> Tensor | None:
    """Which unit each place belongs to, `(*space)`, 0 to K - 1; None: each place is one.

    Raises:
        MethodError: there is no such unit.
    """
    if unit == "pixels":
        return None
    if unit == "frames":
        return grid_labels(space, frame_grid(space))
    if unit == "cells":
        grid = cell_grid(space)
        return grid_labels(space, _coarser(grid, count) if count else grid)
    if unit == "superpixels" and x is not None:
        try:
            return superpixels(x.detach().cpu().float(), count or 100)
        except MediaError:  # of an odd number of channels: as grey
            return superpixels(x.detach().cpu().float().mean(0, keepdim=True), count or 100)
    raise MethodError(f"There is no unit {unit!r}: choose {', '.join(UNITS)}.")


def _coarser(grid: Sequence[int], longest: int) -> tuple[int, ...]:
    return tuple(max(1, min(g, round(longest * g / max(grid)))) for g in grid)


def cells_of(space: Sequence[int], count: int) -> int:
    """How many cells `cell_labels(space, "cells", count=count)` has."""
    grid = cell_grid(space)
    total = 1
    for g in _coarser(grid, count) if count else grid:
        total *= g
    return total


def refuse_stills(inquiry: Inquiry) -> None:
    """What is read from frames is asked of clips.

    Raises:
        MethodError: the model takes no clips.
    """
    if not inquiry.sample.model.medium.moving:
        raise MethodError(f"{inquiry.sample.name} has no frames: this metric is of clips.")


def unit_sums(maps: Tensor, labels: Tensor, *, mean: bool = False) -> Tensor:
    """Maps `(K, *space)` summed (or averaged) over units: `(K, units)`, double precision."""
    flat, owner = maps.double().flatten(1).cpu(), labels.flatten().cpu()
    units = int(owner.max()) + 1
    sums = torch.zeros(len(flat), units, dtype=torch.float64).index_add_(1, owner, flat)
    return sums / torch.bincount(owner, minlength=units).clamp(min=1) if mean else sums
