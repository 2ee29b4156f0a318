"""From what a user gives (paths, pictures, arrays, tensors, model names) to inputs ready for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pellucid.errors import MediaError, PellucidError
from pellucid.media import Geometry, Picture, expand, read_image
from pellucid.models import sources
from pellucid.models.model import VisionModel

Input = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor
ModelLike = str | VisionModel | nn.Module


@dataclass
class Prepared:
    """One input, ready for the model."""

    x: Tensor
    geometry: Geometry
    picture: Picture | None
    source: dict[str, Any]
    position: int = 0  # among all inputs, readable or not


def as_model(model: ModelLike) -> VisionModel:
    """A model by name, a bare module wrapped, or a `VisionModel` as it is."""
    if isinstance(model, VisionModel):
        return model
    return sources.load(model) if isinstance(model, str) else sources.wrap(model)


def prepared(model: VisionModel, inputs: Input | Sequence[Input]) -> Iterator[tuple[str, Prepared | PellucidError]]:
    """Inputs one after the other, ready for the model: `(name, input or what is wrong with it)`."""
    for item in _items(inputs):
        try:
            if isinstance(item, Tensor):
                for x in item if item.ndim > 3 else [item]:
                    yield "tensor", _from_tensor(model, x)
            else:
                picture = item if isinstance(item, Picture) else read_image(item)
                yield picture.name, _from_picture(model, picture)
        except MediaError as error:
            yield str(item) if isinstance(item, str | Path) else "input", error


def _items(inputs: Input | Sequence[Input]) -> Iterable[Input | Picture]:
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
    for item in inputs if several else [inputs]:  # type: ignore[union-attr]
        if isinstance(item, str | Path):
            yield from expand([item])
        else:
            yield item  # type: ignore[misc]


def _from_picture(model: VisionModel, picture: Picture) -> Prepared:
    x, geometry = model.preprocess(picture)
    source = picture.source
    if source and not source.startswith("sample:"):
        source = str(Path(source).resolve())
    about = {"source": source, "name": picture.name, "sha256": picture.sha256}
    return Prepared(x, geometry, picture if geometry.known else _as_seen(model, x, picture), about)


def _as_seen(model: VisionModel, x: Tensor, picture: Picture) -> Picture | None:
    """The model's own input as a picture, for inputs whose way back to a picture is not known."""
    shown = model.preprocess.display(x)
    if shown.ndim != 3 or shown.shape[0] not in (1, 3):
        return None
    pixels = shown.float().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return replace(picture, pixels=pixels)


def _from_tensor(model: VisionModel, x: Tensor) -> Prepared:
    if x.ndim < 2 or not x.is_floating_point():
        raise MediaError(
            f"An input tensor holds floats (C, H, W) or (N, C, H, W) as the model takes them, not {x.dtype} "
            f"{tuple(x.shape)}: give that, or the picture as a path or an array."
        )
    if not torch.isfinite(x).all():
        raise MediaError("The input tensor holds NaN or infinity: clean it before explaining it.")
    x = x.detach().cpu().float()
    digest = hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()
    geometry = Geometry.identity(tuple(x.shape[1:]))
    blank = Picture(np.zeros((1, 1, 3), np.uint8), "tensor", "", digest)
    picture = _as_seen(model, x, blank) if x.ndim == 3 and x.shape[0] == model.preprocess.channels else None
    return Prepared(x, geometry, picture, {"source": "", "name": "tensor", "sha256": digest})
