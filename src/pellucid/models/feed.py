"""From a medium to a model's input, with the way back, and what is shown where no way back is known."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.media import CLIP, PICTURE, VOLUME, Clip, Footage, Geometry, Medium, Picture, Volume, address
from pellucid.models.model import VisionModel


@dataclass
class Prepared:
    """One input, ready for the model.

    Attributes:
        x: `(C, *axes)`.
        geometry: its map to the original.
        picture: the original, or what stands in for it; None where nothing can be shown.
        source: `source`, `name`, `sha256` and what else opens it again, for the record.
        notes: what a reader must know.
        remarks: what was measured of the question asked; see `Explanation`.
        position: among all inputs, readable or not.
        seen: bool, over the original's axes, false where nothing was measured; None: all of it was.
    """

    x: Tensor
    geometry: Geometry
    picture: Picture | Clip | Volume | None
    source: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    position: int = 0
    seen: Tensor | None = None

    @property
    def still(self) -> Picture | None:
        """The picture; None for anything else."""
        return self.picture if isinstance(self.picture, Picture) else None


class Feed(ABC):
    """How a model of one medium is fed."""

    medium: ClassVar[Medium]

    def prepared(self, model: VisionModel, item: Any) -> Prepared:
        """What a person gave, opened and ready for the model.

        Raises:
            MediaError: it cannot be opened, or is of another medium.
        """
        if isinstance(item, Tensor):
            return self.tensor(model, item)
        return self.ready(model, self.medium.opened(item, model.name))

    @abstractmethod
    def ready(self, model: VisionModel, opened: Any) -> Prepared:
        """What `medium.open` gave, ready for the model."""

    def tensor(self, model: VisionModel, x: Tensor) -> Prepared:
        """One input `(C, *axes)` as the model takes it."""
        self.check(model, x)
        if not torch.isfinite(x).all():
            raise MediaError("The input tensor holds NaN or infinity: clean it before explaining it.")
        x = x.detach().cpu().float()
        digest = hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()
        about = {"source": "", "name": "tensor", "sha256": digest}
        return Prepared(x, self.plain(x), self.shown(model, x, digest), about)

    @abstractmethod
    def check(self, model: VisionModel, x: Tensor) -> None:
        """Raises MediaError for a tensor that is no input of the model."""

    def plain(self, x: Tensor) -> Geometry:
        """The geometry of a tensor, which is its own original."""
        return Geometry.identity(tuple(x.shape[1:]))

    @abstractmethod
    def shown(self, model: VisionModel, x: Tensor, digest: str) -> Picture | Clip | Volume | None:
        """What a tensor looks like."""


class PictureFeed(Feed):
    """Pictures, for models of pictures."""

    medium = PICTURE

    def ready(self, model: VisionModel, opened: Picture) -> Prepared:
        """The preprocessing's input; the picture itself, or what the model sees of it where no way back is known."""
        x, geometry = model.pictures(opened)
        about = {"source": address(opened.source), "name": opened.name, "sha256": opened.sha256}
        picture = opened if geometry.known else _as_seen(model, x, opened)
        seen = torch.from_numpy(opened.seen) if opened.seen is not None and geometry.known else None
        return Prepared(x, geometry, picture, about, list(opened.notes), list(opened.remarks), seen=seen)

    def check(self, model: VisionModel, x: Tensor) -> None:
        """Any floats with channels in front."""
        if x.ndim < 2 or not x.is_floating_point():
            raise MediaError(
                f"An input tensor holds floats (C, H, W) or (N, C, H, W) as the model takes them, not {x.dtype} "
                f"{tuple(x.shape)}: give that, or the picture as a path or an array."
            )

    def shown(self, model: VisionModel, x: Tensor, digest: str) -> Picture | None:
        """The tensor without its normalisation."""
        blank = Picture(np.zeros((1, 1, 3), np.uint8), "tensor", "", digest)
        return _as_seen(model, x, blank) if x.ndim == 3 and x.shape[0] == model.preprocess.channels else None


