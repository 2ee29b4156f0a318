"""Class activation maps since 2019: channels binarised, by kernel, by curvature, averaged over noise, by relevance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.backward import Propagation, carrier
from pellucid.engine.baselines import make_baseline
from pellucid.engine.run import guarded_backward
from pellucid.errors import MethodError
from pellucid.heatmaps.activations import activation_and_gradients, choose_layer, map_notes, ratio, space_dims
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.heatmaps.cam import ActivationGradientCAM
from pellucid.heatmaps.composites import COMPOSITES, Strengths
from pellucid.models.layers import Layer
from pellucid.models.targets import Target
from pellucid.progress import task
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze


@method(
    "fem",
    family="cam",
    needs="a layer",
    cost="1 forward up to the layer",
    paper="Fuad et al. 2020, doi:10.1109/IPTA50016.2020.9286629",
)
@dataclass(frozen=True, kw_only=True)
class FEM(ActivationGradientCAM):
    """`sum_c mean(A_c) [A_c > mean + k std]`: where channels are rare and strong, whatever the target.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        k: how many standard deviations above its mean a channel's cell must be.
    """

    k: float = 2.0
    uses_target: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Binarised channels, weighed by their means."""
        dims = space_dims(A)
        mean, spread = A.mean(dims, keepdim=True), A.std(dims, keepdim=True, unbiased=False)
        return (mean * (mean + self.k * spread < A)).sum(1)


@method(
    "kpca-cam",
    family="cam",
    needs="a layer",
    cost="1 forward up to the layer",
    paper="Karmani et al. 2024, arXiv:2410.00267",
)
@dataclass(frozen=True, kw_only=True)
class KPCACAM(ActivationGradientCAM):
    """First component of the cells under the kernel `tanh(a . b / C + 1)`, centred: eigen-cam with a bend.

    The sign of a component is arbitrary; it is fixed so that the map correlates positively with the summed activation.
    """

    uses_target: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """The leading eigenvector of the centred kernel, scaled by the root of its eigenvalue."""
        M = A.flatten(2).mT.double()
        K = (M @ M.mT / M.shape[-1] + 1).tanh()
        K = K - K.mean(1, keepdim=True) - K.mean(2, keepdim=True) + K.mean((1, 2), keepdim=True)
        values, vectors = torch.linalg.eigh(K)
        component = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
        total = M.sum(-1)
        against = ((total - total.mean(1, keepdim=True)) * component).sum(1, keepdim=True) < 0
        return torch.where(against, -component, component).to(A.dtype).reshape(len(A), *A.shape[2:])


