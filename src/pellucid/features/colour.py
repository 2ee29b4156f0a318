"""Colours as pictures have them: the channels of natural pictures are correlated, so what is drawn is decorrelated.

With covariance `S` of the colours of natural pictures, `colour = mean + S^(1/2) z` gives independent `z` of unit
variance natural colours, and gradient descent on `z` moves along what colours really do, rather than into neon green
(Olah et al. 2017, "Feature visualization", on preconditioning).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.media import read_image

NATURAL = ("astronaut", "cat", "coffee", "motorcycle", "rocket")
"""The sample pictures that are photographs of everyday things."""

_SIDE = 128  # of the sample pictures, for statistics
_GREY = 0.25  # standard deviation of a channel nothing is known about


@dataclass(frozen=True, eq=False)
class Colours:
    """First and second moments of colours, in display units.

    Attributes:
        mean: `(C,)`.
        root: `(C, C)`, the symmetric square root of the covariance: no channel is preferred.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def measured(cls, pictures: Tensor) -> Colours:
        """Of pictures `(N, C, *space)` in display units.

        Raises:
            MethodError: fewer than two places, or values that are not finite.
        """
        points = pictures.detach().double().movedim(1, -1).reshape(-1, pictures.shape[1])
        if len(points) < 2 or not points.isfinite().all():
            raise MethodError("Colours are measured on pictures (N, C, *space) of finite values, two pixels at least.")
        mean = points.mean(0)
        covariance = (points - mean).T @ (points - mean) / len(points)
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=1e-4 * max(float(values.max()), 1e-6))  # a constant channel stays drawable
        root = vectors * values.sqrt() @ vectors.T
        return cls(mean.float(), root.float())

    @classmethod
    def independent(cls, channels: int) -> Colours:
        """Channels that have nothing to do with each other: for bands that are no colours."""
        return cls(torch.full((channels,), 0.5), torch.eye(channels) * _GREY)

    @classmethod
    def natural(cls, channels: int) -> Colours:
        """Of the natural sample pictures for colour and grey, else independent channels."""
        return cls.measured(samples(channels)) if channels in (1, 3) else cls.independent(channels)

    def correlate(self, z: Tensor) -> Tensor:
        """`mean + root z`, `(N, C, *space)` -> display units."""
        return self._mix(self.root, z) + self._shaped(self.mean, z)

    def decorrelate(self, pictures: Tensor) -> Tensor:
        """The inverse of `correlate`."""
        return self._mix(torch.linalg.inv(self.root.double()).float(), pictures - self._shaped(self.mean, pictures))

    def squash(self, z: Tensor) -> Tensor:
        """Any values -> display values inside (0, 1), `sigmoid(root z / largest deviation)`: zero is mid grey."""
        return self._mix(self.root / self.root.norm(dim=0).max(), z).sigmoid()

    @staticmethod
    def _mix(matrix: Tensor, z: Tensor) -> Tensor:
        return (matrix.to(z) @ z.flatten(2)).reshape(z.shape)

    @staticmethod
    def _shaped(vector: Tensor, like: Tensor) -> Tensor:
        return vector.to(like).reshape(-1, *[1] * (like.ndim - 2))


@cache
def samples(channels: int = 3, side: int = _SIDE) -> Tensor:
    """The natural sample pictures, `(5, channels, side, side)` in [0, 1], cut to squares; grey for one channel."""
    pictures = []
    for name in NATURAL:
        pixels = torch.from_numpy(read_image(f"sample:{name}").pixels).permute(2, 0, 1)[None].float() / 255
        short = min(pixels.shape[2:])
        top, left = ((n - short) // 2 for n in pixels.shape[2:])
        square = pixels[..., top : top + short, left : left + short]
        pictures.append(torch.nn.functional.interpolate(square, (side, side), mode="bilinear", antialias=True))
    found = torch.cat(pictures).float()
    return found.mean(1, keepdim=True) if channels == 1 else found
