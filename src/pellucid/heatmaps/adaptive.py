"""Masks that are placed where they tell most: each round of a few looks at what the rounds before have found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.engine.masks import Masks
from pellucid.engine.perturb import MaskScorer
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.heatmaps.sampling import STILL, STILL_NOTE
from pellucid.models.targets import BoxTarget, Target
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze, masked

_ROUND = 10  # centres placed at a time
_FIRST = 0.4  # share of the centres that go out evenly, before anything is known
_PLACES = 576  # where a centre may stand
_AROUND = 1.5  # times a box's own size: how much of the picture its windows go over

Frame = tuple[tuple[float, float], ...]
"""Part of an input: for each axis where it begins and how long it is, in shares of the axis."""


@dataclass(frozen=True)
class GaussianMasks(Masks):
    """Soft windows: 1 at the centre, falling off as a Gaussian; or their opposite, with a hole at the centre.

    Attributes:
        values: `(M, axes + 2)`: centre and width in shares of each axis, and 1 for a hole.
        space: the input's size.
        frame: the part of the input that the shares are of; empty: the whole.
    """

    values: Tensor
    space: tuple[int, ...]
    frame: Frame = ()

    def render(self, rows: slice | Tensor) -> Tensor:
        """Products of one profile for each axis."""
        *centre, width, hole = self.values[rows].float().unbind(1)
        mask = torch.ones(len(width), *[1] * len(self.space), device=width.device)
        for axis, (c, size) in enumerate(zip(centre, self.space, strict=True)):
            low, length = self.frame[axis] if self.frame else (0.0, 1.0)
            place = ((torch.arange(size, device=width.device) + 0.5) / size - low) / length
            profile = torch.exp(-0.5 * ((place - c[:, None]) / width[:, None]) ** 2)
            mask = mask * profile.reshape(-1, *[size if a == axis else 1 for a in range(len(self.space))])
        turn = hole.reshape(-1, *[1] * len(self.space))
        return (turn + (1 - 2 * turn) * mask)[:, None]

    def accumulate(self, weights: Tensor) -> Tensor:
        """One mask at a time: there are few, and a volume of each would be large."""
        total = torch.zeros(weights.shape[1], *self.space, device=self.values.device)
        for m in range(len(self)):
            share = weights[m].float().reshape(-1, *[1] * len(self.space))
            total += share * self.render(slice(m, m + 1))[0]
        return total

    def take(self, rows: Tensor) -> GaussianMasks:
        """The masks with these indices."""
        return GaussianMasks(self.values[rows], self.space, self.frame)


@method(
    "aise",
    family="perturbation",
    needs="outputs",
    cost="up to 120 forwards a target",
    paper="adaptive input sampling (AISE, OpenVINO XAI 2024), with kernel regression after Nadaraya & Watson 1964",
)
@dataclass(frozen=True, kw_only=True)
class AISE(PerturbationMethod):
    """Few soft windows, placed adaptively; the map is the kernel-weighted mean of their worth. `(N, *space)`.

    A window `g` with its centre at `c` is worth what it shows of the score plus what its absence takes, `f(g x +
    (1 - g) b) - f(b) + f(x) - f((1 - g) x + g b)`: twice its share, where shares add up. For each width, four tenths
    of the centres go out evenly. The others follow in rounds of ten, each to the place with the greatest sum of what
    the windows around it are worth and of how little is known about it. `map_i = sum_m g_m(i) worth_m / sum_m g_m(i)`,
    averaged over the widths: dividing by the density of the windows keeps places from gaining by mere attention.

    Of a detector's box the windows stay in its surroundings, one and a half times its size, and `widths` are shares of
    these. One more window of no worth is then counted everywhere, so that places which none has reached have none.

    Args:
        samples: forwards for each input and target; every window takes two, and two show all and nothing.
        widths: standard deviations of the windows, in shares of each axis.
        explore: weight of what is unknown against what is known, 0 to 1; 1 fills the picture evenly.
        baseline: what shows where the mask is 0: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the first centres and of a random baseline.
    """

    samples: int = 120
    widths: tuple[float, ...] = (0.1, 0.25)
    explore: float = 0.3
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) <= 0:
            raise MethodError(f"The widths of aise are shares of the input above 0, such as 0.1; got {self.widths}.")
        if not 0 <= self.explore <= 1:
            raise MethodError(f"The weight explore of aise lies between 0 and 1; got {self.explore}.")
        if self.samples < 8 * len(self.widths):
            raise MethodError(f"{self.samples} samples are too few for {len(self.widths)} widths: give 8 for each.")

    def quick(self) -> AISE:
        """At most 60 forwards."""
        return replace(self, samples=max(8 * len(self.widths), min(60, self.samples)))

    def perturb(self, job: Job) -> list[Attribution]:
        """A search for each target, for all inputs side by side."""
        frames = [_frames(target, job) for target in _fixed(job)]
        with masked(job, self.baseline, self.seed) as scorer:
            shown = (scorer.plain() - scorer.blank()).cpu()  # (N, T)
            return [self._search(scorer, job, t, each, shown[:, t]) for t, each in enumerate(frames)]

    def _search(self, scorer: MaskScorer, job: Job, target: int, frames: Sequence[Frame], shown: Tensor) -> Attribution:
        """The map of one target; of a box the `frames` around it, and what all that is `shown` adds, `(N,)`."""
        frames = frames or [()] * len(job.inputs)
        count = (self.samples - 2) // 2 // len(self.widths)
        maps, moved = [], []
        for width in self.widths:
            centres = self._even(max(2, round(_FIRST * count)), job.space).expand(len(job.inputs), -1, -1)
            worth = self._worth(scorer, centres, width, target, frames)
            while (left := count - centres.shape[1]) > 0:
                chosen = [self._next(c, w, width, min(left, _ROUND)) for c, w in zip(centres, worth, strict=True)]
                fresh = torch.stack(chosen)
                centres = torch.cat([centres, fresh], 1)
                worth = torch.cat([worth, self._worth(scorer, fresh, width, target, frames)], 1)
            moved.append(worth.amax(1) - worth.amin(1) > STILL * worth.abs().amax(1))
            worth = worth + shown[:, None]
            found = [_regress(c, w, width, job, frame) for c, w, frame in zip(centres, worth, frames, strict=True)]
            maps.append(torch.stack(found))
        still = ~torch.stack(moved).any(0)
        values = torch.stack(maps).mean(0)
        values[still.to(values.device)] = 0
        notes = [STILL_NOTE] if still.any() else []
        facts = {"samples": [2.0 * count * len(self.widths) + 2.0] * len(values)}
        return Attribution(values, notes=notes, facts=facts, cost=scorer.cost)

    def _even(self, count: int, space: Sequence[int]) -> Tensor:
        """Centres `(count, axes)` that fill the unit box evenly."""
        engine = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=self.seed)  # type: ignore[no-untyped-call]
        return engine.draw(count, dtype=torch.float64)

    def _worth(self, scorer: MaskScorer, centres: Tensor, width: float, target: int, frames: Sequence[Frame]) -> Tensor:
        """Score with each window alone less the score without it, `(N, m, axes) -> (N, m)`, on the CPU."""
        count = centres.shape[1]
        space = tuple(scorer.inputs.shape[2:])
        device = scorer.inputs.device
        masks = [
            _gaussians(torch.cat([c, c]), width, count, space, device, frame)
            for c, frame in zip(centres, frames, strict=True)
        ]
        scores = scorer(masks, label=self.name)[:, :, target].cpu()
        return scores[:, :count] - scores[:, count:]

    def _next(self, centres: Tensor, worth: Tensor, width: float, count: int) -> Tensor:
        """Where to look next, `(m, axes), (m,) -> (count, axes)`: one by one, as each choice makes its place known."""
        axes = centres.shape[1]
        side = max(2, round(_PLACES ** (1 / axes)))
        ticks = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        places = torch.cartesian_prod(*[ticks] * axes).reshape(-1, axes)
        near = _kernel(places, centres, width)  # (places, m)
        low, high = worth.min(), worth.max()
        promise = (near @ worth / near.sum(1).clamp(min=1e-12) - low) / (high - low).clamp(min=1e-300)
        known = near.sum(1)
        taken = (torch.cdist(places, centres) < 1e-6).sum(1)  # a window twice in the same place tells nothing new
        chosen = []
        for _ in range(count):
            hope = (1 - self.explore) * promise / (1 + known) + self.explore * torch.exp(-known)
            best = int((hope - 2 * taken).argmax())
            chosen.append(places[best])
            known = known + _kernel(places, places[best : best + 1], width)[:, 0]
            taken[best] += 1
        return torch.stack(chosen)


def _kernel(places: Tensor, centres: Tensor, width: float) -> Tensor:
    """`(p, axes), (m, axes) -> (p, m)`."""
    return torch.exp(-0.5 * torch.cdist(places, centres) ** 2 / width**2)


def _gaussians(
    centres: Tensor, width: float, windows: int, space: tuple[int, ...], device: torch.device, frame: Frame
) -> GaussianMasks:
    """Windows at the first centres, holes at the others."""
    hole = (torch.arange(len(centres)) >= windows).double()[:, None]
    values = torch.cat([centres, torch.full_like(hole, width), hole], 1)
    return GaussianMasks(values.float().to(device), space, frame)


def _regress(centres: Tensor, worth: Tensor, width: float, job: Job, frame: Frame) -> Tensor:
    """The kernel-weighted mean of `worth` at every place, `(*space)`; in a frame, with one window of no worth."""
    device = job.inputs.device
    masks = _gaussians(centres, width, len(centres), job.space, device, frame)
    total, density = masks.accumulate(torch.stack([worth, torch.ones_like(worth)], 1).to(device)).unbind(0)
    return total / (density + 1 if frame else density.clamp(min=math.sqrt(torch.finfo(torch.float32).tiny)))


def _fixed(job: Job) -> Sequence[Target]:
    """The targets; boxes among them are found on the untouched inputs (one forward)."""
    return freeze(job) if any(isinstance(t, BoxTarget) for t in job.targets) else job.targets


def _frames(target: Target, job: Job) -> list[Frame]:
    """Around the box that each input is asked for; empty for other targets."""
    if not isinstance(target, BoxTarget):
        return []
    frames = []
    for box in target.boxes:
        ends = zip(box.place[1::-1], box.place[3:1:-1], job.inputs.shape[2:], strict=True)  # y, then x
        frames.append(tuple(_around(low, high, places) for low, high, places in ends))
    return frames


def _around(low: float, high: float, places: int) -> tuple[float, float]:
    length = max(high - low, 1.0) * _AROUND
    return ((low + high - length) / 2 / places, length / places)
