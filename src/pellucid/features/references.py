"""Objectives about other pictures (caricature, inversion, diversity), and regularisers about the picture alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from pellucid.engine import Capture, unwrap
from pellucid.errors import TargetError
from pellucid.features.objectives import Objective, Seen, _AtLayer, dot_cosine
from pellucid.models.model import VisionModel


@dataclass(frozen=True, eq=False)
class _Referred(_AtLayer):
    """Base of what compares a layer's activation with that of a reference input `(C, *space)`, in model units."""

    reference: Tensor = field(default_factory=lambda: torch.zeros(0))
    at_reference: Tensor | None = field(default=None, repr=False, kw_only=True)

    def bind(self, model: VisionModel, sample: Tensor) -> _Referred:
        """The activation at the reference taken."""
        bound = cast(_Referred, super().bind(model, sample))
        x = self.reference.detach()
        x = x[None] if x.ndim == sample.ndim - 1 else x
        if x.shape != sample.shape:
            raise TargetError(
                f"The reference has shape {tuple(self.reference.shape)}, not {tuple(sample.shape[1:])} as the model's "
                "input: prepare it with the model's preprocessing."
            )
        with Capture(unwrap(model.module), [self.layer], stop_early=True) as capture, torch.no_grad():
            capture.forward(x.to(sample))
            found = bound.cells(Seen(None, capture.activations, sample, torch.zeros(1, dtype=torch.long))).clone()
        return replace(bound, at_reference=found)

    def both(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The activations `(R, D)` and the reference's `(1, D)`."""
        assert self.at_reference is not None
        return self.cells(seen).flatten(1), self.at_reference.flatten(1)


@dataclass(frozen=True, eq=False)
class Caricature(_Referred):
    """What the layer sees in a reference, exaggerated: `a.r max(floor, cos(a, r))^power / |r|` (Olah et al. 2018)."""

    power: float = 1.0
    floor: float = 0.1

    def score(self, seen: Seen) -> Tensor:
        """Over all channels and cells at once."""
        a, r = self.both(seen)
        return dot_cosine(a, r / r.norm().clamp(min=1e-12), 1, self.power, self.floor)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`caricature by layer`."""
        return f"a caricature by {self.layer}"


@dataclass(frozen=True, eq=False)
class Inversion(_Referred):
    """A picture with the reference's activation: `-|a - r|^2 / |r|^2` (Mahendran & Vedaldi 2015, eq. 2)."""

    def score(self, seen: Seen) -> Tensor:
        """0 is a perfect inversion."""
        a, r = self.both(seen)
        return -(a - r).square().sum(1) / r.square().sum().clamp(min=1e-12)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`inversion of layer`."""
        return f"an inversion of {self.layer}"


@dataclass(frozen=True)
class Diversity(_AtLayer):
    """Several pictures for one objective that differ in a layer's textures (Olah et al. 2017, "Diversity").

    `- mean over the other pictures of cos(G_p, G_q)` with the Gram matrices `G = A A^T` of each view. Added to another
    objective with a weight; `count` pictures come out.
    """

    count: int = 4

    @property
    def pictures(self) -> int:
        """`count`."""
        return self.count

    def bind(self, model: VisionModel, sample: Tensor) -> Diversity:
        """With at least two pictures."""
        if self.count < 2:
            raise TargetError(f"Diversity is between pictures: ask for at least 2, not {self.count}.")
        return cast(Diversity, super().bind(model, sample))

    def score(self, seen: Seen) -> Tensor:
        """Each view compared with the same view of the other pictures; 0 where there is nothing to compare with."""
        A = self.cells(seen)
        if len(A) % self.count:
            return A.flatten(1).sum(1) * 0
        grams = torch.nn.functional.normalize((A @ A.mT).flatten(1), dim=1)
        grams = grams.reshape(self.count, -1, grams.shape[1])
        alike = torch.einsum("pvd,qvd->pvq", grams, grams)
        return -((alike.sum(2) - alike.diagonal(dim1=0, dim2=2).mT) / (self.count - 1)).flatten()

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`diversity in layer`."""
        return f"diversity in {self.layer}"


@dataclass(frozen=True)
class _Regulariser(Objective):
    """Base of measures of the picture alone; subtract them: `objective - 0.1 * TotalVariation()`."""

    @property
    def regulariser(self) -> bool:
        """It is one."""
        return True

    def score(self, seen: Seen) -> Tensor:
        """Of the picture each row shows."""
        return self.measure(seen.pictures.float())[seen.owner.to(seen.pictures.device)]

    @abstractmethod
    def measure(self, pictures: Tensor) -> Tensor:
        """Pictures `(P, C, *space)` in display units -> `(P,)`."""


@dataclass(frozen=True)
class TotalVariation(_Regulariser):
    """`mean |difference to the next pixel|`, summed over the space axes: large for noise, small for flat areas.

    Attributes:
        temporal: weight of the axis of time in clips.
    """

    temporal: float = 1.0

    def measure(self, pictures: Tensor) -> Tensor:
        """`(P,)`."""
        axes = range(2, pictures.ndim)
        weights = [self.temporal if pictures.ndim == 5 and axis == 2 else 1.0 for axis in axes]
        steps = [pictures.diff(dim=axis).abs().flatten(1) for axis in axes]
        return torch.stack([w * s.mean(1) for w, s in zip(weights, steps, strict=True) if s.shape[1]]).sum(0)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`total variation`."""
        return "total variation"


@dataclass(frozen=True)
class PixelNorm(_Regulariser):
    """`mean |x - level|^power`: how far the picture is from plain grey; L2 with power 2, L1 with power 1."""

    power: float = 2.0
    level: float = 0.5

    def measure(self, pictures: Tensor) -> Tensor:
        """`(P,)`."""
        return (pictures - self.level).abs().pow(self.power).flatten(1).mean(1)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`contrast`."""
        return f"contrast (L{self.power:g})"
