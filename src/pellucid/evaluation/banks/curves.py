"""Rank curves: what is left of the score as an input is taken away in the order in which a map ranks it.

One set of forwards (most relevant first, and least relevant first, on one baseline) gives deletion, insertion, LeRF,
MoRF, their difference, AOPC, pixel flipping, the smallest sets that flip or restore an answer, and more. Inserting on a
baseline in some order is deleting in the reverse order on it, read backwards, so insertion costs nothing besides.

Equal values leave together, when the middle of their places is reached. In the order of the places, a map that is zero
but for a spot would be judged by what lies at the top of the picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine.baselines import open_baseline
from pellucid.engine.masks import Masks
from pellucid.evaluation.banks.base import AnswerBank, cell_labels, refuse_stills, unit_sums
from pellucid.evaluation.sample import LEAD, PROBABILITY, SCORE, Candidate, Inquiry, Sample
from pellucid.numerics.ranks import mid_ranks

STEPS = 16


@dataclass(frozen=True)
class RankMasks(Masks):
    """Masks that hide the places of the greatest (or least) ranks, drawn from the ranks when they are run.

    Attributes:
        values: `(M, 3)`: which map, the rank up to which places are hidden, and 1 where the greatest go first, else -1.
        ranks: `(K, *space)`, descending from 0.5 on: see `mid_ranks`.
        units: how many ranks there are.
    """

    values: Tensor
    ranks: Tensor
    units: int

    @property
    def space(self) -> tuple[int, ...]:  # type: ignore[override]
        """The size of the maps."""
        return tuple(self.ranks.shape[1:])

    def render(self, rows: slice | Tensor) -> Tensor:
        """0 where a place is hidden; one half for equal values whose middle is just reached."""
        which, until, first = self.values[rows].unbind(1)
        of = self.ranks[which.long()]
        shape = (-1, *[1] * len(self.space))
        until, first = until.reshape(shape).to(of), first.reshape(shape).to(of)
        away = torch.where(first > 0, of, self.units - of) - until
        return ((away.sign() + 1) / 2)[:, None].float()

    def accumulate(self, weights: Tensor) -> Tensor:
        """The weighted sum, mask by mask."""
        total = torch.zeros(weights.shape[1], *self.space)
        for row in range(len(self)):
            total += weights[row].float().reshape(-1, *[1] * len(self.space)) * self.render(slice(row, row + 1))[0]
        return total

    def take(self, rows: Tensor) -> RankMasks:
        """The masks with these indices."""
        return RankMasks(self.values[rows], self.ranks, self.units)


@dataclass(frozen=True, eq=False)
class MoRFScores:
    """What is left of a sample's scores as the most relevant of one map is hidden first.

    Attributes:
        fractions: share of the units that is hidden, `(S + 1,)`, from 0 to 1.
        most: `(S + 1, 3)`, columns `SCORE`, `PROBABILITY`, `LEAD`.
    """

    fractions: Tensor
    most: Tensor

    @property
    def morf(self) -> Tensor:
        """Probabilities `(S + 1,)` (MoRF, deletion)."""
        return self.most[:, PROBABILITY]

    @property
    def scores(self) -> Tensor:
        """The raw score `(S + 1,)`."""
        return self.most[:, SCORE]

    @property
    def decides(self) -> bool:
        """Whether the target is an answer, which may be kept or lost."""
        return bool(self.most[:, LEAD].any())

    def area(self, values: Tensor) -> float:
        """Area under values `(S + 1,)` over the fractions, by the trapezoid rule."""
        return float(torch.trapezoid(values, self.fractions))


@dataclass(frozen=True, eq=False)
class RankedScores(MoRFScores):
    """Those along both orders of one map.

    Attributes:
        least: `(S + 1, 3)` like `most`, the least relevant hidden first.
        told: how much the input says at each step as the most relevant are shown, `(S + 1,)`; asked for when needed.
    """

    least: Tensor
    told: Callable[[], Tensor] | None = None

    @property
    def lerf(self) -> Tensor:
        """Probabilities `(S + 1,)`, least relevant first (LeRF)."""
        return self.least[:, PROBABILITY]

    @property
    def insertion(self) -> Tensor:
        """Probabilities `(S + 1,)` as the most relevant are shown on the baseline: `LeRF(1 - t)`."""
        return self.lerf.flip(0)


@dataclass(frozen=True)
class MoRFCurves(AnswerBank):
    """The curve of each map's own order: half the passes of `RankCurves`, for metrics that read no more.

    Attributes:
        unit: what leaves at a time: `pixels` (of the input); `cells`, `superpixels` or `frames`, by their mean.
        steps: of a curve.
        count: superpixels, or cells along the longest axis; 0: as many as usual.
    """

    name: ClassVar[str] = "rank curves"
    ends: ClassVar[int] = 2
    orders: ClassVar[int] = 1

    unit: str = "pixels"
    steps: int = STEPS
    count: int = 0

    def own(self, space: Sequence[int]) -> int:
        """The orders, without their ends."""
        return self.orders * (self.steps - 1)

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """All maps' masks in one go."""
        fractions, _, _, found = self.asked(inquiry, candidates)
        return [MoRFScores(fractions, most) for (most,) in found]

    def asked(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> tuple[Tensor, Tensor, int, Tensor]:
        """Fractions `(S + 1,)`, ranks `(K, *space)`, how many units there are, and scores `(K, orders, S + 1, 3)`."""
        if self.unit == "frames":
            refuse_stills(inquiry)
        maps = torch.stack([c.values for c in candidates])
        labels = cell_labels(inquiry.sample.space, self.unit, inquiry.sample.x[0], self.count)
        ranks, units = unit_ranks(maps, labels)
        fractions = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        return fractions, ranks, units, curves(inquiry, ranks, units, fractions, self.baseline, self.orders)


@dataclass(frozen=True)
class RankCurves(MoRFCurves):
    """Both curves of each map."""

    orders: ClassVar[int] = 2

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """All maps' masks in one go."""
        fractions, ranks, units, found = self.asked(inquiry, candidates)
        sizes = (partial(shown_sizes, inquiry.sample, own, units, fractions, self.baseline) for own in ranks)
        return [RankedScores(fractions, most, least, told) for (most, least), told in zip(found, sizes, strict=True)]


def unit_ranks(maps: Tensor, labels: Tensor | None) -> tuple[Tensor, int]:
    """Descending ranks `(K, *space)` of maps, all places of a unit alike, and how many units there are."""
    if labels is None:
        units = maps[0].numel()
        return (units - mid_ranks(maps.double().flatten(1))).reshape(maps.shape), units
    means = unit_sums(maps, labels, mean=True)
    units = means.shape[1]
    return (units - mid_ranks(means))[:, labels.cpu()], units


def curves(inquiry: Inquiry, ranks: Tensor, units: int, fractions: Tensor, baseline: str, orders: int = 2) -> Tensor:
    """Scores `(K, orders, S + 1, 3)` of maps with these ranks, at fractions `(S + 1,)` that run from 0 to 1.

    Of two orders the first hides the greatest first, the second the least.
    """
    inner = fractions[1:-1] * units
    count, steps = len(ranks), len(inner)
    which = torch.arange(count, dtype=torch.float64).repeat_interleave(orders * steps)
    until = inner.repeat(orders * count)
    first = torch.tensor([1.0, -1.0], dtype=torch.float64)[:orders].repeat_interleave(steps).repeat(count)
    plain, blank = inquiry.plain(baseline), inquiry.blank(baseline)
    found = torch.zeros(count, orders, 0, len(plain), dtype=torch.float64)
    if steps:
        masks = RankMasks(torch.stack([which, until, first], 1), ranks, units)
        found = inquiry.ask(masks, baseline, "rank curves").reshape(count, orders, steps, -1)
    return torch.cat([plain.expand(count, orders, 1, -1), found, blank.expand(count, orders, 1, -1)], 2)


def shown_sizes(sample: Sample, ranks: Tensor, units: int, fractions: Tensor, baseline: str) -> Tensor:
    """Bytes `(S + 1,)` of the input deflated, as its places of the greatest ranks are shown on a baseline.

    Values are rounded to 8 bits between the input's least and greatest, and told as differences along a row.
    """
    x = sample.x.detach().cpu().float()
    behind = open_baseline(baseline, x, torch.Generator().manual_seed(sample.seed))
    low, high = float(x.min()), float(x.max())
    sizes = []
    for fraction in fractions.tolist():
        kept = (ranks <= fraction * units)[None, None].float()
        shown = torch.lerp(behind.behind(0, kept), x, kept)
        levels = ((shown - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.int16)
        steps = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1])).remainder(256).to(torch.uint8)
        sizes.append(len(zlib.compress(steps.numpy().tobytes(), 6)))
    return torch.tensor(sizes, dtype=torch.float64)
