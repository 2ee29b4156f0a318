"""CPPN: a small network from coordinates to colour draws the picture, so it can be drawn at any size (Stanley 2007)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.features.canvas import Canvas, Generators, normal
from pellucid.features.colour import Colours
from pellucid.features.parametrisations import Parameters, Parametrisation, parametrisation


@parametrisation("cppn")
@dataclass(frozen=True, kw_only=True)
class CPPN(Parametrisation):
    """`sigmoid(root W_n h(... h(W_1 (t, y, x, r))))` (Mordvintsev et al. 2018, "Differentiable parameterizations").

    Each hidden layer gives `atan(u)` and `atan(u)^2`, both brought to zero mean and unit variance for Gaussian `u`, so
    that depth neither blows up nor blurs the picture.

    Attributes:
        rate: of Adam.
        width: of a hidden layer.
        depth: number of hidden layers.
        last_spread: deviation of the last layer's first weights; zero would be mid grey.
    """

    optimiser: ClassVar[str] = "adam"

    rate: float = 0.005
    width: int = 24
    depth: int = 8
    last_spread: float = 0.2

    def start(self, canvas: Canvas, generators: Generators) -> Parameters:
        """Weights of variance 1 / inputs, biases of zero."""
        inputs = len(canvas.space) + 1
        parameters: Parameters = []
        for _ in range(self.depth):
            parameters.append(normal((self.width, inputs), generators) / math.sqrt(inputs))
            parameters.append(torch.zeros(len(generators), self.width, 1))
            inputs = 2 * self.width
        parameters.append(normal((canvas.channels, inputs), generators) * (self.last_spread / math.sqrt(inputs)))
        return parameters

    def draw(self, parameters: Parameters, canvas: Canvas, colours: Colours) -> Tensor:
        """The network's answer at the centre of every pixel, or voxel."""
        *hidden, last = parameters
        h = _coordinates(canvas).to(last)
        for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
            u = torch.atan(torch.matmul(weight, h) + bias)
            h = torch.cat([u / _DEVIATION, (u.square() - _SQUARE) / _SQUARE_DEVIATION], 1)
        return colours.squash(torch.matmul(last, h).reshape(len(last), canvas.channels, *canvas.space))


# Moments of atan(u) for a Gaussian u of unit variance.
_DEVIATION, _SQUARE, _SQUARE_DEVIATION = 0.6706, 0.4497, 0.3961


def _coordinates(canvas: Canvas) -> Tensor:
    """Coordinates of unit variance, and the distance from the centre: `(axes + 1, pixels)`."""
    longest = max(canvas.space[-2:])
    ticks = []
    for axis, size in enumerate(canvas.space):
        length = size if axis < len(canvas.space) - 2 else longest  # time runs over its own range, pixels are square
        ticks.append(((torch.arange(size) + 0.5) * 2 - size) / length * math.sqrt(3))
    axes = torch.stack([g.flatten() for g in torch.meshgrid(*ticks, indexing="ij")])
    return torch.cat([axes, axes[-2:].norm(dim=0, keepdim=True)])
