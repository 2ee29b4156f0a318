"""Inference by windows as one model: a segmentation network slid over a volume, and its gradient at bounded memory.

Windows, their order, their weights and their fusion are those of MONAI's `sliding_window_inference`. The forward pass
keeps no graph; the backward pass runs each window again, with the share of the gradient that falls to it. So the
gradient is that of the fusion unrolled, and memory that of one window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.overrides import _get_current_function_mode

from pellucid.errors import ModelError
from pellucid.models.adapters import Adapter
from pellucid.models.window_memory import current, last

Place = tuple[slice, ...]


def inside(place: Place) -> Any:
    """The index of a place of the last axes of a tensor."""
    return (..., *place)


class SlidingWindow(Adapter):
    """A network that answers windows, made one that answers whole volumes `(N, C, *space) -> (N, K, *space)`.

    Args:
        module: takes `(n, C, *window)` and answers `(n, K, *window)`.
        window: its size.
        overlap: of neighbours, a share in [0, 1).
        mode: what a window's answer weighs: `gaussian` (most in its middle) or `constant`.
        sigma: of the Gaussian, over the window's size.
        batch: windows run at once.

    Raises:
        ModelError: the settings make no sense, or (when it is run) the network's answer is of another size.
    """

    def __init__(
        self,
        module: nn.Module,
        window: Sequence[int],
        *,
        overlap: float = 0.25,
        mode: Literal["gaussian", "constant"] = "gaussian",
        sigma: float = 0.125,
        batch: int = 1,
    ) -> None:
        super().__init__(module)
        if not window or min(window) < 1 or not 0 <= overlap < 1 or batch < 1 or not sigma > 0:
            raise ModelError("A sliding window has a size, an overlap in [0, 1), a sigma and a batch above 0.")
        if mode not in ("gaussian", "constant"):
            raise ModelError(f"Windows weigh gaussian or constant, not {mode!r}.")
        self.window, self.overlap, self.mode, self.sigma, self.batch = tuple(window), overlap, mode, sigma, batch

    def forward(self, x: Tensor) -> Tensor:
        """The fused answer."""
        x, inner = self.padded(x)
        mode: Any = _get_current_function_mode
        rules = mode() is not None  # which must see the graph that the gradient takes
        answer = self.unrolled if rules else self._bounded if _wants_gradient(x) else self.fused
        fused = answer(x)
        cut: Tensor = fused[inside(inner)]
        return cut

    def padded(self, x: Tensor) -> tuple[Tensor, Place]:
        """The input with zeros about it where it is smaller than a window, and where it lies in that."""
        if x.ndim != 2 + len(self.window):
            raise ModelError(
                f"The window {self.window} slides over inputs (N, C, *space); this one is {tuple(x.shape)}."
            )
        short = [max(0, w - n) for n, w in zip(x.shape[2:], self.window, strict=True)]
        inner = tuple(slice(s // 2, s // 2 + n) for s, n in zip(short, x.shape[2:], strict=True))
        if any(short):
            x = pad(x, [k for s in reversed(short) for k in (s // 2, s - s // 2)])
        return x, inner

    def places(self, space: Sequence[int]) -> list[Place]:
        """Where the windows lie."""
        starts = []
        for n, w in zip(space, self.window, strict=True):
            step = max(1, int(w * (1 - self.overlap))) if n > w else w
            count = 1 + max(0, -(-(n - w) // step))
            starts.append([min(k * step, n - w) for k in range(count)])
        return [tuple(slice(s, s + w) for s, w in zip(at, self.window, strict=True)) for at in product(*starts)]

    def weights(self, like: Tensor) -> Tensor:
        """What each place of a window weighs, `(*window)`."""
        found = like.new_ones(())
        for n in self.window:
            at = torch.arange(n, dtype=torch.float32, device=like.device) - (n - 1) / 2
            along = (
                torch.exp(-(at**2) / (2 * (self.sigma * n) ** 2)) if self.mode == "gaussian" else torch.ones_like(at)
            )
            found = found[..., None] * along.to(like.dtype)
        return found.clamp(min=max(float(found.min()), 1e-3))

    def total(self, space: Sequence[int], like: Tensor) -> Tensor:
        """The sum of the weights at each place, `(*space)`."""
        total, weights = like.new_zeros(tuple(space)), self.weights(like)
        for place in self.places(space):
            total[place] += weights
        return total

    def answers(self, x: Tensor, places: Sequence[Place]) -> Iterator[tuple[list[Place], Tensor]]:
        """Windows and what the network answers to them, `(n * N, K, *window)`, `batch` at a time."""
        memory = None if torch.is_grad_enabled() else current()
        step = self.batch if memory is None else 1
        for start in range(0, len(places), step):
            some = list(places[start : start + step])
            windows = torch.cat([x[inside(place)] for place in some])
            answer = self.module(windows) if memory is None else memory.answer(windows, self.module, self.batch)
            if not isinstance(answer, Tensor) or tuple(answer.shape[2:]) != self.window:
                got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
                raise ModelError(
                    f"A network that slides must answer (N, K, {', '.join(map(str, self.window))}), not {got}."
                )
            yield some, answer

    def _bounded(self, x: Tensor) -> Tensor:
        fused: Tensor = _Fused.apply(x, self)
        return fused

    def fused(self, x: Tensor) -> Tensor:
        """The fusion over a padded input without a graph; within `recalling` the same is not computed twice."""
        memory = last()
        with torch.no_grad():
            return self.unrolled(x) if memory is None else memory.answer(self, x, self.unrolled)

    def unrolled(self, x: Tensor) -> Tensor:
        """The fusion as plain operations: with gradients, all windows' graphs are in memory at once."""
        space = x.shape[2:]
        weights, total = self.weights(x), self.total(space, x)
        fused = None
        for some, answer in self.answers(x, self.places(space)):
            for place, one in zip(some, answer.chunk(len(some)), strict=True):
                fused = one.new_zeros(len(x), one.shape[1], *space) if fused is None else fused
                fused[inside(place)] += one * weights
        assert fused is not None
        whole: Tensor = fused / total
        return whole


class _Fused(torch.autograd.Function):
    """The fusion without a graph; its gradient window by window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, net: SlidingWindow) -> Tensor:
        ctx.save_for_backward(x)
        ctx.net = net
        return net.fused(x.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        net: SlidingWindow = ctx.net
        return gradient_of(net, x.detach(), gradients[0]), None


def gradient_of(net: SlidingWindow, x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient to `x` `(N, C, *space)` of a fused answer whose own gradient is `(N, K, *space)`."""
    memory = last()
    if memory is not None and (kept := memory.gradient(net, x, gradient)) is not None:
        return kept
    found, shares = torch.zeros_like(x), shared(net, gradient)
    for place in net.places(x.shape[2:]):
        share = shares(place)
        if not share.any():
            continue
        with torch.enable_grad():
            part = x[inside(place)].clone().requires_grad_()
            ((_, answer),) = net.answers(part, [tuple(slice(0, n) for n in net.window)])
            (own,) = torch.autograd.grad(answer, part, share)
        found[inside(place)] += own
    return found


def shared(net: SlidingWindow, gradient: Tensor) -> Any:
    """What of a fused answer's gradient falls to the window at a place."""
    weights, total = net.weights(gradient), net.total(gradient.shape[2:], gradient)
    return lambda place: gradient[inside(place)] * (weights / total[place])


def _wants_gradient(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad
