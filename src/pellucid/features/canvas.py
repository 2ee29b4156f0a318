"""Between what is seen and what a model takes: display values in [0, 1] and model units, one affine map a channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import ModelError
from pellucid.models.model import VisionModel

Generators = Sequence[torch.Generator]


@dataclass(frozen=True)
class Canvas:
    """The shape of a model's input and the values that black and white have there.

    Attributes:
        shape: `(C, *space)`, two space axes, or three with time (or depth) first.
        black, white: `(C,)` in model units.
    """

    shape: tuple[int, ...]
    black: Tensor
    white: Tensor

    @classmethod
    def of(cls, model: VisionModel, shape: tuple[int, ...] | None = None) -> Canvas:
        """The canvas of a model.

        Args:
            model: whose preprocessing tells channels, size and levels.
            shape: `(C, *space)` instead, for clips, volumes and models that take several sizes.

        Raises:
            ModelError: a shape that is no picture, or whose channels are not those of the preprocessing.
        """
        preprocess = model.preprocess
        found = tuple(shape) if shape is not None else (preprocess.channels, *preprocess.input_size)
        if len(found) not in (3, 4) or min(found) < 1 or min(found[-2:]) < 2:
            raise ModelError(f"A canvas is (C, H, W) or (C, T, H, W), with H and W of 2 at least; got {found}.")
        black, white = (level.to(model.device) for level in levels(model))
        if len(black) not in (1, found[0]):
            raise ModelError(
                f"The model's preprocessing makes {len(black)} channels, and the shape {found} asks for {found[0]}: "
                "give the shape that the model takes."
            )
        return cls(found, black.expand(found[0]), white.expand(found[0]))

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.shape[0]

    @property
    def space(self) -> tuple[int, ...]:
        """The size of the space axes, time among them."""
        return self.shape[1:]

    @property
    def pixels(self) -> int:
        """Places in the canvas."""
        return math.prod(self.space)

    def to_input(self, pictures: Tensor) -> Tensor:
        """Display values `(N, C, *space)` -> what the model takes; values outside [0, 1] pass as they are."""
        low, high = self._levels(pictures)
        return torch.addcmul(low, pictures, high - low)

    def to_display(self, inputs: Tensor) -> Tensor:
        """What a model takes `(N, C, *space)` -> display values, not clipped."""
        low, high = self._levels(inputs)
        return (inputs - low) / (high - low)

    def _levels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (like.ndim - 2))
        return self.black.to(like).reshape(shape), self.white.to(like).reshape(shape)


def levels(model: VisionModel) -> tuple[Tensor, Tensor]:
    """The input's values of black and white, `(C,)` each, read off the preprocessing's `display` of plain inputs.

    Two deviations where `display` tells nothing, because every picture is normalised by itself.
    """
    preprocess = model.preprocess
    channels, axes = preprocess.channels, len(preprocess.input_size)
    for reach in (4.0, 400.0):  # most models normalise, some take values up to 255
        ladder = torch.linspace(-reach, reach, 4001, dtype=torch.float64)
        plain = ladder.reshape(-1, *[1] * (axes + 1)).expand(-1, channels, *[1] * axes)
        shown = preprocess.display(plain).double().cpu().reshape(len(ladder), channels)
        inside = (shown > 0) & (shown < 1)
        if (inside.sum(0) < 2).any():
            continue
        low = inside.int().argmax(0)
        high = len(ladder) - 1 - inside.flip(0).int().argmax(0)
        bottom, top = (shown.gather(0, at[None])[0] for at in (low, high))
        slope = (top - bottom) / (ladder[high] - ladder[low])
        black = ladder[low] - bottom / slope
        return black.float(), (black + 1 / slope).float()
    return torch.full((channels,), -2.0), torch.full((channels,), 2.0)


def normal(shape: Sequence[int], generators: Generators) -> Tensor:
    """Gaussian noise `(N, *shape)`, each sample out of a generator of its own, drawn on the CPU."""
    return torch.stack([torch.randn(*shape, generator=g) for g in generators])


def uniform(shape: Sequence[int], generators: Generators, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Even noise in [low, high), `(N, *shape)`, each sample out of a generator of its own, drawn on the CPU."""
    return torch.stack([torch.rand(*shape, generator=g) for g in generators]) * (high - low) + low
