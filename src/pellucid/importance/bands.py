"""Players that are parts of the input everywhere at once: bands of frequency or colour, properties of the picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine import adaptive_batches
from pellucid.engine.baselines import blur
from pellucid.engine.perturb import MaskScorer
from pellucid.errors import MethodError, ModelError, UnsteadyError
from pellucid.importance.game import Game, Players
from pellucid.importance.path import Path
from pellucid.importance.regions import input_gradients
from pellucid.numerics.games import UnfinishedError
from pellucid.scoring.job import Job
from pellucid.scoring.masked import masked

Make = Callable[[Tensor], Tensor]
"""Coalitions `(m, K)` -> inputs `(m, C, *space)`."""


class _Made(Players):
    """Base of players whose coalitions are made as whole inputs; what is left to a kind is `parts`."""

    @abstractmethod
    def parts(self, x: Tensor) -> tuple[list[str], Make]:
        """For an input `(1, C, *space)`: the players' names, and how inputs are made of coalitions."""

    def shown(self, make: Make, count: int) -> Tensor:
        """`(K, C, *space)`: what each player looks like."""
        return make(torch.eye(count))

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Made inputs through the scorer."""
        names, make = self.parts(job.inputs.detach())
        with masked(job, "zero") as scorer:
            looks = {"inputs": self.shown(make, len(names)).float().cpu()}
            yield Game(lambda coalitions: _scored(scorer, make, coalitions), names, scorer.cost, looks)


def _scored(scorer: MaskScorer, make: Make, coalitions: Tensor) -> Tensor:
    out = torch.full((len(coalitions), scorer.targets), torch.nan, dtype=torch.float64)

    def run(start: int, stop: int) -> None:
        inputs = make(coalitions[start:stop])
        out[start:stop] = scorer.evaluate(inputs, torch.zeros(len(inputs), dtype=torch.long)).cpu()

    try:
        scorer.batch = adaptive_batches(run, len(coalitions), scorer.batch, label="coalitions")
    except UnsteadyError:
        raise
    except ModelError as failure:
        raise UnfinishedError(failure, out) from failure
    return out


class _Summed(_Made):
    """Base of bands that add up to the input: what is left to a kind is `split`.

    What is out is left out, or comes from `donor`, another input.
    """

    donor: Tensor | None

    @abstractmethod
    def split(self, x: Tensor) -> tuple[list[str], Tensor, Tensor]:
        """For `(1, C, *space)`: names, the part of no player `(1, C, *space)`, the parts `(K, C, *space)`."""

    def parts(self, x: Tensor) -> tuple[list[str], Make]:
        """Sums of the parts that are in, and of the donor's in place of those that are out."""
        names, constant, parts = self.split(x)
        other = torch.zeros_like(parts) if self.donor is None else self.split(self.donor.to(x))[2]

        def make(coalitions: Tensor) -> Tensor:
            kept = coalitions.to(parts)
            return constant + torch.einsum("mk,k...->m...", kept, parts - other) + other.sum(0, keepdim=True)

        return names, make

    def first_order(self, job: Job) -> Tensor:
        """`(K, T)`: gradient x the part."""
        parts = self.split(job.inputs.detach())[2].double()
        return torch.einsum("t...,k...->kt...", input_gradients(job, job.inputs), parts).flatten(2).sum(2)

    def conducted(self, job: Job, along: Callable[[str | None, Tensor], Path]) -> tuple[Tensor, Path]:
        """Integrated gradients from the part of no player to the input: each part times the mean gradient."""
        _, constant, parts = self.split(job.inputs.detach())
        path = along(None, constant)
        return torch.einsum("t...,k...->kt...", path.slope, parts.double()).flatten(2).sum(2), path


