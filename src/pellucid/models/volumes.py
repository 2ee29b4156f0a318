"""Image models made models of volumes, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from pellucid.models.adapters import PerFrame
from pellucid.models.model import VisionModel
from pellucid.models.sources import load, wrap
from pellucid.models.volume_preprocess import SlicePreprocess


def per_slice(
    model: VisionModel | nn.Module | str,
    pool: str | Callable[[Tensor], Tensor] = "mean",
    *,
    slices: int | None = 16,
    orientation: str = "SPL",
    window: tuple[float, float] | None = None,
) -> VisionModel:
    """An image model as a model of volumes: it sees slices one by one, and their scores are pooled.

    Args:
        model: an image model, its name, or a bare module.
        pool: `mean` or `max` over the slices, or a function `(N, slices, classes) -> (N, classes)`.
        slices: so many, evenly spread over the volume; None: all.
        orientation: where slices, rows and columns go: `SPL` axial, `ASL` coronal and so on.
        window: centre and width, in the volume's units; None: its own.

    Raises:
        ModelError: the model takes no pictures, or there is no such pooling.
    """
    bare = load(model) if isinstance(model, str) else model
    loaded = bare if isinstance(bare, VisionModel) else wrap(bare)
    preprocess = SlicePreprocess(spatial=loaded.pictures, count=slices, orientation=orientation, window=window)
    pooled = PerFrame(loaded.module, pool, loaded.reading)
    named = loaded.source and isinstance(pool, str) and (slices, orientation, window) == (16, "SPL", None)
    source = {**loaded.source, "per_slice": pool} if named else {}
    return replace(
        loaded, module=pooled, preprocess=preprocess, source=source, reading=replace(loaded.reading, output=None)
    )
