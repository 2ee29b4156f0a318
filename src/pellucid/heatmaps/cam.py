"""Class activation maps: activation x gradient at one layer, all of them out of one pass.

`A` is the layer's activation and `G = dy/dA` the gradient of the target's score, both `(N, C, *grid)`; each method
is a formula in the two. The pass costs one forward and the backward of the tail behind the layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.engine import Cost
from pellucid.errors import MethodError
from pellucid.heatmaps.activations import (
    activation_and_gradients,
    choose_layer,
    map_notes,
    ratio,
    refuse_dead_layer,
    space_dims,
    weight_dims,
)
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.heatmaps.sliding import through_windows
from pellucid.models.layers import Layer
from pellucid.models.sliding import SlidingWindow
from pellucid.models.targets import Class, Contrast, PerSample, Target, TopClass
from pellucid.scoring.job import Job

_CAM_COST = "1 forward + tail backward"


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
        notes = [*layer.notes, *map_notes(values, self.signed, self.name, None if G.any() else layer)]
        return Attribution(values, layer, notes=notes)

    def windowed(self, job: Job, target: Target, A: Tensor, G: Tensor, layer: Layer) -> Attribution:
        """The attribution of a network that slides over a volume, from all its windows side by side."""
        values = self.combine(A, G)
        return Attribution(values, layer, notes=map_notes(values, self.signed, self.name))

    def pass_key(self) -> Hashable:
        """All CAMs of one layer share a pass."""
        return (ActivationGradientCAM, self.layer)

    def cut_key(self) -> Hashable:
        """Its pass is cut at its layer."""
        return self.pass_key() if self.needs_gradient else None

    @classmethod
    def run(cls, methods: Sequence[ActivationGradientCAM], job: Job) -> list[list[Attribution]]:
        """One pass for all methods and targets."""
        need_gradient = any(m.needs_gradient for m in methods)
        if isinstance(job.module, SlidingWindow):
            return through_windows(methods, job, ActivationGradientCAM.windowed, need_gradient=need_gradient)
        layer = choose_layer(methods[0].layer, job, need_gradient)
        activation, gradients = activation_and_gradients(job, layer, need_gradient)
        A = layer.layout.to_map(activation).float()
        results: list[list[Attribution]] = [[] for _ in methods]
        cost = Cost(forwards=len(job.inputs), backwards=len(job.inputs) * len(job.targets) * need_gradient)
        for k, target in enumerate(job.targets):
            G = layer.layout.to_map(gradients[k]).float() if need_gradient else torch.zeros_like(A)
            if need_gradient and not G.any():
                refuse_dead_layer(job, target, layer)
            for result, m in zip(results, methods, strict=True):
                attribution = m.finish(job, target, A, G, layer)
                attribution.cost = cost
                result.append(attribution)
        return results


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
        alpha = ratio(G**2, 2 * G**2 + total * G**3)
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
        weights = ratio((A * G).sum(dims, keepdim=True), A.sum(dims, keepdim=True))
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
