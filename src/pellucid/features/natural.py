"""How far a synthetic picture may be believed, measured against natural ones.

Two questions. Does it excite the unit more than anything natural does? And would somebody who has only seen the
synthetic picture recognise what excites the unit (the machine's version of the experiment of Borowski et al. 2021,
arXiv:2010.12606, in which people did so in 82 +- 4 % of the cases, and in 92 +- 2 % from natural exemplars)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import unwrap
from pellucid.features.exemplars import UnitExemplars
from pellucid.features.measures import Measure, look
from pellucid.models.model import VisionModel


@dataclass(frozen=True)
class Standing:
    """A value among those of natural pictures.

    Attributes:
        value: the synthetic picture's number.
        percentile: share of natural pictures below it, in percent.
        ratio: the value over the largest natural one; NaN where that is not positive.
        deviations: standard deviations above the natural mean; NaN where they do not vary.
        count: natural pictures behind it.
    """

    value: float
    percentile: float
    ratio: float
    deviations: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def standing(value: float, natural: UnitExemplars) -> Standing:
    """Where a value lies in a unit's natural distribution; between two percentiles, linearly."""
    levels = natural.percentiles.double()
    below = (levels < value).sum().item()
    largest = float(levels[-1])
    if below in (0, len(levels)):
        percentile = 0.0 if below == 0 else 100.0
    else:
        low, high = float(levels[int(below) - 1]), float(levels[int(below)])
        percentile = below - 1 + (value - low) / (high - low)
    return Standing(
        value,
        percentile,
        value / largest if largest > 0 else float("nan"),
        (value - natural.mean) / natural.std if natural.std > 0 else float("nan"),
        natural.count,
    )


@dataclass(frozen=True)
class Choice:
    """Two-alternative forced choice: of a picture that excites the unit and one that does not, which is which?

    Attributes:
        synthetic: share of pairs told right from the synthetic picture.
        exemplars: share told right from the other exemplars; NaN where there is but one.
        pairs: how many pairs were shown.
    """

    synthetic: float
    exemplars: float
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def forced_choice(synthetic: Tensor, exciting: Tensor, other: Tensor) -> Choice:
    """Every exciting picture against every other one, by likeness to what was seen before.

    From the synthetic picture: the candidate is chosen whose features are nearer to its (cosine). From exemplars: the
    one nearer to the mean of the remaining exciting pictures. Chance is 1/2; a tie counts half.

    Args:
        synthetic: features `(D,)` of the synthetic picture.
        exciting: features `(K, D)` of pictures that excite the unit.
        other: features `(M, D)` of pictures that do not.
    """
    centre = torch.cat([exciting, other]).mean(0)  # what all pictures share tells nothing
    s, a, b = (x.double() - centre.double() for x in (synthetic, exciting, other))
    right = _told(_cosine(a, s), _cosine(b, s)).mean()
    known = torch.tensor(float("nan"))
    if len(a) > 1:
        rest = (a.sum(0) - a) / (len(a) - 1)
        known = torch.stack([_told(_cosine(a[i], r), _cosine(b, r)).mean() for i, r in enumerate(rest)]).mean()
    return Choice(float(right), float(known), len(a) * len(b))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return torch.cosine_similarity(x, y.expand_as(x), dim=-1, eps=1e-12)


def _told(first: Tensor, second: Tensor) -> Tensor:
    """1 for each pair whose first is larger, 1/2 for ties."""
    gap = first[..., None] - second
    return (gap > 0).double() + 0.5 * (gap == 0).double()


def compare(
    model: VisionModel, measure: Measure, natural: Sequence[UnitExemplars], synthetic: Tensor
) -> list[tuple[Standing, Choice | None]]:
    """Each unit's synthetic picture against its natural ones.

    Pictures are compared by what the other units of the layer answer in the cell where the unit fires most; for a
    target, by the layer's average answer.

    Args:
        model: left as it was.
        measure: what the pictures are ranked by.
        natural: the units' exemplars, with top and bottom ones.
        synthetic: the units' synthetic pictures as the model takes them, `(K, C, *space)`.
    """
    found: list[tuple[Standing, Choice | None]] = []
    with measure.opened(unwrap(model.module)) as capture:
        for unit, x in zip(natural, synthetic, strict=True):
            inputs, column = x[None].to(model.device, model.dtype), measure.units.index(unit.unit)
            value = float(measure.scores(capture, inputs)[0, column])
            made = look(measure, capture, inputs)(0, column).features
            choice = None
            if unit.top and unit.bottom:
                sides = [torch.stack([e.features for e in side]) for side in (unit.top, unit.bottom)]
                made, *sides = (_others(f, unit.unit) if measure.local else f for f in (made, *sides))
                choice = forced_choice(made, *sides)
            found.append((standing(value, unit), choice))
    return found


def _others(features: Tensor, unit: int) -> Tensor:
    """Features `(..., C)` without the unit's own, which would give the answer away."""
    return torch.cat([features[..., :unit], features[..., unit + 1 :]], -1)
