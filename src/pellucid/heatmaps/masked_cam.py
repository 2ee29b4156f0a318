"""Class activation maps without gradients: each channel masks the input, and the score that remains is its weight.

With `A_c` channel `c` of the explained layer, `U` the linear drawing at the input's size and `s` min-max scaling, the
channel's mask is `M_c = s(U(A_c))`, and the model sees `M_c * x + (1 - M_c) * b`. Where the baseline `b` is zero in the
model's own units, the training mean of a normalised input, that is `M_c * x`, as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from pellucid.engine.masks import GridMasks, Masks
from pellucid.engine.perturb import MaskScorer, Scores
from pellucid.errors import MethodError
from pellucid.heatmaps.activations import (
    activation_and_gradients,
    choose_layer,
    map_notes,
    refuse_dead_layer,
    space_dims,
)
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.models.layers import Layer
from pellucid.models.targets import Target
from pellucid.scoring.job import Job
from pellucid.scoring.masked import masked, probability_of, score_of

Weights = Literal["softmax", "increase", "probability"]

_DRAWN_VALUES = 2**24  # at a time, while the extremes of the drawn channels are looked for
_STEP = 2.0**-16  # of the masks' values
_ROUNDING = 1e-6  # of a channel's size: variation below it is no variation


def channel_masks(maps: Tensor, space: tuple[int, ...]) -> GridMasks:
    """The masks `s(U(A_c))` of channels `(C, *grid)`; a channel without variation masks everything.

    Drawing is linear, and its weights add up to one: to scale the small values by the extremes of the drawn ones is
    to scale the drawing. Nothing of the input's size is kept.
    """
    drawing = GridMasks(maps, space, "linear")
    step = max(1, _DRAWN_VALUES // torch.Size(space).numel())
    extremes = [drawing.render(slice(i, i + step)).flatten(1).aminmax(dim=1) for i in range(0, len(maps), step)]
    shape = (-1, *[1] * len(space))
    low = torch.cat([e.min for e in extremes]).reshape(shape)
    high = torch.cat([e.max for e in extremes]).reshape(shape)
    dead = high - low <= _ROUNDING * torch.maximum(high.abs(), low.abs())
    values = torch.where(dead, 0.0, (maps - low) / torch.where(dead, 1.0, high - low))
    return GridMasks(values, space, "linear")


def rounded(masks: GridMasks) -> GridMasks:
    """The masks in steps of 1.5e-5, a fraction of what eight-bit pixels tell apart.

    Many channels live on the same single cell, and their masks, equal up to rounding, are then equal to the bit and
    scored once.
    """
    return replace(masks, values=(masks.values / _STEP).round() * _STEP)


@dataclass(frozen=True)
class NoisyMasks(GridMasks):
    """Grid masks, all with the same noise added at the input's size.

    Attributes:
        noise: `(*space)`.
    """

    noise: Tensor | None = None

    def render(self, rows: slice | Tensor) -> Tensor:
        """Drawn, and the noise added."""
        drawn = super().render(rows)
        return drawn if self.noise is None else drawn + self.noise

    def accumulate(self, weights: Tensor) -> Tensor:
        """As without noise, and the noise once with the sum of weights."""
        total = super().accumulate(weights)
        if self.noise is None:
            return total
        return total + weights.sum(0).to(total).reshape(-1, *[1] * len(self.space)) * self.noise

    def take(self, rows: Tensor) -> NoisyMasks:
        """The masks with these indices."""
        return replace(self, values=self.values[rows])


class MaskedCAM(PerturbationMethod):
    """Base: the layer's activation, and the scorer of inputs that its channels mask."""

    family: ClassVar[str] = "cam"
    signed: ClassVar[bool] = False

    @contextmanager
    def scorer(
        self, job: Job, baseline: str | Tensor, seed: int, scores: Callable[[Sequence[Target]], Scores]
    ) -> Iterator[MaskScorer]:
        """Opened on a job's inputs, with its targets fixed on the untouched ones."""
        with masked(job, baseline, seed, scores) as scorer:
            scorer.cost.forwards += len(job.inputs)  # the pass that read the layer
            yield scorer


