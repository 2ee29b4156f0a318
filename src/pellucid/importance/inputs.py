"""Players that are parts of the input: regions, bands of colour or frequency, properties of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine import Capture, adaptive_batches
from pellucid.engine.baselines import blur, make_baseline
from pellucid.engine.masks import SegmentMasks
from pellucid.engine.perturb import MaskScorer
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Job
from pellucid.heatmaps.perturbation import masked
from pellucid.importance.game import Game, Players

BANDS = 6


@dataclass(frozen=True, kw_only=True)
class Regions(Players):
    """Regions of the input: superpixels, patches of a grid, or regions somebody drew. Out: the baseline shows.

    Args:
        labels: `(*space)` integers, the region of each place, 0 to K - 1.
        names: of the regions; None numbers them.
        noun: what one of them is called.
        baseline: `zero`, `mean`, `blur`, `uniform`, or a tensor.
        seed: of a random baseline.
    """

    labels: Tensor
    names: tuple[str, ...] | None = None
    noun: str = "region"
    baseline: str | Tensor = "blur"
    seed: int = 0
    kind: ClassVar[str] = "regions"
    comparable: ClassVar[bool] = False

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Masked inputs through the scorer."""
        count = int(self.labels.max()) + 1
        if tuple(self.labels.shape) != job.space:
            raise MethodError(f"The regions are {tuple(self.labels.shape)}, the model's input {job.space}: fit them.")
        if count < 2:
            raise MethodError("There is only one region, so nothing can be told apart: cut finer.")
        if self.names is not None and len(self.names) != count:
            raise MethodError(f"There are {count} regions but {len(self.names)} names: give one each.")
        names = list(self.names or (f"{self.noun} {k + 1}" for k in range(count)))
        with masked(job, self.baseline, self.seed) as scorer:
            yield Game(
                lambda coalitions: scorer(SegmentMasks(coalitions.float(), self.labels), label="coalitions")[0],
                names,
                scorer.cost,
                {"labels": self.labels},
            )

    def first_order(self, job: Job) -> Tensor:
        """`(K, T)`: sum over each region of gradient x (input - baseline)."""
        ground = make_baseline(self.baseline, job.inputs, torch.Generator().manual_seed(self.seed))
        with Capture(job.module, watch=job.watch, input_gradient=True) as capture:
            _, scores = capture.scored(job.inputs, lambda y, w: [t.score(y, w) for t in job.targets])
            gradients = [g["input"] for g in capture.gradients(scores)]
        products = torch.stack([(g * (job.inputs - ground)).sum(1)[0].double().flatten() for g in gradients], dim=1)
        sums = torch.zeros(int(self.labels.max()) + 1, len(gradients), dtype=torch.float64, device=products.device)
        return sums.index_add_(0, self.labels.flatten().to(products.device), products)


class _Made(Players):
    """Base of players whose coalitions are made as whole inputs by `make`."""

    def parts(self, x: Tensor) -> tuple[list[str], Callable[[Tensor], Tensor]]:
        """For an input `(1, C, *space)`: the players' names, and coalitions `(m, K)` -> inputs `(m, C, *space)`."""
        raise MethodError(f"{type(self).__name__} has no parts.")

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Made inputs through the scorer."""
        names, make = self.parts(job.inputs.detach())
        with masked(job, "zero") as scorer:
            yield Game(lambda coalitions: _scored(scorer, make, coalitions), names, scorer.cost)


def _scored(scorer: MaskScorer, make: Callable[[Tensor], Tensor], coalitions: Tensor) -> Tensor:
    out = torch.empty(len(coalitions), scorer.targets, dtype=torch.float64)

    def run(start: int, stop: int) -> None:
        inputs = make(coalitions[start:stop])
        out[start:stop] = scorer.evaluate(inputs, torch.zeros(len(inputs), dtype=torch.long)).cpu()

    scorer.batch = adaptive_batches(run, len(coalitions), scorer.batch, label="coalitions")
    return out


@dataclass(frozen=True, kw_only=True)
class FrequencyBands(_Made):
    """Rings of spatial frequency, each twice as wide as the one before; they add up to the input. Out: left out.

    The constant part of each channel always stays in.
    """

    bands: int = BANDS
    kind: ClassVar[str] = "frequencies"

    def parts(self, x: Tensor) -> tuple[list[str], Callable[[Tensor], Tensor]]:
        """The input's Fourier transform, cut by frequency (cycles along the shortest axis)."""
        space = x.shape[2:]
        frequencies = [torch.fft.fftfreq(s).to(x.device).abs() * min(space) for s in space]
        grid = torch.meshgrid(*frequencies, indexing="ij")
        radius = torch.stack(grid).square().sum(0).sqrt()
        edges = [0.0, *(min(space) / 2 / 2 ** (self.bands - 1 - k) for k in range(self.bands - 1)), float("inf")]
        spectrum = torch.fft.fftn(x, dim=tuple(range(2, x.ndim)))
        axes = tuple(range(2, x.ndim))
        rings = [(radius > low) & (radius <= high) for low, high in pairwise(edges)]
        parts = torch.cat([torch.fft.ifftn(spectrum * ring, dim=axes).real for ring in rings]).to(x.dtype)
        constant = x.mean(axes, keepdim=True)
        names = [f"{low:.0f}-{high:.0f} cycles" for low, high in pairwise(edges[:-1])]
        names.append(f"over {edges[-2]:.0f} cycles")
        return names, lambda c: constant + torch.einsum("mk,k...->m...", c.to(parts), parts)


@dataclass(frozen=True, kw_only=True)
class ColourBands(_Made):
    """Light, red against green, and blue against yellow, which add up to the picture. Out: left out.

    In the units of the model's input, which normalisation makes nearly those of the picture.
    """

    kind: ClassVar[str] = "colours"

    def parts(self, x: Tensor) -> tuple[list[str], Callable[[Tensor], Tensor]]:
        """Projections on an orthonormal opponent basis of RGB."""
        if x.shape[1] != 3:
            raise MethodError(f"Colour bands need an RGB input; this one has {x.shape[1]} channels.")
        basis = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [-1.0, -1.0, 2.0]]).to(x)
        basis = basis / basis.norm(dim=1, keepdim=True)
        weights = torch.einsum("kc,nc...->nk...", basis, x)[0]
        parts = torch.einsum("kc,k...->kc...", basis, weights)
        names = ["light", "red-green", "blue-yellow"]
        return names, lambda c: torch.einsum("mk,k...->m...", c.to(parts), parts)


@dataclass(frozen=True, kw_only=True)
class Properties(_Made):
    """Properties of the picture: brightness, contrast, colour, sharpness. Out: made neutral.

    Neutral is the average of the model's training pictures where its normalisation knows it (brightness 0, contrast
    1), grey for colour, and a light blur for sharpness.
    """

    kind: ClassVar[str] = "properties"

    def parts(self, x: Tensor) -> tuple[list[str], Callable[[Tensor], Tensor]]:
        """Neutralisers, applied in this order to those that are out."""
        neutral: dict[str, Callable[[Tensor], Tensor]] = {
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
