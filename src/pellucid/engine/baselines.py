"""Baselines: what "absent" means. Some are one picture for each input; others depend on what is hidden.

A baseline is opened on a batch of inputs and then says what shows behind a mask. `dropped` is none of these: nothing
shows at all, the tokens of what is hidden are taken away (`pellucid.scoring.tokens`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.engine.filling import fill
from pellucid.errors import MethodError

DROPPED = "dropped"
_NOISE = 0.01  # of noisy-linear, in the model's units, as in the paper's code


def zero(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Zeros, in the model's own units: the training mean for a normalised input."""
    return torch.zeros_like(inputs)


def mean(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Each channel's mean over the picture."""
    return inputs.mean(tuple(range(2, inputs.ndim)), keepdim=True).expand_as(inputs)


def blur(inputs: Tensor, generator: torch.Generator, sigma: float = 0.05) -> Tensor:
    """A Gaussian blur; `sigma` is a share of the size along each space axis."""
    blurred = inputs
    for axis in range(2, inputs.ndim):
        size = inputs.shape[axis]
        places = torch.arange(size, dtype=torch.float64, device=inputs.device)
        weights = torch.exp(-0.5 * ((places[:, None] - places[None]) / max(sigma * size, 1e-6)) ** 2)
        weights = (weights / weights.sum(1, keepdim=True)).to(inputs.dtype)
        blurred = (blurred.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return blurred


def uniform(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise between the least and greatest value of each channel of each picture; one draw for all pictures."""
    dims = tuple(range(2, inputs.ndim))
    low, high = inputs.amin(dims, keepdim=True), inputs.amax(dims, keepdim=True)
    noise = torch.rand((1, *inputs.shape[1:]), generator=generator, dtype=torch.float32).to(inputs)
    return low + (high - low) * noise


def noisy_linear(inputs: Tensor, generator: torch.Generator) -> Fill:
    """Noisy linear imputation (Rong et al. 2022, ROAD, sec. 4.2): a hidden place is the mean of its neighbours, those
    beside it twice as heavy as those across a corner, plus a little noise, the same for all masks.
    """
    noise = _NOISE * torch.randn((1, *inputs.shape[1:]), generator=generator, dtype=torch.float32).to(inputs)
    return lambda values, known: fill(values, known, diagonal=True) + (1 - known) * noise


def inpaint(inputs: Tensor, generator: torch.Generator) -> Fill:
    """Harmonic in-painting: a hidden place is the mean of those beside it, the smoothest surface over the rim."""
    return lambda values, known: fill(values, known, diagonal=False)


Fill = Callable[[Tensor, Tensor], Tensor]
"""(one input `(1, C, *space)`, where it is known `(m, 1, *space)`, 0 or 1) -> the holes filled `(m, C, *space)`."""

BASELINES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "zero": zero,
    "mean": mean,
    "blur": blur,
    "uniform": uniform,
}
"""Pictures without evidence, of the inputs' shape."""

FILLS: dict[str, Callable[[Tensor, torch.Generator], Fill]] = {"noisy-linear": noisy_linear, "inpaint": inpaint}
"""Ways to fill what is hidden from what is not."""


class Baseline(ABC):
    """What shows where a mask is 0, opened on inputs `(N, C, *space)`."""

    @abstractmethod
    def behind(self, row: int, masks: Tensor) -> Tensor:
        """`(1 or m, C, *space)`: what shows of input `row` behind masks `(m, 1, *space)`."""

    @abstractmethod
    def blank(self) -> Tensor:
        """`(N, C, *space)`: what shows where all is hidden."""


class Backdrop(Baseline):
    """One picture for each input, whatever is hidden.

    Args:
        pictures: `(N, C, *space)`.
    """

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def behind(self, row: int, masks: Tensor) -> Tensor:
        """The input's picture."""
        return self.pictures[row : row + 1]

    def blank(self) -> Tensor:
        """The pictures."""
        return self.pictures


class Filled(Baseline):
    """What is hidden is filled from what is not; a soft mask hides where it is below one half.

    Args:
        inputs: `(N, C, *space)`.
        fill: see `Fill`.
    """

    def __init__(self, inputs: Tensor, fill: Fill) -> None:
        self.inputs, self._fill = inputs, fill

    def behind(self, row: int, masks: Tensor) -> Tensor:
        """The input with its holes filled."""
        return self._fill(self.inputs[row : row + 1], (masks >= 0.5).to(self.inputs))

    def blank(self) -> Tensor:
        """Filled from nothing: each channel's mean (and noise, if it is the filling's)."""
        nothing = torch.zeros((1, 1, *self.inputs.shape[2:])).to(self.inputs)
        return torch.cat([self._fill(x[None], nothing) for x in self.inputs])


def is_baseline(name: str) -> bool:
    """Whether there is a baseline of this name; a method may have one of its own, such as the mean of each segment."""
    return name in BASELINES or name in FILLS or name == DROPPED


def refuse_unknown(name: str) -> None:
    """Say so where there is no baseline of this name.

    Raises:
        MethodError: there is none.
    """
    if not is_baseline(name):
        known = (*BASELINES, *FILLS, DROPPED)
        raise MethodError(f"There is no baseline {name!r}: choose {', '.join(known)}, or give a tensor.")


def open_baseline(kind: str | Tensor, inputs: Tensor, generator: torch.Generator) -> Baseline:
    """A baseline by name, or the user's own tensor (such as another picture), on inputs.

    Random baselines draw from `generator`, on the CPU, so that every device sees the same.

    Raises:
        MethodError: an unknown name, or a tensor that does not fit.
    """
    if isinstance(kind, str) and kind in FILLS:
        return Filled(inputs.detach(), FILLS[kind](inputs.detach(), generator))
    return Backdrop(make_baseline(kind, inputs, generator))


def make_baseline(kind: str | Tensor, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """A baseline that is one picture for each input, by name or as the user's own tensor, expanded to the inputs.

    Raises:
        MethodError: as `open_baseline`; or a baseline that depends on what is hidden, where one picture is needed.
    """
    if isinstance(kind, Tensor):
        try:
            return kind.detach().to(inputs).expand_as(inputs)
        except RuntimeError as error:
            raise MethodError(
                f"The baseline has shape {tuple(kind.shape)}, which does not fit inputs {tuple(inputs.shape)}."
            ) from error
    if kind in FILLS or kind == DROPPED:
        raise MethodError(
            f"The baseline {kind!r} depends on what is hidden, and here one picture is needed: choose "
            f"{', '.join(BASELINES)}, or give a tensor."
        )
    refuse_unknown(kind)
    return BASELINES[kind](inputs.detach(), generator)
