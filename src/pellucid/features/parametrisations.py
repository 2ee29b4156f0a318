"""Parametrisations: which numbers are optimised, and how a picture is drawn from them.

The gradient is the same everywhere, but the steepest way up is not: in a basis where all natural pictures are about
equally long, gradient ascent finds natural-looking ones (Olah et al. 2017). Each parametrisation is a frozen dataclass;
a picture's parameters are tensors of its own, so that pictures drawn in one batch have nothing to do with each other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from pellucid.features.canvas import Canvas, Generators, normal
from pellucid.features.colour import Colours
from pellucid.registry import Registry

Parameters = list[Tensor]
"""Tensors with one row for each picture."""


class Parametrisation(ABC):
    """Parameters -> pictures. `rate` is the learning rate its parameters want."""

    name: ClassVar[str]
    optimiser: ClassVar[str] = "adam"
    rate: float

    @abstractmethod
    def start(self, canvas: Canvas, generators: Generators) -> Parameters:
        """The first parameters of a picture for each generator."""

    @abstractmethod
    def draw(self, parameters: Parameters, canvas: Canvas, colours: Colours) -> Tensor:
        """Pictures `(N, C, *space)` in display units."""

    def prepared(self, canvas: Canvas, colours: Colours) -> Parametrisation:
        """This with whatever it measures on pictures measured for this canvas."""
        return self


P = TypeVar("P", bound=type[Parametrisation])
PARAMETRISATIONS: Registry[type[Parametrisation]] = Registry("parametrisation")


def parametrisation(name: str) -> Callable[[P], P]:
    """Register a parametrisation under its name on the command line."""
    return PARAMETRISATIONS.register(name)


def get_parametrisation(name: str, **parameters: Any) -> Parametrisation:
    """A parametrisation by name with hyper-parameters.

    Raises:
        MethodError: unknown name (near misses are listed) or hyper-parameter.
    """
    made: Parametrisation = PARAMETRISATIONS.make(name, parameters)
    return made


@parametrisation("pixel")
@dataclass(frozen=True, kw_only=True)
class Pixel(Parametrisation):
    """Every pixel for itself, `sigmoid(root z)`: the naive basis, full of high frequencies."""

    rate: float = 0.05
    spread: float = 0.1

    def start(self, canvas: Canvas, generators: Generators) -> Parameters:
        """Faint noise about mid grey."""
        return [normal(canvas.shape, generators) * self.spread]

    def draw(self, parameters: Parameters, canvas: Canvas, colours: Colours) -> Tensor:
        """`sigmoid(root z)`."""
        return colours.squash(parameters[0])


@parametrisation("fourier")
@dataclass(frozen=True, kw_only=True)
class Fourier(Parametrisation):
    """Coefficients of the real Fourier transform, scaled as natural pictures are, by 1/f (Olah et al. 2017).

    Attributes:
        rate: of Adam.
        spread: deviation of the first coefficients.
        decay: of the scale with spatial frequency, `f^-decay`; larger is smoother.
        temporal_decay: of the scale with the number of the temporal harmonic; larger moves more slowly.
    """

    rate: float = 0.05
    spread: float = 0.01
    decay: float = 1.0
    temporal_decay: float = 1.0

    def start(self, canvas: Canvas, generators: Generators) -> Parameters:
        """Faint 1/f noise about mid grey."""
        return [normal((canvas.channels, *half_spectrum(canvas.space), 2), generators) * self.spread]

    def draw(self, parameters: Parameters, canvas: Canvas, colours: Colours) -> Tensor:
        """`sigmoid(root F^-1(z scale))`, in an orthonormal transform of any size, odd ones too."""
        # At any length of a clip, what stands still is as bright as in a picture.
        size = max(canvas.space[-2:]) ** self.decay / 4 * math.sqrt(math.prod(canvas.space[:-2]))
        scale = falloff(canvas.space, self.decay, self.temporal_decay) * size
        spectrum = torch.view_as_complex(parameters[0]) * scale.to(parameters[0].device)
        axes = tuple(range(-len(canvas.space), 0))
        return colours.squash(torch.fft.irfftn(spectrum, s=canvas.space, dim=axes, norm="ortho"))


def half_spectrum(space: Sequence[int]) -> tuple[int, ...]:
    """The shape of the real Fourier transform over `space`."""
    return (*space[:-1], space[-1] // 2 + 1)


def falloff(space: Sequence[int], decay: float, temporal_decay: float) -> Tensor:
    """How the amplitudes of natural pictures and clips fall with frequency, at most 1: `(*half_spectrum)`.

    `(f / f_1)^-decay` in space, with `f_1` one cycle along the longer side; times `k^-temporal_decay` for the k-th
    harmonic in time. What does not change counts as the first harmonic.
    """
    lowest = 1 / max(space[-2:])
    y, x = torch.fft.fftfreq(space[-2]), torch.fft.rfftfreq(space[-1])
    scale = (torch.hypot(y[:, None], x[None]).clamp(min=lowest) / lowest) ** -decay
    if len(space) == 2:
        return scale
    harmonic: Tensor = (torch.fft.fftfreq(space[0]).abs() * space[0]).clamp(min=1)
    return harmonic[:, None, None].pow(-temporal_decay) * scale
