"""Class activation maps of one box of a detector: gradients that stay with the instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pellucid.errors import MethodError
from pellucid.heatmaps.activations import space_dims
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.cam import ActivationGradientCAM
from pellucid.models.layers import Layer
from pellucid.models.targets import Between, BoxTarget, Target
from pellucid.scoring.job import Job

_COST = "1 forward + tail backward"


class _OfBoxes(ActivationGradientCAM):
    """Base: refuses what is no box."""

    signed: ClassVar[bool] = False

    def finish(self, job: Job, target: Target, A: Tensor, G: Tensor, layer: Layer) -> Attribution:
        """Raises MethodError for a target that is no box."""
        if not isinstance(target.first if isinstance(target, Between) else target, BoxTarget):
            raise MethodError(f"{self.name} explains one box, and this target is none: name one, such as box:0/class.")
        return super().finish(job, target, A, G, layer)


@method(
    "odam",
    family="cam",
    needs="gradients, a layer, a box",
    cost=_COST,
    paper="Zhao & Chan 2023, ICLR, ODAM: Gradient-based Instance-Specific Visual Explanations, eq. 3",
)
@dataclass(frozen=True, kw_only=True)
class ODAM(_OfBoxes):
    """`relu(sum_c g_c A_c)`, cell by cell: each channel weighed by the box's own gradient at that very place.

    Nothing is averaged over the picture, so two boxes of one class have two maps.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
    """

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Equation 3, without smoothing."""
        return (G * A).sum(1).relu()


@method(
    "ssgrad-cam",
    family="cam",
    needs="gradients, a layer, a box",
    cost=_COST,
    paper="Yamauchi & Ishikawa 2022, ICIP, Spatial Sensitive Grad-CAM, eq. 3-5",
)
@dataclass(frozen=True, kw_only=True)
class SSGradCAM(_OfBoxes):
    """`relu(sum_c w_c s_c A_c)`, `w_c` the mean of `g_c`, `s_c` its size at each place, 1 where that is largest.

    Grad-CAM's channels, held to the places that the box's score depends on.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
    """

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Grad-CAM times the space map."""
        space = space_dims(G)
        size = G.abs()
        share = size / size.amax(space, keepdim=True).clamp(min=1e-30)
        return (G.mean(space, keepdim=True) * share * A).sum(1).relu()
