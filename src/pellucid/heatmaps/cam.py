"""Class activation maps: activation x gradient at one layer, all of them out of one pass.

`A` is the layer's activation and `G = dy/dA` the gradient of the target's score, both `(N, C, *grid)`; each method
is a formula in the two. The pass costs one forward and the backward of the tail behind the layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, Cost
from pellucid.errors import LayerError, MethodError
from pellucid.heatmaps.base import Attribution, Job, Method, method
from pellucid.models.layers import Layer, best_layer, describe
from pellucid.models.targets import Class, Contrast, PerSample, Target, TopClass

_CAM_COST = "1 forward + tail backward"


def space_dims(t: Tensor) -> tuple[int, ...]:
    """The space axes of `(N, C, *space)`."""
    return tuple(range(2, t.ndim))


def weight_dims(t: Tensor, per_frame: bool) -> tuple[int, ...]:
    """The axes that a channel's weight is taken over: all of space, or only that of each frame of `(N, C, T, H, W)`.

    Raises:
        MethodError: weights a frame, and no clip.
    """
    if per_frame and t.ndim != 5:
        raise MethodError(
            f"Weights for each frame need a clip, an activation (N, C, T, h, w); this one is {tuple(t.shape)}: leave "
            "per_frame out."
        )
    return space_dims(t)[1:] if per_frame else space_dims(t)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`, 0 where the denominator is 0."""
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))


@dataclass(frozen=True, kw_only=True)
class ActivationGradientCAM(Method):
    """Base: owns the pass, the layer and its layout; a subclass is its `combine`.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
    """

    layer: str | None = None
    needs_gradient: ClassVar[bool] = True

    @abstractmethod
    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """The map `(N, *grid)` from activation and gradient, each `(N, C, *grid)` in single precision."""

    def finish(self, job: Job, target: Target, A: Tensor, G: Tensor, layer: Layer) -> Attribution:
        """The attribution of one target; overridden where more than the map is kept."""
        values = self.combine(A, G)
        notes = [*layer.notes, *_notes(values, self.signed, self.name, None if G.any() else layer)]
        return Attribution(values, layer, notes=notes)

    def pass_key(self) -> Hashable:
        """All CAMs of one layer share a pass."""
        return (ActivationGradientCAM, self.layer)

    @classmethod
    def run(cls, methods: Sequence[ActivationGradientCAM], job: Job) -> list[list[Attribution]]:
        """One pass for all methods and targets."""
        need_gradient = any(m.needs_gradient for m in methods)
        layer = _choose(methods[0].layer, job, need_gradient)
        activation, gradients = _activation_and_gradients(job, layer, need_gradient)
        A = layer.layout.to_map(activation).float()
        results: list[list[Attribution]] = [[] for _ in methods]
        cost = Cost(forwards=len(job.inputs), backwards=len(job.inputs) * len(job.targets) * need_gradient)
        for k, target in enumerate(job.targets):
            G = layer.layout.to_map(gradients[k]).float() if need_gradient else torch.zeros_like(A)
            if need_gradient and not G.any():
                _refuse_dead_layer(job, target, layer)
            for result, m in zip(results, methods, strict=True):
                attribution = m.finish(job, target, A, G, layer)
                attribution.cost = cost
                result.append(attribution)
        return results


