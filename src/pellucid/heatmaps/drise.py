"""D-RISE: random masks, and how alike what a detector finds under them is to one of its boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.sampling import RISE
from pellucid.models.targets import Between, BoxTarget, Target
from pellucid.scoring.job import Job


@method(
    "d-rise",
    family="perturbation",
    needs="outputs, a box",
    cost="1 forward a mask, up to max_samples (5000)",
    paper="Petsiuk et al. 2021, arXiv:2006.03204, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class DRISE(RISE):
    """RISE whose score of a mask is the greatest similarity of a candidate under it to the box. `(N, *space)`.

    The similarity is overlap times the cosine of the class probabilities times objectness, over all candidates before
    any is suppressed (see `BoxTarget`, part `similarity`). A detector without objectness has that of its most likely
    class in its place. Far from the object a detector finds the box under most masks, so the paper's sum never comes
    near zero there; the covariance (`centred`, the default) does.

    Args:
        cells, p, samples, tolerance, max_samples, centred, baseline, seed: see `RISE`; 16 cells and 5000 masks at the
            most, as in the paper.

    Raises:
        MethodError: the target is no box.
    """

    cells: int | tuple[int, ...] = 16
    max_samples: int = 5000

    def perturb(self, job: Job) -> list[Attribution]:
        """RISE on the boxes' similarity."""
        return super().perturb(replace(job, targets=tuple(_similar(t) for t in job.targets)))


def _similar(target: Target) -> Target:
    if isinstance(target, Between):
        return target.each(_similar)
    if not isinstance(target, BoxTarget):
        raise MethodError(
            "d-rise asks why a detector sees a box, and this target is none: name one such as box:0, or use rise."
        )
    return replace(target, part="similarity") if not target.part else target
