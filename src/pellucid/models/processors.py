"""The preprocessing that an image processor of transformers does, from the object or the file saved beside a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import ModelError
from pellucid.models.preprocess import Preprocess

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by PIL's numbers
_STRETCHED = 384  # from this size on, processors that crop by a share resize without cropping


def processor_settings(folder: str | Path) -> Mapping[str, Any]:
    """The settings of the processor saved in a model's folder; empty where there are none."""
    try:
        found = json.loads((Path(folder) / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_processor(thing: object) -> bool:
    """Whether it is an image processor of transformers."""
    return hasattr(thing, "image_mean") and hasattr(thing, "image_std") and callable(getattr(thing, "to_dict", None))


def from_processor(processor: Any) -> Preprocess:
    """What an image processor does to a picture.

    Args:
        processor: the object, or its settings as they are saved in `preprocessor_config.json`.

    Raises:
        ModelError: it names no size.
    """
    asked: Mapping[str, Any] = processor if isinstance(processor, Mapping) else processor.to_dict()
    scale = 255.0 * (asked.get("rescale_factor") or 1 / 255 if asked.get("do_rescale", True) else 1.0)
    plain = not asked.get("do_normalize", True)
    mean, std = ((0.0,) * 3, (1.0,) * 3) if plain else (_three(asked["image_mean"]), _three(asked["image_std"]))
    size, shortest = _size(asked.get("size")), _shortest(asked.get("size"))
    crop = _size(asked.get("crop_size")) if asked.get("do_center_crop") else None
    resize: int | tuple[int, int] | None = size if size is not None else shortest
    fit = "exact" if size is not None else "cover"
    if shortest is not None and asked.get("crop_pct") and size is None:  # as ConvNeXT's processor
        crop, share = (shortest, shortest), float(asked["crop_pct"])
        resize, fit = (int(shortest / share), "cover") if shortest < _STRETCHED else (crop, "exact")
    resize = resize if asked.get("do_resize", True) else None
    seen = crop or size or (None if shortest is None else (shortest, shortest))
    if seen is None:
        raise ModelError("The processor names no size: give the model a Preprocess, or a function of the picture.")
    return Preprocess(
        input_size=seen,
        resize=resize,
        fit=fit,
        crop=crop is not None or size is not None,
        mean=tuple(m / scale for m in mean),
        std=tuple(s / scale for s in std),
        interpolation=_FILTERS[int(asked.get("resample", 2) or 0)],
    )


def _three(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3


def _size(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    return None


def _shortest(size: Any) -> int | None:
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    return None if edge is None else int(edge)
