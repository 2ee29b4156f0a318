"""Robustness: the model sees each picture through random views, so that what excites it is not one accident of pixels.

Zoom, rotation, jitter and crops are one affine map a view, and a view is sampled once, by one `grid_sample` over all
channels and frames. Random numbers are drawn on the CPU, for each picture out of a generator of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pellucid.errors import MethodError
from pellucid.features.canvas import Generators, normal, uniform


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Which views are drawn; the defaults are mild, those of `crops` Fel et al.'s.

    Attributes:
        scale: a view shows this share of the canvas's sides, evenly drawn between the two.
        inside: a view is placed anywhere within the canvas; otherwise about its centre.
        jitter: shifts it further by up to this share of a side either way.
        rotate: turns it by up to so many degrees either way.
        pad: what is beyond the canvas: the picture mirrored (`reflection`), its edge (`border`), or mid `grey`.
        noise: deviation of Gaussian noise added to a view, in display units.
        roll: shifts a clip in time by up to this share of its length either way, round its ends.
    """

    scale: tuple[float, float] = (0.9, 1.1)
    inside: bool = False
    jitter: float = 0.05
    rotate: float = 10.0
    pad: Literal["reflection", "border", "grey"] = "reflection"
    noise: float = 0.0
    roll: float = 0.1

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high or min(self.jitter, self.rotate, self.noise, self.roll) < 0:
            raise MethodError(
                "Robustness takes a scale (low, high) above 0, and jitter, rotate, noise and roll of at least 0."
            )
        if self.inside and high > 1:
            raise MethodError(f"Views inside the canvas show at most all of it: a scale of {self.scale} goes beyond.")
        if self.pad not in ("reflection", "border", "grey"):
            raise MethodError(f"pad is reflection, border or grey, not {self.pad!r}.")

    @classmethod
    def none(cls) -> Robustness:
        """The picture as it is."""
        return cls(scale=(1.0, 1.0), jitter=0.0, rotate=0.0, roll=0.0)

    @classmethod
    def crops(cls, low: float = 0.5, high: float = 0.9, noise: float = 0.05) -> Robustness:
        """Random crops with noise (Fel et al. 2023)."""
        return cls(scale=(low, high), inside=True, jitter=0.0, rotate=0.0, noise=noise)

    @property
    def is_none(self) -> bool:
        """Whether every view is the picture itself."""
        return self.scale == (1.0, 1.0) and not (self.jitter or self.rotate or self.noise or self.roll)

    def views(self, pictures: Tensor, count: int, generators: Generators, size: Sequence[int]) -> Tensor:
        """Random views `(N * count, C, *space)`, picture by picture, of pictures `(N, C, *space)`.

        Args:
            pictures: display values.
            count: views of each.
            generators: one for each picture.
            size: (h, w) of a view.
        """
        if self.is_none and tuple(size) == tuple(pictures.shape[-2:]):
            return pictures.repeat_interleave(count, 0)
        if pictures.ndim == 5 and self.roll:
            shown = self._rolled(pictures, count, generators)
        else:
            shown = pictures.repeat_interleave(count, 0)
        folded = shown.flatten(1, -3)  # one map for all channels and frames
        maps = self.maps(count, generators, (pictures.shape[-2], pictures.shape[-1])).to(folded)
        grid = affine_grid(maps, [len(folded), folded.shape[1], *size], align_corners=False)
        offset = 0.5 if self.pad == "grey" else 0.0
        mode = "zeros" if self.pad == "grey" else self.pad
        seen = grid_sample(folded - offset if offset else folded, grid, padding_mode=mode, align_corners=False)
        seen = (seen + offset if offset else seen).reshape(len(folded), *pictures.shape[1:-2], *size)
        if self.noise:
            drawn = normal((count, *seen.shape[1:]), generators).flatten(0, 1)
            seen = seen + self.noise * drawn.to(seen)
        return seen

    def maps(self, count: int, generators: Generators, space: tuple[int, int]) -> Tensor:
        """Affine maps `(N * count, 2, 3)` from a view's coordinates in [-1, 1] to the canvas's."""
        drawn = uniform((count, 6), generators).flatten(0, 1)
        side = self.scale[0] + (self.scale[1] - self.scale[0]) * drawn[:, 0]
        angle = math.radians(self.rotate) * (2 * drawn[:, 1] - 1)
        shift = 2 * self.jitter * (2 * drawn[:, 2:4] - 1)
        if self.inside:
            shift = shift + (1 - side)[:, None] * (2 * drawn[:, 4:] - 1)
        cos, sin = side * angle.cos(), side * angle.sin()
        aspect = space[0] / space[1]  # a turn is one in pixels, not in shares of the sides
        rows = torch.stack([cos, -sin * aspect, shift[:, 0], sin / aspect, cos, shift[:, 1]], 1)
        return rows.reshape(-1, 2, 3)

    def _rolled(self, clips: Tensor, count: int, generators: Generators) -> Tensor:
        """Clips shifted in time, `(N * count, C, T, H, W)`."""
        frames = clips.shape[2]
        shifts = ((2 * uniform((count,), generators).flatten() - 1) * self.roll * frames).round().long()
        at = (torch.arange(frames)[None] - shifts[:, None]) % frames
        owner = torch.arange(len(clips)).repeat_interleave(count)
        return clips.movedim(2, 1)[owner[:, None].to(clips.device), at.to(clips.device)].movedim(1, 2)
