"""Baselines of clips `(N, C, T, H, W)`, which take something from time and leave the rest as it is.

What stays the same in the baseline can earn nothing: on `freeze`, still evidence counts for nothing and only change
is paid; on `time-reverse` and `time-shuffle`, only the order of the frames is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.engine.baselines import BASELINES, blur
from pellucid.errors import MethodError


def _clips(inputs: Tensor, name: str) -> Tensor:
    if inputs.ndim != 5:
        raise MethodError(
            f"The baseline {name!r} is one of clips (N, C, T, H, W); this input is {tuple(inputs.shape)}: use mean or "
            "blur."
        )
    return inputs


def freeze(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """The first frame, standing still."""
    return _clips(inputs, "freeze")[:, :, :1].expand_as(inputs)


def time_mean(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """The mean of all frames, standing still."""
    return _clips(inputs, "time-mean").mean(2, keepdim=True).expand_as(inputs)


def time_blur(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian blur over time alone, as wide as an eighth of the clip."""
    frames = _clips(inputs, "time-blur").permute(0, 1, 3, 4, 2).flatten(0, 3)[:, None]  # (places, 1, T)
    n, c, _, h, w = inputs.shape
    return blur(frames, generator, sigma=0.125).reshape(n, c, h, w, -1).movedim(-1, 2)


def time_shuffle(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """The frames in a random order, the same for all clips."""
    order = torch.randperm(_clips(inputs, "time-shuffle").shape[2], generator=generator)
    return inputs[:, :, order.to(inputs.device)]


def time_reverse(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """The clip played backwards."""
    return _clips(inputs, "time-reverse").flip(2)


TEMPORAL = {
    "freeze": freeze,
    "time-mean": time_mean,
    "time-blur": time_blur,
    "time-shuffle": time_shuffle,
    "time-reverse": time_reverse,
}
BASELINES.update(TEMPORAL)
