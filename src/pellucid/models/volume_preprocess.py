"""From a volume to what a network of volumes wants to see, and the exact way back to the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, isfinite
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import ModelError
from pellucid.media import Geometry, Picture, Volume
from pellucid.media.orientation import turn_to, turned_affine
from pellucid.models.preprocess import Preprocessing

Intensity = Literal["none", "window", "z-score", "percentile", "range"]
_INTENSITIES = ("none", "window", "z-score", "percentile", "range")


@runtime_checkable
class VolumePreprocessing(Protocol):
    """What a network of volumes needs from its preprocessing."""

    @property
    def takes(self) -> Literal["volume"]:
        """What it prepares."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(a, b, c) of the model's input, nominal where it is that of the volume."""

    @property
    def channels(self) -> int:
        """How many the model takes."""

    def __call__(self, volume: Volume) -> tuple[Tensor, Geometry]:
        """The model's input (C, a, b, c), float32, and its map to the volume."""

    def display(self, x: Tensor) -> Tensor:
        """Values of (..., C, a, b, c) in [0, 1], to be looked at."""

    def as_dict(self) -> dict[str, Any]:
        """A plain description, ready for JSON."""


@dataclass(frozen=True, kw_only=True)
class VolumePreprocess:
    """Turn, resample, scale, crop or pad about the centre.

    Attributes:
        orientation: the letters that the axes of the input run towards: `RAS` for most networks of volumes, `SPL` for
            slices as they lie on a light box (slices upwards, rows to the back, columns to the patient's left).
        spacing: millimetres from voxel to voxel, one number or one an axis; None: as they are.
        size: of the input. `fit` says how it is met: `crop` (about the centre, padded with `fill` where the volume is
            smaller) or `stretch` (resampled to it, whatever the spacing). None: the whole volume.
        multiple: pad each axis up to a multiple of this, as networks that halve the size need it.
        intensity: `window` (`window` made 0 to 1, cut off), `percentile` (`percentiles` made 0 to 1, cut off),
            `range` (smallest and largest made 0 to 1), `z-score` (mean 0, deviation 1), or `none`.
        window: centre and width. percentiles: in percent. fill: the padding after scaling; None: the smallest value.
        channels: the same values so many times.

    Raises:
        ModelError: the settings contradict each other.
    """

    orientation: str = "RAS"
    spacing: float | tuple[float, float, float] | None = None
    size: tuple[int, int, int] | None = None
    fit: Literal["crop", "stretch"] = "crop"
    multiple: int = 1
    intensity: Intensity = "none"
    window: tuple[float, float] = (40.0, 400.0)
    percentiles: tuple[float, float] = (0.5, 99.5)
    fill: float | None = None
    channels: int = 1
    takes: Literal["volume"] = "volume"

    def __post_init__(self) -> None:
        turn_to(np.eye(4), self.orientation)
        steps = self.spacing if isinstance(self.spacing, tuple) else (self.spacing or 1.0,) * 3
        if len(steps) != 3 or not all(isfinite(s) and s > 0 for s in steps):
            raise ModelError(f"The spacing is in millimetres, one number or one for each axis, not {self.spacing}.")
        if self.size is not None and (len(self.size) != 3 or min(self.size) < 1):
            raise ModelError(f"The size of a volume's input is three whole numbers above 0, not {self.size}.")
        if self.fit not in ("crop", "stretch") or (self.fit == "stretch" and (self.size is None or self.spacing)):
            raise ModelError("fit is crop, or stretch with a size and no spacing.")
        if self.intensity not in _INTENSITIES:
            raise ModelError(f"The intensity is one of {', '.join(_INTENSITIES)}, not {self.intensity!r}.")
        if not self.window[1] > 0 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ModelError("A window's width is above 0, and percentiles rise from 0 to 100.")
        if self.multiple < 1 or self.channels < 1:
            raise ModelError("multiple and channels are whole numbers above 0.")

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(a, b, c); nominal where no size is set."""
        return self.size or (128, 128, 128)

    def __call__(self, volume: Volume) -> tuple[Tensor, Geometry]:
        """The model's input (C, a, b, c), float32, and its map to the volume."""
        turn = turn_to(volume.affine, self.orientation)
        there = volume.turned(turn)
        values = torch.from_numpy(np.ascontiguousarray(self._scaled(there.values)))
        fill = float(values.min()) if self.fill is None else self.fill
        box = [(0.0, float(n)) for n in there.size]
        for axis, (n, step) in enumerate(zip(there.size, there.spacing, strict=True)):
            count, length = self._count(axis, n, step)
            if (count, length) != (n, 1.0):
                middle = n / 2
                box[axis] = (middle - count * length / 2, middle + count * length / 2)
                values = _resampled(values, axis, count, length, box[axis][0])
        size = self._final(tuple(values.shape))
        for axis, (have, want) in enumerate(zip(tuple(values.shape), size, strict=True)):
            if want != have:
                start, stop = box[axis]
                offset = (have - want) // 2
                unit = (stop - start) / have
                box[axis] = (start + offset * unit, start + (offset + want) * unit)
                values = _cut(values, axis, offset, want, fill)
        x = values[None].expand(self.channels, *size).contiguous()
        return x, _geometry(volume, size, tuple(box), turn)

    def display(self, x: Tensor) -> Tensor:
        """Values of (..., C, a, b, c) stretched to [0, 1]."""
        low, high = x.amin((-4, -3, -2, -1), keepdim=True), x.amax((-4, -3, -2, -1), keepdim=True)
        return ((x - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return asdict(self)

    def _count(self, axis: int, n: int, step: float) -> tuple[int, float]:
        """How many voxels an axis is resampled to, and how many of the source's each is long."""
        if self.fit == "stretch" and self.size is not None:
            return self.size[axis], n / self.size[axis]
        if self.spacing is None:
            return n, 1.0
        wanted = self.spacing[axis] if isinstance(self.spacing, tuple) else self.spacing
        if abs(wanted / step - 1) < 1e-5:
            return n, 1.0
        return max(1, round(n * step / wanted)), wanted / step

    def _final(self, have: tuple[int, ...]) -> tuple[int, ...]:
        size = self.size or have
        return tuple(ceil(n / self.multiple) * self.multiple for n in size)

    def _scaled(self, values: Any) -> Any:
        if self.intensity == "none":
            return values
        if self.intensity == "z-score":
            return (values - values.mean()) / max(float(values.std()), 1e-8)
        if self.intensity == "window":
            low, high = self.window[0] - self.window[1] / 2, self.window[0] + self.window[1] / 2
        elif self.intensity == "percentile":
            low, high = (float(q) for q in np.percentile(values, self.percentiles))
        else:
            low, high = float(values.min()), float(values.max())
        return ((values - low) / max(high - low, 1e-12)).clip(0, 1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class SlicePreprocess:
    """A volume as slices, each a picture for an image model's own preprocessing.

    Attributes:
        spatial: the preprocessing of a slice.
        count: so many slices, evenly spread; None: all.
        orientation: the first letter is where the slices go, the others where rows and columns go.
        window: centre and width made black to white; None: the volume's own, or its range.
    """

    spatial: Preprocessing
    count: int | None = 16
    orientation: str = "SPL"
    window: tuple[float, float] | None = None
    takes: Literal["volume"] = "volume"

    def __post_init__(self) -> None:
        turn_to(np.eye(4), self.orientation)
        if self.count is not None and self.count < 1:
            raise ModelError(f"The slices are a whole number above 0, not {self.count}.")

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(slices, h, w)."""
        return (self.count or 64, *self.spatial.input_size)

    @property
    def channels(self) -> int:
        """Of a slice."""
        return self.spatial.channels

    def __call__(self, volume: Volume) -> tuple[Tensor, Geometry]:
        """The model's input (C, slices, h, w), float32, and its map to the volume."""
        turn = turn_to(volume.affine, self.orientation)
        there = volume.turned(turn)
        shown = there if self.window is None else there.windowed(self.window)
        total = there.size[0]
        count = min(self.count or total, total)
        at = ((np.arange(count) + 0.5) * total / count).astype(int)
        slices, seen = [], Geometry.identity((1, 1))
        for k in at:
            grey = shown.brightness(there.values[k])
            x, seen = self.spatial(Picture(np.repeat(grey[..., None], 3, axis=-1), f"{volume.name}-{k}", "", ""))
            slices.append(x)
        stacked = torch.stack(slices, 1)
        if not seen.known:
            raise ModelError("The transform of a slice has no way back to it (it flips, warps or is random).")
        box = ((0.0, float(total)), *seen.box)
        return stacked, _geometry(volume, tuple(stacked.shape[1:]), box, turn)

    def display(self, x: Tensor) -> Tensor:
        """Undo the normalisation of (..., C, slices, h, w): values in [0, 1]."""
        return self.spatial.display(x.movedim(-4, -3)).movedim(-3, -4)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        own = {"slices": self.count, "orientation": self.orientation, "window": self.window}
        return {"slice": self.spatial.as_dict(), **own}


def _geometry(volume: Volume, size: Sequence[int], box: Any, turn: Any) -> Geometry:
    straight = tuple(turn) == (1, 2, 3)
    rows = tuple(tuple(float(a) for a in row) for row in np.asarray(volume.affine)[:3])
    return Geometry(
        volume.size, tuple(size), tuple(box), True, (), "mm", (), (), () if straight else tuple(turn), rows
    )  # fmt: skip


def input_affine(geometry: Geometry) -> Any:
    """The affine of the model's input: from its index to millimetres."""
    turn = geometry.turn or (1, 2, 3)
    source = turned_affine(np.vstack([np.asarray(geometry.affine), [0, 0, 0, 1]]), geometry.source_size, turn)
    step = np.eye(4)
    for k, ((start, stop), n) in enumerate(zip(geometry.box, geometry.input_size, strict=True)):
        step[k, k] = (stop - start) / n
        step[k, 3] = start + (stop - start) / n / 2 - 0.5
    return source @ step


def _resampled(values: Tensor, axis: int, count: int, length: float, start: float) -> Tensor:
    """`count` voxels along an axis, each `length` of the source's long, from `start` on; linear.

    Where voxels grow, each weighs two neighbours; where they shrink, a triangle over all that lie under them.
    """
    n = values.shape[axis]
    centres = start + (torch.arange(count, dtype=torch.float64) + 0.5) * length
    weights = 1 - (centres[:, None] - 0.5 - torch.arange(n, dtype=torch.float64)).abs() / max(length, 1.0)
    weights = weights.clamp(min=0)
    lost = weights.sum(1) <= 1e-12  # centres beyond the outermost voxels take these
    weights[lost, (centres[lost] - 0.5).round().long().clamp(0, n - 1)] = 1
    weights = (weights / weights.sum(1, keepdim=True)).float()
    moved = values.movedim(axis, 0)
    return (weights @ moved.reshape(n, -1)).reshape(count, *moved.shape[1:]).movedim(0, axis)


def _cut(values: Tensor, axis: int, offset: int, want: int, fill: float) -> Tensor:
    """`want` voxels of an axis from `offset` on (negative: before the volume), filled up outside it."""
    size = list(values.shape)
    have = size[axis]
    size[axis] = want
    canvas = values.new_full(size, fill)
    first, last = max(offset, 0), min(offset + want, have)
    canvas.narrow(axis, first - offset, last - first).copy_(values.narrow(axis, first, last - first))
    return canvas
