"""From what a user gives (paths, pictures, arrays, tensors, model names) to inputs ready for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pellucid.errors import MediaError, PellucidError
from pellucid.media import (
    SCHEMES,
    STILLS,
    Clip,
    Footage,
    Geometry,
    Picture,
    address,
    expand,
    is_video,
    open_clip,
    read_image,
    scheme,
)
from pellucid.models import sources
from pellucid.models.model import VisionModel

Input = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor | Picture | Clip | Footage
ModelLike = str | VisionModel | nn.Module


@dataclass
class Prepared:
    """One input, ready for the model."""

    x: Tensor
    geometry: Geometry
    picture: Picture | Clip | None
    source: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    position: int = 0  # among all inputs, readable or not

    @property
    def still(self) -> Picture | None:
        """The picture; None for a clip."""
        return self.picture if isinstance(self.picture, Picture) else None


def as_model(model: ModelLike) -> VisionModel:
    """A model by name, a bare module wrapped, or a `VisionModel` as it is."""
    if isinstance(model, VisionModel):
        return model
    return sources.load(model) if isinstance(model, str) else sources.wrap(model)


def prepared(model: VisionModel, inputs: Input | Sequence[Input]) -> Iterator[tuple[str, Prepared | PellucidError]]:
    """Inputs one after the other, ready for the model: `(name, input or what is wrong with it)`."""
    for item in _items(inputs, clips=model.takes_clips):
        try:
            if isinstance(item, Tensor):
                for x in item if is_batch(item, model.takes_clips) else [item]:
                    yield "tensor", _clip_from_tensor(model, x) if model.takes_clips else _from_tensor(model, x)
            elif model.takes_clips:
                yield _name(item), _from_clip(model, item)
            else:
                _refuse_clip(model, item)
                picture = item if isinstance(item, Picture) else read_image(item)  # type: ignore[arg-type]
                yield picture.name, _from_picture(model, picture)
        except MediaError as error:
            yield str(item) if isinstance(item, str | Path) else "input", error


def is_batch(x: Tensor, clips: bool) -> bool:
    """Whether a tensor has a batch axis in front of `(C, H, W)`, or of a clip's `(C, T, H, W)`."""
    return x.ndim > 3 + clips


def one(model: VisionModel, inputs: Input) -> Prepared:
    """One input, ready for the model.

    Raises:
        MediaError: none, or several.
    """
    found = [item for _, item in prepared(model, inputs)]
    if len(found) != 1:
        raise MediaError(f"One picture was expected, not {len(found)}: name one.")
    if isinstance(found[0], PellucidError):
        raise found[0]
    return found[0]


def _items(inputs: Input | Sequence[Input], *, clips: bool) -> Iterable[Input]:
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
    for item in inputs if several else [inputs]:  # type: ignore[union-attr]
        if isinstance(item, str | Path):
            yield from expand([item], clips=clips, schemes=SCHEMES if clips else ())
        else:
            yield item  # type: ignore[misc]


def _from_picture(model: VisionModel, picture: Picture) -> Prepared:
    x, geometry = model.pictures(picture)
    about = {"source": address(picture.source), "name": picture.name, "sha256": picture.sha256}
    return Prepared(x, geometry, picture if geometry.known else _as_seen(model, x, picture), about, list(picture.notes))


def unsampled(inputs: Input | Sequence[Input]) -> Iterator[tuple[str, Footage | MediaError]]:
    """Clips one after the other, opened but not decoded: `(name, footage or what is wrong with it)`."""
    for item in _items(inputs, clips=True):
        try:
            if isinstance(item, Tensor):
                raise MediaError("A tensor is what the model takes, so it has no windows: give the clip itself.")
            yield _name(item), open_clip(item)  # type: ignore[arg-type]
        except MediaError as error:
            yield _name(item), error


def _name(item: Any) -> str:
    return str(item) if isinstance(item, str | Path) else getattr(item, "name", "The input")


def _refuse_clip(model: VisionModel, item: Any) -> None:
    """Say what to do with a clip where the model takes pictures."""
    path = isinstance(item, str | Path) and not scheme(item)
    array = isinstance(item, np.ndarray) and item.ndim == 4
    if isinstance(item, Clip | Footage) or array or (path and is_video(item)):
        raise MediaError(
            f"{_name(item)} is a clip, and {model.name} takes pictures: explain it frame by frame with "
            "pl.per_frame(model) (--per-frame mean), or choose a video model such as torchvision:r3d_18."
        )


def _from_clip(model: VisionModel, item: Any) -> Prepared:
    still = isinstance(item, str | Path) and scheme(item) in STILLS
    if still or isinstance(item, Image.Image | Picture) or (isinstance(item, np.ndarray) and item.ndim < 4):
        raise MediaError(f"{_name(item)} is a picture, and {model.name} takes clips: {_CLIPS}.")
    try:
        clip = open_clip(item).clip(model.clips.plan)
    except MediaError as error:
        if "is a single picture" in str(error):
            raise MediaError(f"{_name(item)} is a picture, and {model.name} takes clips: {_CLIPS}.") from None
        raise
    x, geometry = model.clips(clip)
    about = {
        "source": address(clip.source),
        "name": clip.name,
        "sha256": clip.sha256,
        "plan": clip.plan,
        "times": list(clip.times),
        **clip.origin,
    }
    return Prepared(x, geometry, clip if geometry.known else _clip_as_seen(model, x, clip), about, list(clip.notes))


_CLIPS = "give a video, an animated GIF or WebP, a folder of numbered frames, or an array (T, H, W, 3)"


def _clip_as_seen(model: VisionModel, x: Tensor, clip: Clip) -> Clip | None:
    """The model's own input as a clip."""
    shown = model.preprocess.display(x)
    if shown.shape[0] not in (1, 3):
        return None
    frames = (shown.float().clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1, -1).permute(1, 2, 3, 0)
    times = (*clip.times, *(clip.times[-1] + i + 1 for i in range(len(frames) - len(clip.times))))
    return replace(clip, frames=frames.contiguous().numpy(), times=times)


def _clip_from_tensor(model: VisionModel, x: Tensor) -> Prepared:
    channels = model.preprocess.channels
    if x.ndim != 4 or not x.is_floating_point():
        raise MediaError(
            f"{model.name} takes clips: give floats (C, T, H, W) or (N, C, T, H, W), not {x.dtype} {tuple(x.shape)}."
        )
    if x.shape[0] != channels and x.shape[1] == channels:
        raise MediaError(
            f"A clip tensor of shape {tuple(x.shape)} reads as (T, C, H, W) or as (C, T, H, W) of {x.shape[0]} "
            f"channels; clips are given as (C, T, H, W) with {channels}, whatever the model's own layout: give "
            "x.movedim(0, 1)."
        )
    if not torch.isfinite(x).all():
        raise MediaError("The input tensor holds NaN or infinity: clean it before explaining it.")
    x = x.detach().cpu().float()
    digest = hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()
    count, *space = x.shape[1:]
    geometry = Geometry.identity(space).extended(count, count, ticks=range(count), unit="frame")
    blank = Clip(np.zeros((1, 1, 1, 3), np.uint8), (0.0,), "tensor", "", digest)
    shown = _clip_as_seen(model, x, blank) if x.shape[0] == channels else None
    return Prepared(x, geometry, shown, {"source": "", "name": "tensor", "sha256": digest})


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
