"""How far a synthetic picture may be believed, measured against natural ones.

Two questions. Does it excite the unit more than anything natural does? And would somebody who has only seen the
synthetic picture recognise what excites the unit (the machine's version of the experiment of Borowski et al. 2021,
arXiv:2010.12606, in which people did so in 82 +- 4 % of the cases, and in 92 +- 2 % from natural exemplars)?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import Capture, default_batch, unwrap
from pellucid.features.exemplars import UnitExemplars
from pellucid.features.folder import Patch
from pellucid.media import read_image
from pellucid.models.layers import Layer
from pellucid.models.model import VisionModel

Embed = Callable[[Tensor], Tensor]
"""Model inputs `(N, C, *space)` -> features `(N, D)`."""


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


def embedding(model: VisionModel, layer: Layer) -> Embed:
    """Features of a layer, averaged over its cells."""

    def embed(inputs: Tensor) -> Tensor:
        parts = []
        with Capture(unwrap(model.module), [layer.name], stop_early=True) as capture:
            for part in inputs.split(default_batch(model.device)):  # type: ignore[no-untyped-call]
                capture.forward(part.to(model.device, model.dtype))
                maps = layer.layout.to_map(capture.activations[layer.name])
                parts.append(maps.float().flatten(2).mean(2).cpu())
        return torch.cat(parts)

    return embed


def crops(model: VisionModel, patches: Sequence[Patch], size: Sequence[int]) -> Tensor:
    """What is looked at in each picture, enlarged to the model's input: `(K, C, *size)`."""
    parts = []
    for patch in patches:
        x, _ = model.preprocess(read_image(patch.origin.source))
        region = tuple(slice(int(start), max(int(start) + 1, round(stop))) for start, stop in patch.box)
        parts.append(torch.nn.functional.interpolate(x[None, :, *region], tuple(size), mode="bilinear")[0])
    return torch.stack(parts)