def _choose(name: str | None, job: Job, gradient: bool = True) -> Layer:
    """The layer named, or the best one found; with `gradient` it is known whether it is the model's own output."""
    kinds = frozenset(t.kind for t in job.targets)

    def score(output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([t.score(output, watched).sum() for t in job.targets]).sum()

    if name is not None:
        return describe(job.module, job.inputs, name, score if gradient else None, watch=job.watch, key=kinds)
    return best_layer(job.module, job.inputs, score, watch=job.watch, key=kinds)


def _activation_and_gradients(job: Job, layer: Layer, need_gradient: bool) -> tuple[Tensor, list[Tensor]]:
    name, runs = layer.name, {layer.name: layer.runs}
    if not need_gradient:
        with Capture(job.module, [name], stop_early=True, runs=runs) as capture:
            capture.forward(job.inputs)
            return capture.activations[name], []
    with Capture(job.module, [name], watch=job.watch, runs=runs) as capture:
        _, scores = capture.scored(job.inputs, lambda y, w: [t.score(y, w) for t in job.targets])
        gradients = [g[name] for g in capture.gradients(scores)]
        return capture.activations[name].detach(), gradients


def _refuse_dead_layer(job: Job, target: Target, layer: Layer) -> None:
    """A layer whose cells never reach the target explains nothing, whatever the picture: say which one would."""
    better = best_layer(job.module, job.inputs, target.score, watch=target.layers, key=target.kind)
    if better.name != layer.name:
        tokens = "its patch tokens carry" if layer.layout.kind == "tokens" else "its cells carry"
        raise LayerError(
            f"Layer {layer.name!r} cannot explain this target, because {tokens} no gradient to it (it stands beside "
            f"the way to the score, or behind the last mixing of places): use {better.name!r}, or name no layer."
        )


def _notes(values: Tensor, signed: bool, name: str, dead: Layer | None = None) -> list[str]:
    """What to say of a map of zeros; `dead` is a layer at which the gradient itself is zero."""
    if values.any():
        return []
    if dead is not None:
        return [
            f"{name} is zero everywhere, because no gradient reaches layer {dead.name!r}: on this input it is not on "
            "the way to the score, which says nothing about the target. Name another layer."
        ]
    if signed:
        return [f"{name} is zero everywhere: at this layer no cell that is active counts for this target."]
    return [f"{name} found nothing in favour of the target at this layer (the map is zero); try hires-cam, signed."]


@method(
    "cam",
    family="cam",
    needs="a layer, then global average pooling and one linear layer",
    cost=_CAM_COST,
    paper="Zhou et al. 2016, arXiv:1512.04150, eq. 2",
)
@dataclass(frozen=True, kw_only=True)
class CAM(ActivationGradientCAM):
    """`sum_c w_c A_c`, `w` the target's row of the final linear layer.

    On networks that end in global average pooling and one linear layer, `w_c = sum over space of dy/dA_c`, which
    is constant over space; so no weight needs to be looked up, and other heads are recognised and refused.
    """

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Raises MethodError where the gradient shows that the head is not pooling + linear."""
        weights = G.sum(space_dims(G), keepdim=True)
        if not torch.allclose(
            G * G[0, 0].numel(), weights.expand_as(G), rtol=1e-3, atol=1e-4 * float(weights.abs().max())
        ):
            raise MethodError(
                "`cam` needs a network that ends in global average pooling and one linear layer behind the explained "
                "layer, and this one does not: use grad-cam."
            )
        return (weights * A).sum(1)

    def finish(self, job: Job, target: Target, A: Tensor, G: Tensor, layer: Layer) -> Attribution:
        """Also proves that the weights are the target's in a linear layer of the network."""
        attribution = super().finish(job, target, A, G, layer)
        if not _in_a_linear_layer(job.module, target, G.sum(space_dims(G))):
            raise MethodError(
                "`cam` needs one linear layer behind the global average pooling, and this network computes more "
                "there: use grad-cam."
            )
        return attribution


@method(
    "saliency-tubes",
    family="cam",
    needs="a clip, a layer, then global average pooling and one linear layer",
    cost=_CAM_COST,
    paper="Stergiou et al. 2019, arXiv:1902.01078",
)
@dataclass(frozen=True, kw_only=True)
class SaliencyTubes(CAM):
    """`sum_c w_c A_c` in time and space, `w` the target's row of the final linear layer: CAM of a clip. `(N, T, h, w)`.

    The paper scales the tube to 0..1; here it keeps its values, whose mean is the logit without its bias.
    """

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Raises MethodError for an activation without a time axis."""
        if A.ndim != 5:
            raise MethodError(
                f"Saliency tubes need a clip, an activation (N, C, T, h, w); this one is {tuple(A.shape)}: use cam."
            )
        return super().combine(A, G)


def _in_a_linear_layer(module: nn.Module, target: Target, weights: Tensor) -> bool:
    """Whether the weights `(N, C)` are the target's rows of one linear layer or 1x1 convolution.

    For targets other than classes and contrasts any linear combination of classes would do; they are not checked.
    """
    for m in module.modules():
        if not isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        rows = m.weight.detach().float().flatten(1)
        if rows.shape[1] != weights.shape[1]:
            continue
        if isinstance(target, Contrast):
            a, b = Class(target.a).bound(), Class(target.b).bound()
            if max(a, b) >= len(rows):
                continue  # some other linear layer
            expected = rows[a] - rows[b]
        elif isinstance(target, Class | PerSample | TopClass):
            expected = rows[torch.cdist(weights, rows).argmin(1)]
        else:
            return True
        if torch.allclose(weights, expected.expand_as(weights), rtol=1e-3, atol=1e-4 * float(rows.abs().max())):
            return True
    return False


@method(
    "grad-cam",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="Selvaraju et al. 2017, arXiv:1610.02391, eq. 1-2",
)
@dataclass(frozen=True, kw_only=True)
class GradCAM(ActivationGradientCAM):
    """`relu(sum_c w_c A_c)`, `w_c` = mean over space of `dy/dA_c`.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        per_frame: for clips, a weight for each frame, `w_ct`, the mean over its places; else one for the whole clip.
    """

    per_frame: bool = False
    signed: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Equations 1 and 2."""
        weights = G.mean(weight_dims(G, self.per_frame), keepdim=True)
        return (weights * A).sum(1).relu()


@method(
    "grad-cam++",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="Chattopadhay et al. 2018, arXiv:1710.11063, eq. 10, 19",
)
@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(ActivationGradientCAM):
    """`relu(sum_c w_c A_c)`, `w_c = sum_ij alpha_ij relu(g_ij)`, `alpha = g^2 / (2 g^2 + (sum_ab A_ab) g^3)`.

    The paper explains `Y = exp(y)`, whose derivatives are `exp(y) g`, `exp(y) g^2` and `exp(y) g^3` behind ReLU
    layers; the common factor `exp(y)`, one number per picture, is left out. The denominator may cross zero where a
    layer's activations sum to a negative number: use layers behind a ReLU.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        per_frame: for clips, a weight for each frame, with sums over its places; else one for the whole clip.
    """

    per_frame: bool = False
    signed: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Equations 10 and 19."""
        dims = weight_dims(A, self.per_frame)
        total = A.sum(dims, keepdim=True)
        alpha = _ratio(G**2, 2 * G**2 + total * G**3)
        weights = (alpha * G.relu()).sum(dims, keepdim=True)
        return (weights * A).sum(1).relu()


@method(
    "xgrad-cam",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="Fu et al. 2020, arXiv:2008.02312, eq. 8",
)
@dataclass(frozen=True, kw_only=True)
class XGradCAM(ActivationGradientCAM):
    """`relu(sum_c w_c A_c)`, `w_c = sum_ij (A_ij / sum_ab A_ab) g_ij`: sensitive and conserving weights.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        per_frame: for clips, a weight for each frame, with sums over its places; else one for the whole clip.
    """

    per_frame: bool = False
    signed: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Equation 8; channels that sum to zero weigh nothing."""
        dims = weight_dims(A, self.per_frame)
        weights = _ratio((A * G).sum(dims, keepdim=True), A.sum(dims, keepdim=True))
        return (weights * A).sum(1).relu()


@method(
    "hires-cam",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="Draelos & Carin 2020, arXiv:2011.08891, eq. 5",
)
@dataclass(frozen=True, kw_only=True)
class HiResCAM(ActivationGradientCAM):
    """`sum_c g_c A_c`, signed; on pooling + linear heads the sum over cells is the logit minus the bias."""

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Equation 5."""
        return (G * A).sum(1)


@method(
    "layer-cam",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, eq. 6-8",
)
@dataclass(frozen=True, kw_only=True)
class LayerCAM(ActivationGradientCAM):
    """`relu(sum_c relu(g_c) A_c)`: each cell weighed by its own positive gradient; fit for shallow layers."""

    signed: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Equations 6 to 8."""
        return (G.relu() * A).sum(1).relu()


@method(
    "grad-cam-elementwise",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="element-wise variant of Selvaraju et al. 2017 (pytorch-grad-cam)",
)
@dataclass(frozen=True, kw_only=True)
class ElementwiseGradCAM(ActivationGradientCAM):
    """`sum_c relu(g_c A_c)`: negative products are dropped before the sum."""

    signed: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Sum of positive products."""
        return (G * A).relu().sum(1)


@method(
    "eigen-cam",
    family="cam",
    needs="a layer",
    cost="1 forward up to the layer",
    paper="Muhammad & Yeasin 2020, arXiv:2008.00299",
)
@dataclass(frozen=True, kw_only=True)
class EigenCAM(ActivationGradientCAM):
    """First principal component of the activation, `A v_1`: what stands out at the layer, whatever the target.

    Not centred, as in the paper. The sign of a singular vector is arbitrary; it is fixed so that the map
    correlates positively with the summed activation.
    """

    uses_target: ClassVar[bool] = False
    signed: ClassVar[bool] = False  # its negative values are no evidence against anything
    needs_gradient: ClassVar[bool] = False

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Projection on the first right singular vector."""
        return first_component(A)


@method(
    "eigen-grad-cam",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="class-discriminative variant of Muhammad & Yeasin 2020 (pytorch-grad-cam)",
)
@dataclass(frozen=True, kw_only=True)
class EigenGradCAM(ActivationGradientCAM):
    """First principal component of `g A`, its sign fixed to agree with `sum_c g_c A_c`."""

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Projection on the first right singular vector of the product."""
        return first_component(G * A)


def first_component(X: Tensor) -> Tensor:
    """`(N, C, *grid) -> (N, *grid)`: first principal component `s_1 u_1` of each sample's (cells x channels) matrix.

    From the smaller of the two Gram matrices; its sign is that of the projection of the channel sum.
    """
    M = X.flatten(2).mT.double()  # (N, cells, C)
    cells, channels = M.shape[1:]
    if cells <= channels:
        _, vectors = torch.linalg.eigh(M @ M.mT)
        u = vectors[..., -1:]  # unit vector over cells
        component = u * (u.mT @ M).norm(dim=-1, keepdim=True)
    else:
        _, vectors = torch.linalg.eigh(M.mT @ M)
        component = M @ vectors[..., -1:]
    agreement = (component * M.sum(-1, keepdim=True)).sum(1, keepdim=True)
    component = torch.where(agreement < 0, -component, component)
    return component[..., 0].to(X.dtype).reshape(X.shape[0], *X.shape[2:])


@method(
    "channel-relevance",
    family="cam",
    needs="gradients, a layer",
    cost=_CAM_COST,
    paper="first-order relevance of a layer's channels (gradient x activation, Selvaraju et al. 2017, sec. 3)",
)
@dataclass(frozen=True, kw_only=True)
class ChannelRelevance(ActivationGradientCAM):
    """`H_i = 1/Z * sum_jk dy/dA_ijk A_ijk`: one signed number `(N, C)` for each channel `i`, `Z` cells to a channel.

    Args:
        maps: keep the activation maps of this many channels of the largest absolute relevance.
    """

    maps: int = 8
    kind: ClassVar[Any] = "channels"

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Mean of gradient x activation over space."""
        return (G * A).mean(space_dims(A))

    def finish(self, job: Job, target: Target, A: Tensor, G: Tensor, layer: Layer) -> Attribution:
        """Keeps the leading channels' activation maps beside their relevance."""
        attribution = super().finish(job, target, A, G, layer)
        top = attribution.values.abs().topk(min(self.maps, A.shape[1]), dim=1).indices
        index = top.reshape(*top.shape, *[1] * (A.ndim - 2)).expand(-1, -1, *A.shape[2:])
        attribution.extras = {"channels": top, "activations": A.gather(1, index)}
        return attribution