class ClipFeed(Feed):
    """Moving pictures, for models of clips."""

    medium = CLIP

    def ready(self, model: VisionModel, opened: Footage) -> Prepared:
        """The frames that the model's plan takes."""
        clip = opened.clip(model.clips.plan)
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

    def check(self, model: VisionModel, x: Tensor) -> None:
        """Floats (C, T, H, W), not (T, C, H, W)."""
        channels = model.preprocess.channels
        if x.ndim != 4 or not x.is_floating_point():
            raise MediaError(
                f"{model.name} takes clips: give floats (C, T, H, W) or (N, C, T, H, W), not {x.dtype} "
                f"{tuple(x.shape)}."
            )
        if x.shape[0] != channels and x.shape[1] == channels:
            raise MediaError(
                f"A clip tensor of shape {tuple(x.shape)} reads as (T, C, H, W) or as (C, T, H, W) of {x.shape[0]} "
                f"channels; clips are given as (C, T, H, W) with {channels}, whatever the model's own layout: give "
                "x.movedim(0, 1)."
            )

    def plain(self, x: Tensor) -> Geometry:
        """Frames are numbered."""
        count, *space = x.shape[1:]
        return Geometry.identity(space).extended(count, count, ticks=range(count), unit="frame")

    def shown(self, model: VisionModel, x: Tensor, digest: str) -> Clip | None:
        """The tensor without its normalisation."""
        blank = Clip(np.zeros((1, 1, 1, 3), np.uint8), (0.0,), "tensor", "", digest)
        return _clip_as_seen(model, x, blank) if x.shape[0] == model.preprocess.channels else None


class VolumeFeed(Feed):
    """Volumes, for models of volumes."""

    medium = VOLUME

    def ready(self, model: VisionModel, opened: Volume) -> Prepared:
        """The preprocessing's input; where nothing was measured nothing is claimed."""
        x, geometry = model.volumes(opened)
        about = {"source": address(opened.source), "name": opened.name, "sha256": opened.sha256, **opened.origin}
        seen = None if opened.seen is None else torch.from_numpy(opened.seen)
        return Prepared(x, geometry, opened, about, list(opened.notes), seen=seen)

    def check(self, model: VisionModel, x: Tensor) -> None:
        """Floats (C, a, b, c)."""
        if x.ndim != 4 or not x.is_floating_point():
            raise MediaError(
                f"{model.name} takes volumes: give floats (C, a, b, c) or (N, C, a, b, c), not {x.dtype} "
                f"{tuple(x.shape)}."
            )

    def plain(self, x: Tensor) -> Geometry:
        """A tensor has no place in a patient: its voxels are millimetres."""
        rows = tuple(tuple(float(k == j) for j in range(4)) for k in range(3))
        return replace(Geometry.identity(tuple(x.shape[1:])), unit="mm", affine=rows)

    def shown(self, model: VisionModel, x: Tensor, digest: str) -> Volume:
        """The mean of its channels."""
        return Volume(x.mean(0).numpy(), np.eye(4), "tensor", "", digest)


FEEDS: dict[str, Feed] = {feed.medium.name: feed for feed in (PictureFeed(), ClipFeed(), VolumeFeed())}
"""By the name of the medium."""


def feed_of(model: VisionModel) -> Feed:
    """How a model is fed."""
    return FEEDS[model.medium.name]


def _clip_as_seen(model: VisionModel, x: Tensor, clip: Clip) -> Clip | None:
    """The model's own input as a clip."""
    shown = model.preprocess.display(x)
    if shown.shape[0] not in (1, 3):
        return None
    frames = (shown.float().clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1, -1).permute(1, 2, 3, 0)
    times = (*clip.times, *(clip.times[-1] + i + 1 for i in range(len(frames) - len(clip.times))))
    return replace(clip, frames=frames.contiguous().numpy(), times=times)


def _as_seen(model: VisionModel, x: Tensor, picture: Picture) -> Picture | None:
    """The model's own input as a picture, for inputs whose way back to a picture is not known."""
    shown = model.preprocess.display(x)
    if shown.ndim != 3 or shown.shape[0] not in (1, 3):
        return None
    pixels = shown.float().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return replace(picture, pixels=pixels)
