"""From a clip to what a video model wants to see, and the exact way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import ModelError
from pellucid.media import Clip, Geometry, Plan
from pellucid.models.preprocess import Preprocess, Preprocessing, TransformPreprocess


@runtime_checkable
class ClipPreprocessing(Protocol):
    """What a video model needs from its preprocessing."""

    @property
    def plan(self) -> Plan:
        """Which frames it takes, and how many."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(T, h, w) of the model's input."""

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB), or whatever else the model takes."""

    def __call__(self, clip: Clip) -> tuple[Tensor, Geometry]:
        """The model's input (C, T, h, w), float32, and its map to the clip."""

    def display(self, x: Tensor) -> Tensor:
        """Undo the normalisation of (..., C, T, h, w): values in [0, 1]."""

    def planned(self, plan: Plan) -> Self:
        """The same with another sampling plan; its count is kept where the plan names none."""

    def as_dict(self) -> dict[str, Any]:
        """A plain description, ready for JSON."""


@dataclass(frozen=True, kw_only=True)
class ClipPreprocess:
    """Every frame as a picture: the same resize, crop and normalisation; short clips repeat their last frame.

    Attributes:
        spatial: the preprocessing of one frame.
        plan: which frames are taken; names their number.
        antialias: how frames are resized: as PIL does, or (False) without a filter on 8-bit tensors, as torchvision's
            video models were trained.

    Raises:
        ModelError: the plan names no number, or `antialias=False` comes with a transform of your own.
    """

    spatial: Preprocessing
    plan: Plan
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.plan.count is None:
            raise ModelError(f"The sampling plan {self.plan} names no number of frames: write {self.plan}:16.")
        if not self.antialias and not isinstance(self.spatial, Preprocess):
            raise ModelError("antialias=False is a setting of Preprocess: a transform of your own resizes by itself.")

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(T, h, w)."""
        return (self.plan.count or 1, *self.spatial.input_size)

    @property
    def channels(self) -> int:
        """Of a frame."""
        return self.spatial.channels

    def __call__(self, clip: Clip) -> tuple[Tensor, Geometry]:
        """The model's input (C, T, h, w), float32, and its map to the clip, with the frames' times."""
        if self.antialias or not isinstance(self.spatial, Preprocess):
            frames, geometries = zip(*(self.spatial(clip.picture(i)) for i in range(len(clip.frames))), strict=True)
            x, geometry = torch.stack(frames, 1), geometries[0]
        else:
            x, geometry = self._unfiltered(clip.frames, self.spatial)
        return padded(x, geometry, clip)

    def display(self, x: Tensor) -> Tensor:
        """Undo the normalisation of (..., C, T, h, w): values in [0, 1]."""
        return self.spatial.display(x.movedim(-4, -3)).movedim(-3, -4)

    def planned(self, plan: Plan) -> Self:
        """The same with another sampling plan."""
        return replace(self, plan=plan.of(self.plan.count or 1))

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return {"frame": self.spatial.as_dict(), "plan": str(self.plan), "antialias": self.antialias}

    @classmethod
    def from_torchvision(cls, preset: Any, plan: Plan) -> ClipPreprocess:
        """What `weights.transforms()` of a torchvision video model does to a uint8 tensor (T, C, H, W)."""
        resize = tuple(preset.resize_size)
        spatial = Preprocess(
            input_size=(preset.crop_size[0], preset.crop_size[-1]),
            resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
            interpolation=getattr(preset.interpolation, "value", preset.interpolation),
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )
        return cls(spatial=spatial, plan=plan, antialias=False)

    @staticmethod
    def _unfiltered(frames: NDArray[np.uint8], spatial: Preprocess) -> tuple[Tensor, Geometry]:
        """(C, T, h, w) of (T, H, W, C), resized as an 8-bit tensor."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import resize

        size = (frames.shape[1], frames.shape[2])
        target = spatial.resized_size(*size)
        stack = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        if target != size:
            stack = resize(stack, list(target), InterpolationMode(spatial.interpolation), antialias=False)
        pairs = [spatial.finish(frame.permute(1, 2, 0).numpy(), size) for frame in stack]
        return torch.stack([x for x, _ in pairs], 1), pairs[0][1]


class ClipTransform:
    """Any function of yours from a uint8 tensor (T, C, H, W) to the model's input (C, T, h, w).

    That is what torchvision's video presets are. Normalisation and geometry of the frames are measured, as for
    pictures: see `TransformPreprocess`.

    Attributes:
        transform: the function.
        plan: which frames are taken; names their number.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], plan: Plan) -> None:
        if plan.count is None:
            raise ModelError(f"The sampling plan {plan} names no number of frames: write {plan}:16.")
        self.transform, self.plan = transform, plan
        self._frame = TransformPreprocess(lambda image: self._run(_stack(image, 2))[:, 0])

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(T, h, w)."""
        return (self.plan.count or 1, *self._frame.input_size)

    @property
    def channels(self) -> int:
        """How many channels it makes."""
        return int(self._frame.channels)

    def __call__(self, clip: Clip) -> tuple[Tensor, Geometry]:
        """The model's input (C, T, h, w), float32, and its map to the clip, with the frames' times."""
        x = self._run(torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2))
        if x.shape[1] != len(clip.frames):
            raise ModelError(
                f"The transform makes {x.shape[1]} frames of {len(clip.frames)}: let the sampling plan choose frames, "
                "and the transform keep them."
            )
        return padded(x, self._frame.geometry(clip.picture(0).size, (x.shape[2], x.shape[3])), clip)

    def display(self, x: Tensor) -> Tensor:
        """Undo the normalisation of (..., C, T, h, w): values in [0, 1]."""
        return self._frame.display(x.movedim(-4, -3)).movedim(-3, -4)

    def planned(self, plan: Plan) -> ClipTransform:
        """The same with another sampling plan."""
        return ClipTransform(self.transform, plan.of(self.plan.count or 1))

    def as_dict(self) -> dict[str, Any]:
        """How the transform prints itself; it can't be rebuilt from that."""
        return {"transform": repr(self.transform), "plan": str(self.plan)}

    def _run(self, frames: Tensor) -> Tensor:
        try:
            x = self.transform(frames)
        except Exception as error:
            raise ModelError(
                f"The transform failed on frames {tuple(frames.shape)} ({error}); it must take a uint8 tensor "
                "(T, C, H, W)."
            ) from error
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
            got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ModelError(f"The transform must return a float tensor (C, T, h, w), not {got}.")
        return x.detach().to(torch.float32)


def _stack(image: Any, count: int) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).expand(count, -1, -1, -1).contiguous()


def padded(x: Tensor, geometry: Geometry, clip: Clip) -> tuple[Tensor, Geometry]:
    """The last frame of (C, T, h, w) repeated as often as the clip says; the geometry with its time axis."""
    if clip.padding:
        x = torch.cat([x, x[:, -1:].expand(-1, clip.padding, -1, -1)], 1)
    return x.contiguous(), geometry.extended(len(clip.frames), x.shape[1], ticks=clip.times, unit="s")


def as_clips(preprocess: Any, plan: Plan) -> ClipPreprocessing:
    """A preprocessing of clips, from one of pictures or from a function of the frames."""
    if isinstance(preprocess, ClipPreprocessing):
        return preprocess.planned(plan)
    if isinstance(preprocess, Preprocess | TransformPreprocess):
        return ClipPreprocess(spatial=preprocess, plan=plan)
    if callable(preprocess):
        return ClipTransform(preprocess, plan)
    raise ModelError(f"A transform is a function of the frames, not {type(preprocess).__name__}.")
