"""Clips: some frames of a moving picture, with the moments at which they are shown; and what gives them out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.picture import Picture
from pellucid.media.sampling import Plan

Frames = NDArray[np.uint8]

NOMINAL_RATE = 25.0
"""Frames a second assumed where nothing tells: arrays, folders of pictures."""


class StillError(MediaError):
    """A clip was asked for, and this is a single picture."""


@dataclass(frozen=True)
class Caps:
    """The most that is read of a moving picture; checked on what the file claims, and counted while decoding.

    Attributes:
        pixels: of one frame (height x width).
        frames: in all.
        seconds: in all.
        decoded: pixels decoded for one clip (height x width x frames run through).
        kept: bytes of the frames held in memory at once.
    """

    pixels: int = 36_000_000
    frames: int = 1_000_000
    seconds: float = 24 * 3600.0
    decoded: int = 2_000_000_000_000
    kept: int = 2 * 2**30


@dataclass(frozen=True, eq=False)
class Clip:
    """Upright RGB frames, and the moments at which they are shown.

    Attributes:
        frames: `(T, H, W, 3)`, uint8.
        times: seconds from the first frame of the whole, one a frame, exact for any frame rate.
        name: a stem for file names.
        source: what opens the whole again; empty for what was made in memory.
        sha256: of the file's bytes; of shape and pixels for what was made in memory.
        padding: how often the model's input repeats the last frame, because the clip is shorter than the model needs.
        plan: how the frames were chosen.
        origin: how they were decoded: decoder, numbers of the frames, their time stamps.
        notes: what a reader must know, one sentence each.
    """

    frames: Frames
    times: tuple[float, ...]
    name: str
    source: str
    sha256: str
    padding: int = 0
    plan: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return self.frames.shape[0], self.frames.shape[1], self.frames.shape[2]

    def picture(self, index: int) -> Picture:
        """One frame, by its number in this clip."""
        return Picture(self.frames[index], f"{self.name}-{index}", "", self.sha256)


class Footage(ABC):
    """A moving picture, opened but not yet decoded.

    Attributes:
        name, source, sha256: as of `Clip`.
        size: (H, W), upright.
        times: of every frame, in seconds from the first, ascending.
        end: when the last frame goes.
        notes: what a reader must know.
    """

    name: str
    source: str
    sha256: str
    size: tuple[int, int]
    times: Sequence[float]
    end: float
    caps: Caps
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Frames `(H, W, 3)` by number, ascending (a number may repeat)."""

    def origin(self, indices: Sequence[int]) -> dict[str, Any]:
        """How those frames are had, for the record."""
        return {"frames": list(indices)}

    def __len__(self) -> int:
        return len(self.times)

    def clip(self, plan: Plan, *, least: int = 1) -> Clip:
        """The frames that a plan takes; at least `least` of them for the model, the last repeated (and that said).

        Raises:
            MediaError: the frames cannot be decoded, or are too many to hold.
        """
        indices = plan.choose(self.times, self.end)
        wanted = max(plan.count or len(indices), least)
        missing = wanted - len(indices)
        notes = list(self.notes)
        if missing > 0:
            notes.append(
                f"The clip has {len(indices)} frame{'s' * (len(indices) > 1)} and the model takes {wanted}: the last "
                f"one is repeated {missing} time{'s' * (missing > 1)}."
            )
        return self.pick(indices, padding=max(0, missing), plan=str(plan), notes=notes)

    def pick(self, indices: Sequence[int], *, padding: int = 0, plan: str = "", notes: Sequence[str] = ()) -> Clip:
        """The clip of these frames."""
        size = len(indices) * self.size[0] * self.size[1] * 3
        if size > self.caps.kept:
            raise MediaError(
                f"{self.source or self.name}: {len(indices)} frames of {self.size[1]} x {self.size[0]} take "
                f"{size / 2**30:.1f} GiB; take fewer frames, or make the video smaller."
            )
        frames = np.empty((len(indices), *self.size, 3), np.uint8)
        for i, frame in enumerate(self.read(indices)):
            frames[i] = frame
        times = tuple(self.times[i] for i in indices)
        origin = self.origin(indices)
        return Clip(frames, times, self.name, self.source, self.sha256, padding, plan, origin, tuple(notes))


class FramesInMemory(Footage):
    """An array of frames `(T, H, W, 3)`, uint8 or floats in [0, 1].

    Args:
        frames: the array.
        times: seconds, one a frame; None: 25 frames a second.
        name: what to call it.
    """

    def __init__(
        self,
        frames: NDArray[Any],
        times: Sequence[float] | None = None,
        *,
        name: str = "clip",
        source: str = "",
        digest: str = "",
        caps: Caps | None = None,
    ) -> None:
        self.caps = caps or Caps()
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise MediaError(f"A clip's array is (T, H, W, 3), not {frames.shape}; give frames of three channels.")
        if frames.dtype.kind == "f":
            if not np.isfinite(frames).all() or frames.min() < -1e-4 or frames.max() > 1 + 1e-4:
                raise MediaError("The clip's array holds floats outside [0, 1], or NaN: rescale it, or give uint8.")
            frames = (frames.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        if frames.dtype != np.uint8:
            raise MediaError(f"The clip's array is of {frames.dtype}, not uint8 or floats in [0, 1]: convert it.")
        self._frames: Frames = frames
        self.name, self.source, self.size = name, source, (frames.shape[1], frames.shape[2])
        if times is None:
            times = [i / NOMINAL_RATE for i in range(len(frames))]
            self.notes = (f"The frames carry no times: {NOMINAL_RATE:g} a second are assumed.",)
        if len(times) != len(frames) or any(b <= a for a, b in pairwise(times)):
            raise MediaError(f"{len(times)} times for {len(frames)} frames: give one for each, ascending, in seconds.")
        self.times = tuple(float(t) for t in times)
        self.end = self.times[-1] + (self.times[-1] - self.times[-2] if len(times) > 1 else 1 / NOMINAL_RATE)
        if not digest:
            hashed = sha256(f"{frames.shape} {self.times}".encode())
            hashed.update(np.ascontiguousarray(frames).data)
            digest = hashed.hexdigest()
        self.sha256 = digest

    def read(self, indices: Sequence[int]) -> Iterator[Frames]:
        """The frames of the array."""
        for i in indices:
            yield self._frames[i]
