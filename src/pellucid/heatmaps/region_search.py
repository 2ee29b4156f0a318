"""The search for regions: which cells of an input keep an answer, asked of the model alone.

Each input and target is searched by itself, for all methods on one memory of scores: no set of cells is shown twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.engine.capture import Cost
from pellucid.engine.masks import SegmentMasks, grid_labels
from pellucid.engine.memory import Memory
from pellucid.engine.perturb import MaskScorer, Scores
from pellucid.errors import MethodError, PellucidError
from pellucid.heatmaps.base import Attribution
from pellucid.heatmaps.cam import GradCAM
from pellucid.heatmaps.path import IntegratedGradients
from pellucid.heatmaps.perturbation import PerturbationMethod, on_patches
from pellucid.heatmaps.sampling import RISE, cells_per_axis
from pellucid.models.blackbox import BlackBox
from pellucid.models.targets import Target
from pellucid.numerics.subsets import Smallest, consensus, first, smallest
from pellucid.scoring.job import Job
from pellucid.scoring.masked import masked

_MASKS = 128  # of the sampled map that a search begins with, at most
_A_MASK = 4  # regions of the budget for each of them
_AMPLE = 512  # regions from which on a third map, which costs as much as 34 of them, is worth it
_HALF = 0.5  # of what the input adds to a score, where that is no answer
_LEVELS = 49  # sizes of the regions that a guarantee chooses from
_GIVEN_AWAY = (
    "The baseline alone gives this answer, so half of what the input adds to its score is asked for in its place: take "
    "another baseline, or say which share to keep."
)
_TIE = 1e-6  # of a share: rounding

Margins = Callable[[Tensor], Tensor]
"""Sets of cells that are shown `(M, K)`, bool -> by how much the answer is kept, `(M,)`; above 0: it is."""


@dataclass(frozen=True, kw_only=True)
class RegionMethod(PerturbationMethod):
    """Base of `sufficient`, `necessary` and `complete`: their searches share every score.

    The answer is kept where the target class is what the model says (ahead of all other classes; a probability above
    one half where classes do not exclude each other; of a contrast, the first ahead of the second). Where the target is
    no such answer (a unit, a function, a class that is not the first), or the baseline alone gives it, a region must
    keep half of what the input adds to its score over the baseline; or the share `keep`, if it is given.
    """

    signed: ClassVar[bool] = False
    question: ClassVar[str]

    cells: int | tuple[int, ...] | None = None
    finer: int = 1
    keep: float | None = None
    budget: int = 600
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep < 1:
            raise MethodError(f"The share to keep lies between 0 and 1, such as 0.9; got {self.keep}.")
        if self.finer < 1:
            raise MethodError(f"A cell is cut into 1 or more parts along each axis; got finer={self.finer}.")
        if self.budget < 8:
            raise MethodError(f"{self.budget} regions are too few for a search: give a budget of 8 or more.")

    def quick(self) -> RegionMethod:
        """At most 150 regions."""
        return replace(self, budget=min(150, self.budget))

    def pass_key(self) -> Hashable:
        """One search after the other on one memory of scores."""
        ground = self.baseline if isinstance(self.baseline, str) else id(self.baseline)
        return RegionMethod, self.cells, self.finer, self.keep, ground, self.seed

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each input by itself, so that its region does not depend on its company."""
        cost = Cost()
        rows = [
            Searches(methods[0], job, n, cost).found(methods) for n in range(len(job.inputs))
        ]  # [input][method][target]
        return [
            on_patches(m, job, [_together([row[a][t] for row in rows], job, cost) for t in range(len(job.targets))])
            for a, m in enumerate(methods)
        ]

    def margin(self, shown: Margins) -> Margins:
        """By how much a region passes."""
        raise MethodError(f"{self.name} cannot run.")

    def search(self, question: Question, free: Tensor) -> Smallest:
        """The smallest region among the free cells that passes."""
        test = self.margin(question.margins)
        return smallest(test, question.orders, budget=self.budget, among=free, groups=question.groups)

    @property
    def regions(self) -> int:
        """Regions that are looked for."""
        return 1

    def left(self, region: Tensor) -> Tensor:
        """The cells that stay when its claim is shown, given the region."""
        return region


@dataclass
class Region:
    """What one method found for one input and target.

    Attributes:
        cells: `(regions, *grid)`, bool.
        area: share of the input that the first of them covers.
        score: the probability where `RegionMethod.left` is shown; `whole`, `blank`: where all is, where nothing is.
        search: how the first was found.
        notes: what the reader must know.
    """

    cells: Tensor
    area: float
    score: float
    whole: float
    blank: float
    search: Smallest
    notes: list[str] = field(default_factory=list)


