"""Baselines: what "absent" means. Each maps inputs `(N, C, *space)` to a picture of the same shape without evidence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.errors import MethodError


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
    """Uniform noise between the least and greatest value of each channel of each picture."""
    dims = tuple(range(2, inputs.ndim))
    low, high = inputs.amin(dims, keepdim=True), inputs.amax(dims, keepdim=True)
    noise = torch.rand(inputs.shape, generator=generator, dtype=torch.float32).to(inputs)
    return low + (high - low) * noise


BASELINES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "zero": zero,
    "mean": mean,
    "blur": blur,
    "uniform": uniform,
}


def make_baseline(kind: str | Tensor, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """A baseline by name, or the user's own tensor, expanded to the inputs.

    Random baselines draw from `generator`, on the CPU, so that every device sees the same.
    """
    if isinstance(kind, Tensor):
        try:
            return kind.detach().to(inputs).expand_as(inputs)
        except RuntimeError as error:
            raise MethodError(
                f"The baseline has shape {tuple(kind.shape)}, which does not fit inputs {tuple(inputs.shape)}."
            ) from error
    if kind not in BASELINES:
        raise MethodError(f"There is no baseline {kind!r}: choose {', '.join(BASELINES)}, or give a tensor.")
    return BASELINES[kind](inputs.detach(), generator)
