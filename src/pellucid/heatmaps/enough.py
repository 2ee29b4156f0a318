"""What is enough, what is needed: regions of an input, not weights of its places.

Minimal sufficient, necessary ("contrastive") and complete explanations are those of actual causality (Chockler,
Kroening et al., ReX, 2024-2026). A region is a set of cells of a grid; what it claims is tried on the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine.capture import Cost
from pellucid.errors import MethodError
from pellucid.heatmaps.base import method
from pellucid.heatmaps.region_search import Margins, Question, RegionMethod, Searches
from pellucid.models.targets import TargetLike
from pellucid.numerics.subsets import Smallest, first
from pellucid.scoring.job import ModelLike, prepare


@method(
    "sufficient",
    family="region",
    needs="outputs",
    cost="some 150 forwards for a first map and up to budget (600) for each region",
    paper="Chockler, Kroening & Sun, Kelly et al. 2024-2026 (ReX); Chockler & Halpern 2004, responsibility",
)
@dataclass(frozen=True, kw_only=True)
class SufficientRegion(RegionMethod):
    """The smallest region that keeps the answer on its own, all else hidden: 1 inside, 0 outside. `(N, *grid)`.

    Args:
        cells: grid cells on the longest axis, the others in proportion, or a number for each axis: (16, 1, 1) are
            frames of a clip, (1, 14, 14) tubes; None: 14 for two axes, at most 6 on each of three.
        finer: parts that a cell is cut into along each axis once the coarse region is found; 1: none.
        keep: see above; None: the answer.
        budget: regions tried at most, for each that is found.
        baseline: what shows where a cell is hidden: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the first map's masks and of a random baseline.
        many: up to so many regions that share no cell: other ways to know it. The k-th has the value `1 / k`.
        share: show this share of the cells, in the order of the first map, and search nothing; see `guarantee`.
        guarantee: the share of new pictures whose region may fail to suffice, which `share` was calibrated for.
    """

    question: ClassVar[str] = "keeps the answer on its own"

    many: int = 1
    share: float | None = None
    guarantee: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.many < 1:
            raise MethodError(f"At least one region is looked for; got many={self.many}.")
        if self.share is not None and not 0 <= self.share <= 1:
            raise MethodError(f"A share of the cells lies between 0 and 1; got {self.share}.")

    @property
    def regions(self) -> int:
        """Regions that are looked for."""
        return self.many

    def quick(self) -> SufficientRegion:
        """One region, at most 150 tried; the further ones follow from what it leaves."""
        return replace(self, budget=min(150, self.budget), many=1)

    def search(self, question: Question, free: Tensor) -> Smallest:
        """The smallest that passes; or the first cells of the first map, so many as were calibrated."""
        if self.share is None:
            return super().search(question, free)
        members = first(question.orders[0], [round(self.share * len(free))], len(free))
        return Smallest(members[0], float(question.margins(members)[0]), 1, 0, False, False)

    def margin(self, shown: Margins) -> Margins:
        """The region alone."""
        return shown


@method(
    "necessary",
    family="region",
    needs="outputs",
    cost="as sufficient, with which it shares the first map and every score",
    paper="Chockler, Kroening & Sun, Kelly et al. 2024-2026 (ReX)",
)
@dataclass(frozen=True, kw_only=True)
class NecessaryRegion(RegionMethod):
    """The smallest region without which the answer is another, all else shown: 1 inside, 0 outside. `(N, *grid)`.

    Args:
        cells, finer, keep, budget, baseline, seed: as of `sufficient`.
    """

    question: ClassVar[str] = "changes the answer when it is hidden"

    def margin(self, shown: Margins) -> Margins:
        """All but the region."""
        return lambda sets: _fails(shown(~sets))

    def left(self, region: Tensor) -> Tensor:
        """All but the region."""
        return ~region


@method(
    "complete",
    family="region",
    needs="outputs",
    cost="as sufficient, with which it shares the first map and every score",
    paper="Chockler, Kroening & Sun, Kelly et al. 2024-2026 (ReX)",
)
@dataclass(frozen=True, kw_only=True)
class CompleteRegion(RegionMethod):
    """The smallest region that keeps the answer alone and changes it when hidden: 1 inside, 0 outside. `(N, *grid)`.

    Args:
        cells, finer, keep, budget, baseline, seed: as of `sufficient`.
    """

    question: ClassVar[str] = "keeps the answer on its own and changes it when it is hidden"

    def margin(self, shown: Margins) -> Margins:
        """The region alone, and all but the region."""

        def both(sets: Tensor) -> Tensor:
            alone, hidden = shown(torch.cat([sets, ~sets])).chunk(2)
            return torch.minimum(alone, _fails(hidden))

        return both


def _fails(margins: Tensor) -> Tensor:
    """The margin of the opposite: a tie is no answer any more."""
    return torch.where(margins == 0, torch.finfo(torch.float64).tiny, -margins)


def least_shares(method: SufficientRegion, model: ModelLike, inputs: Tensor, target: TargetLike = None) -> list[float]:
    """For each input the least share of its cells, in the order of the first map, from which on all are sufficient.

    The quantile of these over pictures that were not chosen is a share that suffices for new ones (split conformal
    prediction, Vovk et al. 2005; of sufficient explanations, arXiv:2509.21209).
    """
    job, cost = prepare(model, inputs, [target]), Cost()
    return [Searches(method, job, n, cost).least_shares()[0] for n in range(len(job.inputs))]


def certificate(facts: Mapping[str, float]) -> str:
    """What vouches for a region, in a line, from the facts of its map; empty where none was found."""
    area, score = facts.get("area", math.nan), facts.get("score", math.nan)
    if not {"area", "tried", "smaller"} <= facts.keys() or math.isnan(area):
        return ""
    says = (
        f"{area:.1%} of the input; score {score:.2f} so, {facts['whole']:.2f} with all, {facts['blank']:.2f} with none"
    )
    if facts["tried"] <= 1:
        return f"{says}; its size was calibrated, no smaller one was tried"
    if facts["proven"]:
        return f"{says}; no smaller region passes, all were tried"
    cell = ", nor can any single cell be missed" if facts["minimal"] else ""
    return f"{says}; none of the {facts['smaller']:.0f} smaller regions tried passes{cell} ({facts['tried']:.0f} tried)"