@dataclass(frozen=True, kw_only=True)
class LayerPasses(Method):
    """Base of CAMs that need other passes than one gradient: a subclass is its `explain_target`.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
    """

    layer: str | None = None
    signed: ClassVar[bool] = False

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method and target on its own."""
        found = []
        for m in methods:
            layer, targets = choose_layer(m.layer, job), freeze(job)
            found.append([m.explain_target(replace(job, targets=(t,)), t, layer) for t in targets])
        return found

    @abstractmethod
    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """The map of one target."""

    def attribution(self, values: Tensor, layer: Layer, cost: Cost) -> Attribution:
        """A map at the layer, with what is to be said of it."""
        notes = [*layer.notes, *map_notes(values, self.signed, self.name)]
        return Attribution(values.detach().float(), layer, notes=notes, cost=cost)


@method(
    "shapley-cam",
    family="cam",
    needs="gradients, a layer",
    cost="2 forwards + 2 tail backwards",
    paper="Cai et al. 2025, arXiv:2501.06261, eq. 12",
)
@dataclass(frozen=True, kw_only=True)
class ShapleyCAM(LayerPasses):
    """`relu(sum_c w_c A_c)`, `w_c` = mean over space of `g - H A / 2`: Shapley values of cells to second order.

    The product of the Hessian with the activation comes out of a second backward pass. Behind rectifiers and linear
    layers alone it is zero, and the map is Grad-CAM's.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
    """

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """Gradient, and its change along the activation."""
        name = layer.name
        with Capture(job.module, [name], watch=job.watch, runs={name: layer.runs}) as capture:
            _, (score,) = capture.scored(job.inputs, lambda y, w: [target.score(y, w)])
            A = capture.activations[name]
            with guarded_backward(), torch.enable_grad():
                (g,) = torch.autograd.grad(score.sum(), A, create_graph=True)
                bent = g.requires_grad and torch.autograd.grad((g * A.detach()).sum(), A, allow_unused=True)[0]
            curve = bent if isinstance(bent, Tensor) else torch.zeros_like(A)
            values, slope = A.detach().float(), (g.detach() - curve / 2).float()
        values, slope = layer.layout.to_map(values), layer.layout.to_map(slope)
        found = (slope.mean(space_dims(slope), keepdim=True) * values).sum(1).relu()
        return self.attribution(found, layer, Cost(2 * len(job.inputs), 2 * len(job.inputs)))


@method(
    "smooth-grad-cam++",
    family="cam",
    needs="gradients, a layer",
    cost="samples (8) forwards + tail backwards, and 2 forwards",
    paper="Omeiza et al. 2019, arXiv:1908.01224",
)
@dataclass(frozen=True, kw_only=True)
class SmoothGradCAMPlusPlus(LayerPasses):
    """Grad-CAM++ with the powers of its gradient averaged over copies of the input with Gaussian noise.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        samples: copies.
        noise: standard deviation, as a share of the input's range.
        seed: of the noise.
    """

    samples: int = 8
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.noise > 0:
            raise MethodError("smooth-grad-cam++ needs at least 1 sample, and noise above 0, such as 0.15.")

    def quick(self) -> Self:
        """Two copies."""
        return replace(self, samples=min(2, self.samples))

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """Means of `g`, `g^2` and `g^3`, in the formula of Grad-CAM++."""
        x, generator = job.inputs.detach(), torch.Generator().manual_seed(self.seed)
        low, high = (f(x.flatten(1), 1).reshape(-1, *[1] * (x.ndim - 1)) for f in (torch.amin, torch.amax))
        A = layer.layout.to_map(activation_and_gradients(job, layer, need_gradient=False)[0]).float()
        powers = [torch.zeros_like(A) for _ in range(3)]
        with task(self.name, self.samples) as advance:
            for _ in range(self.samples):
                noisy = x + self.noise * (high - low) * torch.randn((1, *x.shape[1:]), generator=generator).to(x)
                _, (g,) = activation_and_gradients(replace(job, inputs=noisy), layer, need_gradient=True)
                G = layer.layout.to_map(g).float()
                powers = [p + G**k / self.samples for k, p in enumerate(powers, 1)]
                advance(1)
        dims = space_dims(A)
        alpha = ratio(powers[1], 2 * powers[1] + A.sum(dims, keepdim=True) * powers[2])
        weights = (alpha * powers[0].relu()).sum(dims, keepdim=True)
        cost = Cost(len(x) * (2 + self.samples), len(x) * self.samples)
        return self.attribution((weights * A).sum(1).relu(), layer, cost)


@method(
    "integrated-grad-cam",
    family="cam",
    needs="gradients, a layer",
    cost="steps (16) forwards + tail backwards, and 3 forwards",
    paper="Sattarzadeh et al. 2021, arXiv:2102.07805, eq. 5",
)
@dataclass(frozen=True, kw_only=True)
class IntegratedGradCAM(LayerPasses):
    """`relu(sum_c w_c (A_c - A'_c))`, `w_c` Grad-CAM's weights averaged on the way from a baseline to the input.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        steps: places on the way.
        baseline: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
    """

    steps: int = 16
    baseline: str | Tensor = "zero"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError("integrated-grad-cam needs at least 1 step.")

    def quick(self) -> Self:
        """Four steps."""
        return replace(self, steps=min(4, self.steps))

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """Weights at the middle of each step."""
        x = job.inputs.detach()
        start = make_baseline(self.baseline, x, torch.Generator().manual_seed(0))

        def at(inputs: Tensor, gradient: bool) -> Tensor:
            A, found = activation_and_gradients(replace(job, inputs=inputs), layer, gradient)
            return layer.layout.to_map(found[0] if gradient else A).float()

        away = at(x, gradient=False) - at(start, gradient=False)
        weights = torch.zeros_like(away)
        with task(self.name, self.steps) as advance:
            for k in range(self.steps):
                weights += at(start + (k + 0.5) / self.steps * (x - start), gradient=True) / self.steps
                advance(1)
        found = (weights.mean(space_dims(weights), keepdim=True) * away).sum(1).relu()
        return self.attribution(found, layer, Cost(len(x) * (3 + self.steps), len(x) * self.steps))


@method(
    "relevance-cam",
    family="cam",
    needs="gradients, functions, a layer",
    cost="2 forwards + tail backward",
    paper="Lee et al. 2021, doi:10.1109/CVPR46437.2021.01471, eq. 6",
)
@dataclass(frozen=True, kw_only=True)
class RelevanceCAM(LayerPasses):
    """`relu(sum_c R_c A_c)`, `R_c` the sum over space of the relevance that LRP leads back to the layer.

    Fit for shallow layers, where gradients are shattered.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        composite: the rules behind the layer, see lrp.
    """

    composite: str = "epsilon-plus"

    def __post_init__(self) -> None:
        COMPOSITES.find(self.composite)

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """The tail, led back by rules."""
        name = layer.name
        with Capture(job.module, [name], watch=job.watch, runs={name: layer.runs}) as capture:
            run = Propagation(COMPOSITES.find(self.composite)(Strengths()), capture.module)

            def score(output: Any, watched: Any) -> list[Tensor]:
                with run.paused():
                    return [target.score(output, watched)]

            with run:
                _, scores = capture.scored(job.inputs, score)
            (found,) = capture.gradients(scores)
            A, g = capture.activations[name].detach(), found[name]
        A, R = layer.layout.to_map(A).float(), layer.layout.to_map(carrier(A) * g).float()
        values = (R.sum(space_dims(R), keepdim=True) * A).sum(1).relu()
        made = self.attribution(values, layer, Cost(2 * len(A), len(A)))
        made.notes += run.said()
        return made