@method(
    "score-cam",
    family="cam",
    needs="outputs, a layer",
    cost="1 forward a channel",
    paper="Wang et al. 2020, arXiv:1910.01279, algorithm 1",
)
@dataclass(frozen=True, kw_only=True)
class ScoreCAM(MaskedCAM):
    """`relu(sum_c w_c A_c)`, `w_c = softmax_c(f(M_c x) - f(b))`: a channel counts by the score of what it lets through.

    The softmax runs over the channels and on the target's score (a logit, for a class), as in the paper's algorithm 1.
    The baseline score `f(b)` is one number for all channels, so the softmax does not see it. The authors' released code
    differs from their algorithm: it weighs by the class's probability, with no softmax over channels; `weights` has
    both. Channels without variation have an empty mask, and equal masks are scored once.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        weights: `softmax`; `increase`: `f(M_c x) - f(b)` as it is; `probability`: the target's probability at `M_c x`.
        baseline: what shows where a channel is silent: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of a random baseline.
    """

    layer: str | None = None
    weights: Weights = "softmax"
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.weights not in ("softmax", "increase", "probability"):
            raise MethodError(f"Weights are softmax, increase or probability, not {self.weights!r}.")

    def copies(self, masks: GridMasks) -> Iterator[Masks]:
        """The versions of the masks over whose scores the mean is taken."""
        yield masks

    def perturb(self, job: Job) -> list[Attribution]:
        """The channels of all inputs are scored together, for all targets at once."""
        layer = choose_layer(self.layer, job, gradient=False)
        A = layer.layout.to_map(activation_and_gradients(job, layer, False)[0]).detach().float()
        masks = [rounded(channel_masks(maps, job.space)) for maps in A]
        scores = probability_of if self.weights == "probability" else score_of
        with self.scorer(job, self.baseline, self.seed, scores) as scorer:
            passes = [
                scorer(list(versions), label=self.name) for versions in zip(*map(self.copies, masks), strict=True)
            ]
            found = torch.stack(passes).mean(0)  # (N, C, T)
            if self.weights == "softmax":
                found = found.softmax(1)
            elif self.weights == "increase":
                found = found - scorer.blank()[:, None]
        return [self._weighted(A, found[..., t].float(), layer, scorer) for t in range(len(job.targets))]

    def _weighted(self, A: Tensor, w: Tensor, layer: Layer, scorer: MaskScorer) -> Attribution:
        values = torch.einsum("nc,nc...->n...", w, A).relu()
        notes = [*layer.notes, *map_notes(values, self.signed, self.name)]
        notes += softmax_notes(w) if self.weights == "softmax" else []
        return Attribution(values, layer, notes=notes, extras={"weights": w}, cost=scorer.cost)


def softmax_notes(w: Tensor) -> list[str]:
    """What to know of softmax weights `(N, C)` that choose nothing, or a single channel."""
    if w.shape[1] > 1 and bool((w.amax(1) < 1.05 * w.amin(1)).any()):
        return [
            "All channels weigh nearly the same, so the map shows the mean activation and hardly depends on the "
            "target: use weights='increase'."
        ]
    if w.shape[1] > 1 and bool((w.amax(1) > 0.99).any()):
        return ["A single channel has over 99 % of the weight: the map is that channel; compare weights='increase'."]
    return []


