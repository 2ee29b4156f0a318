"""`guaranteed`: a size of region that suffices for new pictures, learned from a folder of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from pellucid.errors import MethodError, PellucidError
from pellucid.heatmaps.base import Method
from pellucid.heatmaps.enough import SufficientRegion, least_shares
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.numerics.conformal import conformal_bound
from pellucid.verbs.inputs import Input, ModelLike, as_model, prepared


def guaranteed(
    model: ModelLike,
    folder: Input | Sequence[Input],
    method: SufficientRegion | None = None,
    target: TargetLike = None,
    *,
    guarantee: float = 0.1,
) -> SufficientRegion:
    """`sufficient` with a size that is enough for a share of at least `1 - guarantee` of new pictures.

    It then searches nothing: it shows the first cells of its first map, so many as the calibration pictures needed
    (split conformal prediction). The promise is for pictures of the same kind as these, on average over such folders.

    Args:
        model: as of `explain`.
        folder: calibration pictures, which no choice was made on; unreadable ones are left out.
        method: grid, baseline, seed and share to keep.
        target: of which answer, as of `explain`.
        guarantee: the share of new pictures whose region may fail.

    Raises:
        PellucidError: too few pictures, and how many are needed.
    """
    method, loaded, asked = method or SufficientRegion(), as_model(model), as_target(target)
    shares: list[float] = []
    for _, item in prepared(loaded, folder):
        if not isinstance(item, PellucidError):
            shares += _least(method, loaded, item.x[None].to(loaded.device, loaded.dtype), asked)
    return replace(method, share=conformal_bound(shares, guarantee), guarantee=guarantee)


def _least(method: SufficientRegion, model: VisionModel, x: Tensor, target: Target) -> list[float]:
    settled = model.settled(x, model.outputs(x))
    return least_shares(method, settled, x, target)


def with_guarantee(
    methods: Sequence[Method], model: VisionModel, folder: str | None, target: Target, guarantee: float | None
) -> list[Method]:
    """Methods with each `sufficient` among them calibrated; as they are, where no guarantee is asked for.

    Raises:
        MethodError: there is none, or no folder.
    """
    if guarantee is None:
        return list(methods)
    if folder is None:
        raise MethodError("A guarantee is learned from pictures: name their folder with --calibration.")
    if not any(isinstance(m, SufficientRegion) for m in methods):
        raise MethodError("A guarantee is given for the method sufficient: ask for --method sufficient.")
    return [
        guaranteed(model, folder, m, target, guarantee=guarantee) if isinstance(m, SufficientRegion) else m
        for m in methods
    ]
