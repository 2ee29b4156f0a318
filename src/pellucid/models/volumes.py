"""Image models made models of volumes, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from pellucid.models.adapters import PerFrame
from pellucid.models.model import VisionModel
from pellucid.models.volume_preprocess import SlicePreprocess


def sliced(
    model: VisionModel,
    pool: str | Callable[[Tensor], Tensor] = "mean",
    slices: int | None = 16,
    orientation: str = "SPL",
    window: tuple[float, float] | None = None,
) -> VisionModel:
    """An image model as one of volumes; for the arguments see `pellucid.per_slice`."""
    preprocess = SlicePreprocess(spatial=model.pictures, count=slices, orientation=orientation, window=window)
    pooled = PerFrame(model.module, pool, model.reading)
    named = model.source and isinstance(pool, str) and (slices, orientation, window) == (16, "SPL", None)
    source = {**model.source, "per_slice": pool} if named else {}
    return replace(
        model, module=pooled, preprocess=preprocess, source=source, reading=replace(model.reading, output=None)
    )
