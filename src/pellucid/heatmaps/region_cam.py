"""Class activation maps of a region that a segmentation network finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.cam import ActivationGradientCAM, GradCAM
from pellucid.models.layers import Layer
from pellucid.models.targets import Between, RegionTarget, Target
from pellucid.scoring.job import Job

_COST = "1 forward + tail backward"


class _OfRegions(ActivationGradientCAM):
    """Base: refuses what is no region."""

    def finish(self, job: Job, target: Target, A: Tensor, G: Tensor, layer: Layer) -> Attribution:
        """Raises MethodError for a target that is no region."""
        if not isinstance(target.first if isinstance(target, Between) else target, RegionTarget):
            raise MethodError(f"{self.name} explains a region, and this target is none: name one, region:LABEL.")
        return super().finish(job, target, A, G, layer)


@method(
    "seg-grad-cam",
    family="cam",
    needs="gradients, a layer, a region",
    cost=_COST,
    paper="Vinogradova et al. 2020, arXiv:2002.11434, eq. 2",
)
@dataclass(frozen=True, kw_only=True)
class SegGradCAM(_OfRegions, GradCAM):
    """Grad-CAM of a region: of the class's mean score over its places, where Grad-CAM has the score of one class.

    The paper sums the scores; a mean differs by a factor, the number of places, and so regions of two sizes compare.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        per_frame: see `GradCAM`.
    """


@method(
    "seg-xres-cam",
    family="cam",
    needs="gradients, a layer, a region",
    cost=_COST,
    paper="Hasany et al. 2023, arXiv:2310.12837, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class SegXResCAM(_OfRegions):
    """`relu(sum_c up(pool(g_c)) A_c)`: gradients pooled in small windows, so that the map stays where the region is.

    A window of one cell is the positive part of HiResCAM, one of the whole grid Seg-Grad-CAM.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        window: cells a side of what is pooled.
    """

    window: int = 2
    signed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.window < 1:
            raise MethodError(f"A window of seg-xres-cam has at least one cell a side, not {self.window}.")

    def combine(self, A: Tensor, G: Tensor) -> Tensor:
        """Gradients averaged in windows, each spread over its window again, times the activation."""
        if A.ndim != 4:
            raise MethodError(f"seg-xres-cam needs an activation (N, C, h, w); this one is {tuple(A.shape)}.")
        pooled = functional.avg_pool2d(G, self.window, ceil_mode=True)
        spread = pooled.repeat_interleave(self.window, 2).repeat_interleave(self.window, 3)
        return (spread[..., : A.shape[2], : A.shape[3]] * A).sum(1).relu()