@dataclass(frozen=True, kw_only=True)
class FrequencyBands(_Summed):
    """Rings of spatial frequency, each twice as wide as the one before; they add up to the input. Out: left out.

    The constant part of each channel always stays in.

    Args:
        count: rings.
        donor: an input whose rings stand in for those that are out.
    """

    count: int = 6
    donor: Tensor | None = None
    kind: ClassVar[str] = "frequencies"

    def __post_init__(self) -> None:
        if self.count < 2:
            raise MethodError(f"Nothing can be told apart with {self.count} band: give a count of at least 2.")

    def split(self, x: Tensor) -> tuple[list[str], Tensor, Tensor]:
        """The input's Fourier transform, cut by frequency (cycles along the shortest axis)."""
        axes = tuple(range(2, x.ndim))
        space = x.shape[2:]
        frequencies = [torch.fft.fftfreq(s).to(x.device).abs() * min(space) for s in space]
        radius = torch.stack(torch.meshgrid(*frequencies, indexing="ij")).square().sum(0).sqrt()
        edges = [0.0, *(min(space) / 2 / 2 ** (self.count - 1 - k) for k in range(self.count - 1)), float("inf")]
        spectrum = torch.fft.fftn(x, dim=axes)
        rings = [(radius > low) & (radius <= high) for low, high in pairwise(edges)]
        parts = torch.cat([torch.fft.ifftn(spectrum * ring, dim=axes).real for ring in rings]).to(x.dtype)
        names = [f"{low:.3g} to {high:.3g} cycles" for low, high in pairwise(edges[:-1])]
        return [*names, f"over {edges[-2]:.3g} cycles"], x.mean(axes, keepdim=True).expand_as(x), parts

    def donated(self, donor: Tensor) -> FrequencyBands:
        """Another picture's rings stand in for those that are out."""
        return replace(self, donor=donor)


@dataclass(frozen=True, kw_only=True)
class ColourBands(_Summed):
    """Light, red against green, and blue against yellow, which add up to the picture. Out: left out.

    In the units of the model's input, which normalisation makes nearly those of the picture.

    Args:
        donor: an input whose bands stand in for those that are out.
    """

    donor: Tensor | None = None
    kind: ClassVar[str] = "colours"

    def split(self, x: Tensor) -> tuple[list[str], Tensor, Tensor]:
        """Projections on an orthonormal opponent basis of RGB."""
        _require_rgb(x, "Colour bands")
        basis = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [-1.0, -1.0, 2.0]]).to(x)
        basis = basis / basis.norm(dim=1, keepdim=True)
        weights = torch.einsum("kc,nc...->nk...", basis, x)[0]
        parts = torch.einsum("kc,k...->kc...", basis, weights)
        return ["light", "red-green", "blue-yellow"], torch.zeros_like(x), parts

    def donated(self, donor: Tensor) -> ColourBands:
        """Another picture's bands stand in for those that are out."""
        return replace(self, donor=donor)


def _require_rgb(x: Tensor, what: str) -> None:
    if x.shape[1] != 3:
        raise MethodError(f"{what} need an RGB input; this one has {x.shape[1]} channels: use frequencies or patches.")


@dataclass(frozen=True, kw_only=True)
class Properties(_Made):
    """Properties of the picture: brightness, contrast, hue, colour, sharpness. Out: made neutral.

    Neutral is the average of the model's training pictures where its normalisation knows it (brightness 0, contrast
    1), the hues turned round by 180 degrees for hue, grey for colour, and a light blur for sharpness.
    """

    kind: ClassVar[str] = "properties"

    def parts(self, x: Tensor) -> tuple[list[str], Make]:
        """Neutralisers, applied in this order to those that are out."""
        _require_rgb(x, "Properties")
        neutral: dict[str, Callable[[Tensor], Tensor]] = {
            "hue": lambda p: 2 * p.mean(1, keepdim=True) - p,  # the same light and colourfulness, opposite hue
            "colour": lambda p: p.mean(1, keepdim=True).expand_as(p),
            "sharpness": lambda p: blur(p, torch.Generator(), sigma=0.01),
            "contrast": lambda p: p.mean() + (p - p.mean()) / p.std().clamp(min=1e-6),
            "brightness": lambda p: p - p.mean(),
        }

        def make(coalitions: Tensor) -> Tensor:
            made = []
            for coalition in coalitions.tolist():
                picture = x
                for kept, change in zip(coalition, neutral.values(), strict=True):
                    picture = picture if kept else change(picture)
                made.append(picture)
            return torch.cat(made)

        return list(neutral), make

    def shown(self, make: Make, count: int) -> Tensor:
        """The picture without each."""
        return make(1 - torch.eye(count))
