"""Similarity-based saliency: how much farther from another picture this one goes when a part of it is hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import Occlusion
from pellucid.models.targets import PairTarget
from pellucid.scoring.job import Job


@method(
    "sbsm",
    family="perturbation",
    needs="outputs, a pair",
    cost="1 forward a window",
    paper="Dong et al. 2019, CVPR Workshops, Explainability for Content-Based Image Retrieval",
)
@dataclass(frozen=True, kw_only=True)
class SBSM(Occlusion):
    """`relu(d(masked, other) - d(picture, other))` of a window, averaged over those that cover a place. `(N, *space)`.

    `d` is the Euclidean distance of the embeddings, each of length 1: `sqrt(2 - 2 cosine)`. What brings the pictures
    nearer when it is hidden counts nothing; `occlusion` has it with its sign.

    Args:
        window, stride, baseline, seed: see `Occlusion`.

    Raises:
        MethodError: the target is no pair.
    """

    signed: ClassVar[bool] = False

    def perturb(self, job: Job) -> list[Attribution]:
        """Occlusion of the distance."""
        if not all(isinstance(target, PairTarget) for target in job.targets):
            raise MethodError(
                "sbsm explains how near two pictures are, and this target is no pair: give pair:OTHER.jpg, or use "
                "occlusion."
            )
        return super().perturb(job)

    def lost(self, plain: Tensor, scores: Tensor) -> Tensor:
        """How much farther away the window's absence leads."""
        return (_distance(scores) - _distance(plain)).relu()


def _distance(cosine: Tensor) -> Tensor:
    return (2 - 2 * cosine).clamp(min=0).sqrt()
