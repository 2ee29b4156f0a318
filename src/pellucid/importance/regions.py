"""Players that are regions of the input: superpixels, patches, regions somebody drew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine import Capture
from pellucid.engine.baselines import make_baseline
from pellucid.engine.masks import grid_labels
from pellucid.errors import MethodError
from pellucid.importance.game import Cut, Deferred, Game, Players, place_names, summed_by
from pellucid.importance.path import Path
from pellucid.media.geometry import Geometry
from pellucid.media.segments import SEGMENTATIONS
from pellucid.scoring.job import Job
from pellucid.scoring.masked import masked, segment_game
from pellucid.scoring.tokens import entries


@dataclass(frozen=True, kw_only=True)
class Regions(Players):
    """Regions of the input: superpixels, patches of a grid, or regions somebody drew. Out: the baseline shows.

    Args:
        labels: `(*space)` integers, the region of each place, 0 to K - 1.
        names: of the regions; None numbers them and says where they lie.
        noun: what one of them is called.
        baseline: a name such as `blur` (see the page on baselines), or a tensor.
        seed: of a random baseline.
        comparable: whether region k is the same thing in another picture.
    """

    labels: Tensor
    names: tuple[str, ...] | None = None
    noun: str = "region"
    baseline: str | Tensor = "blur"
    seed: int = 0
    comparable: bool = False
    kind: ClassVar[str] = "regions"

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Masked inputs through the scorer."""
        count = int(self.labels.max()) + 1
        if tuple(self.labels.shape) != job.space:
            raise MethodError(f"The regions are {tuple(self.labels.shape)}, the model's input {job.space}: fit them.")
        if count < 2:
            raise MethodError(f"There is only one {self.noun}, so nothing can be told apart: cut finer, or cut a grid.")
        if self.names is not None and len(self.names) != count:
            raise MethodError(f"There are {count} regions but {len(self.names)} names: give one each.")
        names = list(self.names or (f"{self.noun} {k + 1}, {_where(self.labels, k)}" for k in range(count)))
        with masked(job, self.baseline, self.seed) as scorer:
            labels = scorer.fit_segments(self.labels)
            if int(labels.max()) + 1 != count:
                raise MethodError(
                    f"Some {self.noun} is smaller than a patch, so its tokens can't be dropped: cut coarser, "
                    "or choose another baseline."
                )
            yield Game(segment_game(scorer, labels), names, scorer.cost, {"labels": self.labels})

    def _ground(self, job: Job) -> Tensor:
        return make_baseline(self.baseline, job.inputs, torch.Generator().manual_seed(self.seed))

    def _folded(self, products: Tensor) -> Tensor:
        """`(T, *space)` -> `(K, T)`."""
        return summed_by(self.labels, products, int(self.labels.max()) + 1)

    def first_order(self, job: Job) -> Tensor:
        """`(K, T)`: sum over each region of gradient x (input - baseline)."""
        gradients = input_gradients(job, job.inputs)
        return self._folded((gradients * (job.inputs - self._ground(job)).double()).sum(1))

    def conducted(self, job: Job, along: Callable[[str | None, Tensor], Path]) -> tuple[Tensor, Path]:
        """Integrated gradients, summed over each region."""
        path = along(None, self._ground(job))
        return self._folded(path.flow.sum(1)), path

    def donated(self, donor: Tensor) -> Regions:
        """The same places of another picture show where a region is out."""
        return replace(self, baseline=donor)


def input_gradients(job: Job, inputs: Tensor) -> Tensor:
    """`(T, C, *space)`: the gradients of the job's targets at one input `(1, C, *space)`, double precision."""
    with Capture(job.module, watch=job.watch, input_gradient=True) as capture:
        _, scores = capture.scored(inputs, lambda y, w: [t.score(y, w) for t in job.targets])
        return torch.stack([g["input"][0].double() for g in capture.gradients(scores)])


_PLACES = {2: (("top", "middle", "bottom"), ("left", "centre", "right"))}


def _where(labels: Tensor, k: int) -> str:
    """Where a region's centre lies, in words."""
    if labels.ndim not in _PLACES:
        return "centre " + " ".join(f"{float(axis.float().mean()):.0f}" for axis in (labels == k).nonzero().T)
    middles = [float(axis.double().mean()) for axis in (labels == k).nonzero().T]
    words = [
        names[min(2, int(3 * (at + 0.5) / size))]
        for at, size, names in zip(middles, labels.shape, _PLACES[2], strict=True)
    ]
    return "centre" if words == ["middle", "centre"] else " ".join(words)


@dataclass(frozen=True, kw_only=True)
class Superpixels(Cut):
    """Regions of alike colour, cut on each input by itself.

    Args:
        segments: `slic`, `felzenszwalb` or `grid`.
        count: about how many.
        baseline: what shows where one is out: a name such as `blur` (see the page on baselines), or a tensor.
        seed: of a random baseline.
    """

    segments: str = "slic"
    count: int = 36
    baseline: str | Tensor = "blur"
    seed: int = 0
    kind: ClassVar[str] = "superpixels"

    def __post_init__(self) -> None:
        SEGMENTATIONS.key(self.segments)
        if self.count < 2:
            raise MethodError(
                f"Nothing can be told apart with {self.count} superpixel{'s' * (self.count != 1)}: give a count of at "
                "least 2."
            )

    def fitted(self, x: Tensor, geometry: Geometry) -> Regions:
        """Cut by the colours of the model's input."""
        labels = SEGMENTATIONS[self.segments](x, self.count)
        if int(labels.max()) == 0:
            raise MethodError(
                f"{self.segments} found only one superpixel, so nothing can be told apart: cut a grid (segments "
                "'grid'), or draw regions."
            )
        return Regions(labels=labels, noun="superpixel", baseline=self.baseline, seed=self.seed)

    def donated(self, donor: Tensor) -> Superpixels:
        """The same places of another picture show where a superpixel is out."""
        return replace(self, baseline=donor)


@dataclass(frozen=True, kw_only=True)
class Patches(Deferred):
    """The patches of a vision transformer, or even blocks of a network without patches.

    Args:
        count: about how many; None: the transformer's own patches, or 7 x 7.
        baseline: what shows where one is out: a name such as `blur` (see the page on baselines), or a tensor.
        seed: of a random baseline.
    """

    count: int | None = None
    baseline: str | Tensor = "blur"
    seed: int = 0
    kind: ClassVar[str] = "patches"

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 2:
            raise MethodError(f"Nothing can be told apart with {self.count} patch: give a count of at least 2.")

    def standing(self, job: Job) -> Regions:
        """The regions that they are."""
        found = entries(job.module, job.inputs) if self.count is None else ()
        if found:
            cells, labels = found[0].layout.grid, found[0].labels(job.space)
        else:
            side = (self.count or 7 ** len(job.space)) ** (1 / len(job.space))
            longest = max(job.space)
            cells = tuple(max(1, min(s, round(side * s / longest))) for s in job.space)
            labels = grid_labels(job.space, cells)
        names = tuple(place_names(cells))
        return Regions(labels=labels, names=names, noun="patch", baseline=self.baseline, seed=self.seed)

    def donated(self, donor: Tensor) -> Patches:
        """The same patch of another picture shows where one is out."""
        return replace(self, baseline=donor)