@dataclass
class Question:
    """Whether sets of cells of one input keep the answer for one target.

    Attributes:
        scorer, labels: of the input; the cell of each place.
        column: of the target's three scores.
        ends: those scores `(2, 3)` of the baseline and of the input.
        keep: the share of the score that is to be kept; None: the answer.
        orders: of the cells, by the maps that the search begins with.
        groups: the coarser cell that each cell is a part of; None: there are none.
    """

    scorer: MaskScorer
    labels: Tensor
    column: int
    ends: Tensor
    keep: float | None
    orders: list[Tensor]
    groups: Tensor | None = None

    def scores(self, shown: Tensor) -> Tensor:
        """Score, probability and lead `(M, 3)` of sets `(M, K)` of cells."""
        masks = SegmentMasks(shown.float().to(self.labels.device), self.labels)
        return self.scorer(masks, label="regions")[0, :, self.column : self.column + 3].cpu()

    def margins(self, shown: Tensor) -> Tensor:
        """See `Margins`."""
        found = self.scores(shown)
        if self.keep is None:
            return found[:, 2]
        blank, whole = self.ends[:, 0]
        added = found[:, 0] - blank
        share: Tensor = added / (whole - blank) if whole != blank else added * 0
        return share - (self.keep - _TIE)

    def area(self, region: Tensor) -> float:
        """The share of the input that a set of cells `(K,)` covers."""
        return float(region[self.labels.cpu()].double().mean())