@method(
    "ss-cam",
    family="cam",
    needs="outputs, a layer",
    cost="35 forwards a channel",
    paper="Wang et al. 2020, arXiv:2006.14255, SS-CAM (1): noise on the masks",
)
@dataclass(frozen=True, kw_only=True)
class SSCAM(ScoreCAM):
    """Score-CAM with scores averaged over noisy masks: `mean_i f((M_c + d_i) x)`, `d_i ~ N(0, std^2)` at each place.

    The same noise pictures serve all channels (and inputs), so that channels differ by what they show and not by
    their noise; equal channels stay equal, and are scored once.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        weights: `softmax`, `increase` or `probability`, see score-cam.
        samples: noise pictures.
        std: of the noise, where masks run from 0 to 1.
        baseline: what shows where a channel is silent: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the noise and of a random baseline.
    """

    samples: int = 35
    std: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or self.std < 0:
            raise MethodError(f"There must be at least one sample and no negative std, not {self.samples}, {self.std}.")

    def copies(self, masks: GridMasks) -> Iterator[Masks]:
        """One for each noise picture, drawn on the CPU so that every device sees the same."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.samples):
            noise = self.std * torch.randn(masks.space, generator=generator)
            yield NoisyMasks(masks.values, masks.space, "linear", noise=noise.to(masks.values))

    def quick(self) -> Self:
        """Fewer noise pictures."""
        return replace(self, samples=min(self.samples, 4))


@method(
    "is-cam",
    family="cam",
    needs="outputs, a layer",
    cost="10 forwards a channel",
    paper="Naidu et al. 2020, arXiv:2010.03023",
)
@dataclass(frozen=True, kw_only=True)
class ISCAM(ScoreCAM):
    """Score-CAM with scores averaged on the way to the masked input: `mean_i f(k_i M_c x)`, `i = 1 ... samples`.

    `path="straight"` takes `k_i = i / samples`, the integral from the baseline to the masked input that the method is
    named after. `path="cumulative"` takes the running sum `k_i = (1 + ... + i) / samples`, as the paper's recursion is
    commonly read and implemented; it ends at `(samples + 1) / 2` times the masked input, far outside the data.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        weights: `softmax`, `increase` or `probability`, see score-cam.
        samples: steps on the way.
        path: `straight` or `cumulative`.
        baseline: what shows where a channel is silent: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of a random baseline.
    """

    samples: int = 10
    path: Literal["straight", "cumulative"] = "straight"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or self.path not in ("straight", "cumulative"):
            raise MethodError("The samples are at least one, and the path is straight or cumulative.")

    def copies(self, masks: GridMasks) -> Iterator[Masks]:
        """One for each step; drawing is linear, so the small values are scaled."""
        steps = torch.arange(1, self.samples + 1) / self.samples
        for k in (steps if self.path == "straight" else steps.cumsum(0)).tolist():
            yield replace(masks, values=k * masks.values)

    def quick(self) -> Self:
        """Fewer steps."""
        return replace(self, samples=min(self.samples, 3))


@method(
    "group-cam",
    family="cam",
    needs="gradients, a layer",
    cost="32 forwards + tail backward",
    paper="Zhang et al. 2021, arXiv:2103.13859",
)
@dataclass(frozen=True, kw_only=True)
class GroupCAM(MaskedCAM):
    """`relu(sum_g a_g M_g)`, `a_g = p(M_g x + (1 - M_g) b) - p(b)`: a Score-CAM of a few groups of channels.

    A group is a run of adjacent channels. Its mask is `relu(sum_c w_c A_c)` with the weights `w_c` of Grad-CAM, cells
    up to the given quantile set to zero, scaled to run from 0 to 1 once drawn. `p` is the target's probability where
    it has one, `b` the blurred input.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        groups: number of groups; with fewer channels, each is a group.
        quantile: the share of a group's cells taken for noise.
        probability: False scores by the target's score in place of its probability.
        baseline: what shows where a mask is zero: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of a random baseline.
    """

    layer: str | None = None
    groups: int = 32
    quantile: float = 0.7
    probability: bool = True
    baseline: str | Tensor = "blur"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.groups < 1 or not 0 <= self.quantile < 1:
            raise MethodError("There is at least one group, and the quantile is at least 0 and below 1.")

    def perturb(self, job: Job) -> list[Attribution]:
        """One pass for the gradients; then each target scores its own groups."""
        layer = choose_layer(self.layer, job, gradient=False)
        activation, gradients = activation_and_gradients(job, layer, True)
        A = layer.layout.to_map(activation).float()
        results = []
        with self.scorer(job, self.baseline, self.seed, probability_of if self.probability else score_of) as scorer:
            scorer.cost.backwards += len(job.inputs) * len(job.targets)
            blank = scorer.blank()
            for k, target in enumerate(job.targets):
                G = layer.layout.to_map(gradients[k]).float()
                if not G.any():
                    refuse_dead_layer(job, target, layer)
                masks = [channel_masks(g, job.space) for g in self.grouped(A, G)]
                gain = (scorer(masks, label=self.name)[..., k] - blank[:, None, k]).float()  # (N, groups)
                values = torch.einsum("ng,ng...->n...", gain, torch.stack([m.values for m in masks])).relu()
                notes = [*layer.notes, *map_notes(values, self.signed, self.name)]
                results.append(Attribution(values, layer, notes=notes, extras={"weights": gain}, cost=scorer.cost))
        return results

    def grouped(self, A: Tensor, G: Tensor) -> Tensor:
        """The groups' de-noised maps `(N, groups, *grid)`."""
        weighted = G.mean(space_dims(G), keepdim=True) * A
        maps = torch.stack([part.sum(1) for part in weighted.chunk(self.groups, 1)], 1).relu()
        threshold = maps.flatten(2).quantile(self.quantile, dim=2)
        return torch.where(maps > threshold.reshape(*threshold.shape, *[1] * (A.ndim - 2)), maps, 0.0)
