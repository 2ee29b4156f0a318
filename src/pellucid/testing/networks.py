"""Networks that do to themselves what networks of others do: whatever runs them must put it back."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class BreakdownError(Exception):
    """What a `Busy` network raises where it is told to."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian noise that leaves the global random numbers alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Busy(nn.Module):
    """A picture network `(N, 3, H, W) -> (N, 5)` that counts its calls, keeps what it saw, replaces and makes buffers,
    writes to its input and draws random numbers.

    Args:
        fails_at: the number of the pass, from 1, in which it raises `error`; 0: never.
        error: what it raises.

    Attributes:
        passes: how often it ran, kept outside of the module, where no guard puts it back.
    """

    def __init__(self, fails_at: int = 0, error: BaseException | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.tail = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.fc = nn.Linear(6, 5)
        _draw(self, generator)
        self._prepare(3)
        _TOLD[self] = [0, fails_at, error or BreakdownError("the network broke down, as it was told to")]

    def _prepare(self, channels: int) -> None:
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("cache", None)
        self.count, self.tally = 0, torch.zeros(2)
        self.by_shape: dict[Any, Any] = {"kept": 1}
        self.log: list[Any] = ["kept"]
        self.last: Tensor | None = None

    @property
    def passes(self) -> int:
        """How often it ran."""
        count: int = _TOLD[self][0]
        return count

    def _run(self, x: Tensor) -> None:
        """What it does beside its work."""
        told = _TOLD[self]
        told[0] += 1
        self.calls += 1
        self.count += 1
        self.tally += 1
        self.by_shape[x.shape] = self.fc.weight * 2  # holds a graph, as some caches of attention biases do
        self.log.append(x)
        self.last = x
        self.mean = x.detach().transpose(0, 1).flatten(1).mean(1)  # another tensor
        self.cache = self.mean.clone()
        if "late" not in self._buffers:
            self.register_buffer("late", torch.ones(1))
        torch.rand(3)
        if told[0] == told[1]:
            raise told[2]
        x.mul_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 5)`."""
        self._run(x)
        scores: Tensor = self.fc(self.tail(self.body(x)).mean((2, 3)))
        return scores


class BusyClip(Busy):
    """`Busy`'s ways with clips `(N, 3, T, H, W) -> (N, 5)`; each frame by itself, then a recurrent layer."""

    def __init__(self, fails_at: int = 0, error: BaseException | None = None) -> None:
        super().__init__(fails_at, error)
        self.recurrent = nn.GRU(6, 6)
        _draw(self.recurrent, torch.Generator().manual_seed(1))

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 5)`."""
        self._run(x)
        frames = self.tail(self.body(x.transpose(1, 2).flatten(0, 1))).mean((2, 3)).unflatten(0, (len(x), -1))
        scores: Tensor = self.fc(self.recurrent(frames.transpose(0, 1))[0][-1])
        return scores


_TOLD: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()
"""Network -> passes, the pass that fails, and how: outside of the module, where no guard reaches it."""


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    for weight in module.parameters():
        scale = (weight[0].numel() if weight.ndim > 1 else len(weight)) ** -0.5
        weight.data = torch.randn(weight.shape, generator=generator) * scale


def mixed(network: Busy) -> Busy:
    """The network in a mixed state, as in the middle of somebody's work: flags, gradients and frozen weights of all
    kinds, and hooks of the user's own."""
    network.train()
    network.body[1].eval()
    network.tail.eval()
    network.tail[2].train()
    network.body[0].weight.requires_grad_(False)
    network.fc.weight.grad = torch.full_like(network.fc.weight, 3)
    network.body.register_forward_hook(lambda _m, _a, _o: None)
    return network


class Sound(nn.Module):
    """A small smooth picture or clip network in evaluation mode, `(N, 3, *space) -> (N, 5)`, with weights of its seed.

    Args:
        axes: 2 for pictures, 3 for clips and volumes.
        seed: of the weights.
    """

    def __init__(self, axes: int = 2, seed: int = 0) -> None:
        super().__init__()
        conv: Any = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
        self.axes = axes
        self.body = nn.Sequential(conv(3, 6, 3, 2, 1), nn.SiLU(), conv(6, 8, 3, 2, 1), nn.SiLU())
        self.fc = nn.Linear(8, 5)
        _draw(self, torch.Generator().manual_seed(seed))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 5)`."""
        scores: Tensor = self.fc(self.body(x).flatten(2).mean(2))
        return scores