class Searches:
    """All searches of one input: methods x targets, on one memory.

    Args:
        settings: a method whose grid, baseline and seed all share.
        job: the batch.
        n: which input.
        cost: is added to.
    """

    def __init__(self, settings: RegionMethod, job: Job, n: int, cost: Cost) -> None:
        row = torch.tensor([n])
        memory = Memory(1) if job.memory is None else job.memory.only(n)
        self.job = Job(job.module, job.inputs[n : n + 1], tuple(t.select(row) for t in job.targets), memory)
        self.settings, self.cost = settings, cost
        self.ground = settings.baseline
        if isinstance(self.ground, Tensor) and self.ground.ndim == job.inputs.ndim and len(self.ground) > 1:
            self.ground = self.ground[n : n + 1]

    def found(self, methods: Sequence[RegionMethod]) -> list[list[Region]]:
        """`[method][target]`."""
        with self._questions() as (questions, grid):
            return [[_search(m, q, grid) for q in questions] for m in methods]

    def least_shares(self) -> list[float]:
        """For each target the least share of the cells, in the order of the maps, from which on all keep the answer."""
        with self._questions() as (questions, _):
            return [_least_share(q) for q in questions]

    @contextmanager
    def _questions(self) -> Iterator[tuple[list[Question], tuple[int, ...]]]:
        maps = self._maps()
        asked = replace(self.job, targets=self.job.targets * 3)
        with masked(asked, self.ground, self.settings.seed, _leads) as scorer:
            given = self.settings.cells
            grid = cells_per_axis(_default(scorer.space) if given is None else given, scorer.space)
            parts = [
                self.settings.finer if g > 1 and g * self.settings.finer <= s else 1
                for g, s in zip(grid, scorer.space, strict=True)
            ]
            coarse, grid = grid, tuple(g * k for g, k in zip(grid, parts, strict=True))
            labels = grid_labels(scorer.space, grid).to(scorer.inputs.device)
            groups = None if coarse == grid else grid_labels(grid, coarse).flatten()
            ends = torch.cat([scorer.blank(), scorer.plain()]).cpu()
            questions = []
            for t, found in enumerate(maps):
                orders = [_order(values, labels) for values in found]
                orders = [consensus(orders), *orders] if orders else [torch.arange(math.prod(grid))]
                part = ends[:, 3 * t : 3 * t + 3]
                decides = part[1, 2] > 0 and not part[0, 2] > 0
                keep = _HALF if self.settings.keep is None and not decides else self.settings.keep
                questions.append(Question(scorer, labels, 3 * t, part, keep, orders, groups))
            yield questions, grid
            self.cost.forwards += scorer.cost.forwards

    def _maps(self) -> list[list[Tensor]]:
        """The engine's cheap maps, `[target][map]`, each `(*any)`: by masks, and by gradients where there are some."""
        masks = min(_MASKS, self.settings.budget // _A_MASK + 1)
        by_masks = RISE(samples=masks, cells=7, baseline=self.ground, seed=self.settings.seed)
        methods: list[Any] = [by_masks]
        if not isinstance(self.job.module, BlackBox):
            methods.append(GradCAM())
            if self.settings.budget >= _AMPLE:
                methods.append(IntegratedGradients(max_steps=16, tolerance=None))
        found: list[list[Tensor]] = [[] for _ in self.job.targets]
        plain = replace(self.job, memory=None)
        for m in methods:
            with suppress(*[] if m is by_masks else [PellucidError]):  # some models have no gradients
                m.check_model(self.job.module)
                attributions = type(m).run([m], plain)[0]
                for maps, a in zip(found, attributions, strict=True):
                    values = a.values[0].detach()
                    maps.append(values.sum(0) if values.ndim == len(self.job.space) + 1 else values)
                self.cost.forwards += attributions[0].cost.forwards
                self.cost.backwards += attributions[0].cost.backwards
        return found


def _leads(targets: Sequence[Target]) -> Scores:
    """Of each target its score, its probability, and by how much it is the answer (0 where it is none)."""

    def score(output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        found = []
        for t in (t.select(rows) for t in targets[: len(targets) // 3]):
            raw, lead = t.score(output, watched), t.lead(output, watched)
            found += [raw, t.probability(output, watched), torch.zeros_like(raw) if lead is None else lead]
        return found

    return score


def _default(space: Sequence[int]) -> int | tuple[int, ...]:
    return min(14, max(space)) if len(space) < 3 else tuple(min(6, s) for s in space)


def _order(values: Tensor, labels: Tensor) -> Tensor:
    """Cells `(K,)`, the first the one with the largest mean of a map `(*any)` drawn over the space of `labels`."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[labels.ndim]
    drawn = interpolate(values[None, None].float().cpu(), size=labels.shape, mode=mode, align_corners=False)
    where = labels.cpu().flatten()
    sums = torch.zeros(int(where.max()) + 1).index_add_(0, where, drawn.flatten())
    return (sums / where.bincount()).argsort(descending=True, stable=True)


def _search(method: RegionMethod, question: Question, grid: tuple[int, ...]) -> Region:
    count = math.prod(grid)
    free = torch.ones(count, dtype=torch.bool)
    regions = torch.zeros(method.regions, count, dtype=torch.bool)
    notes = []
    if method.keep is None and question.ends[0, 2] > 0:
        notes.append(_GIVEN_AWAY)
    search = best = method.search(question, free)
    for k in range(method.regions):
        search = method.search(question, free) if k else best
        if search.members is None or not search.members.any():
            break
        regions[k], free = search.members, free & ~search.members
    if best.members is None:
        notes.append(f"No region was found that {method.question}, not even the whole.")
    elif best.members.any() and not regions[-1].any():
        notes.append(f"There is no further region of its own that {method.question}.")
    none = best.members is None
    return Region(
        regions.reshape(-1, *grid),
        math.nan if none else question.area(regions[0]),
        math.nan if none else float(question.scores(method.left(regions[:1]))[0, 1]),
        float(question.ends[1, 1]),
        float(question.ends[0, 1]),
        best,
        notes,
    )


def _least_share(question: Question) -> float:
    count = len(question.orders[0])
    counts = sorted({round(count * k / _LEVELS) for k in range(_LEVELS + 1)})
    kept = question.margins(first(question.orders[0], counts, count)) > 0
    fails = (~kept).nonzero()[:, 0]
    from_ = int(fails[-1]) + 1 if len(fails) else 0
    return counts[min(from_, len(counts) - 1)] / count


def _together(rows: Sequence[Region], job: Job, cost: Cost) -> Attribution:
    """The batch's regions as one attribution."""
    cells = torch.stack([r.cells for r in rows]).float()
    rank = torch.arange(1, cells.shape[1] + 1).reshape(-1, *[1] * (cells.ndim - 2))
    facts = {name: [float(getattr(r, name)) for r in rows] for name in ("area", "score", "whole", "blank")}
    facts["regions"] = [float(r.cells.flatten(1).any(1).sum()) for r in rows]
    facts |= {
        name: [float(getattr(r.search, name)) for r in rows] for name in ("tried", "smaller", "minimal", "proven")
    }
    notes = list(dict.fromkeys(note for r in rows for note in r.notes))
    values = (cells / rank).sum(1).to(job.inputs.device)
    return Attribution(values, notes=notes, facts=facts, extras={"regions": cells}, cost=cost)
