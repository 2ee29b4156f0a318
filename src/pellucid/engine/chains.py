"""The straight chain of layers that a network begins with, each reading the last one's answer, and how far each reads.

What the network is made of does not say how it runs, so the chain is read from one pass: which layers ran, once each,
and on what. Layers of a kind that is known here act on a part of a picture as they act on the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pellucid.engine.folding import users_of
from pellucid.engine.hooks import Hooks
from pellucid.engine.run import guarded
from pellucid.engine.shells import hooked, plain_weights, shell

Place = tuple[int, int]
"""A row and a column, or a number of each."""

_POINTWISE = (
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU,
    nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
_IN_TRAINING = (nn.Dropout, nn.Dropout2d, nn.BatchNorm2d)  # what a place becomes then hangs on chance, or on others


@dataclass(frozen=True)
class Link:
    """A layer of a chain.

    Attributes:
        module: the layer.
        act: the same without its padding, which is for whoever cuts a part out.
        space: rows and columns of its answer.
        work: multiply-adds (comparisons, for a maximum) of one place of its answer.
        before: rows and columns of padding in front.
        span: rows and columns that one place of the answer is made of.
        stride: between those of neighbouring places.
        filling: what padding is.
    """

    module: nn.Module
    act: nn.Module
    space: Place
    work: int = 0
    before: Place = (0, 0)
    span: Place = (1, 1)
    stride: Place = (1, 1)
    filling: float = 0

    @property
    def pointwise(self) -> bool:
        """Whether each place is made of the same place alone."""
        return self.before == (0, 0) and self.span == self.stride == (1, 1)

    @property
    def whole(self) -> int:
        """Multiply-adds of one input."""
        return self.work * math.prod(self.space)

    def padded(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` and what is around it in the answer; what is not read at the far end is left out."""
        (top, left), size = self.before, self.needed(self.space)
        far = [n - b - have for n, b, have in zip(size, self.before, x.shape[2:], strict=True)]
        return pad(x, (left, far[1], top, far[0]), value=self.filling)

    def needed(self, size: Place) -> Place:
        """Rows and columns that `size` of the answer are made of."""
        return _both(lambda n, span, stride: (n - 1) * stride + span, size, self.span, self.stride)

    def changed(self, size: Place) -> Place:
        """How many rows and columns of the answer change, at most, with `size` of what the layer reads."""
        return _both(lambda n, span, stride, all_: min(all_, (n + span - 2) // stride + 1), size, self.span,
                     self.stride, self.space)  # fmt: skip

    def corner(self, start: Place) -> Place:
        """Where begins, in the padded picture, what the answer from `start` on is made of."""
        return _both(lambda at, stride: at * stride, start, self.stride)

    def first(self, start: Place, size: Place) -> Place:
        """Where `size` rows and columns of the answer begin that hold all that changes behind `start`."""
        return _both(
            lambda at, n, before, span, stride, all_: min(max(0, -((span - 1 - before - at) // stride)), all_ - n),
            start, size, self.before, self.span, self.stride, self.space,
        )  # fmt: skip


def _both(formula: Callable[..., int], *pairs: Place) -> Place:
    """A formula for rows and for columns."""
    rows, columns = zip(*pairs, strict=True)
    return formula(*rows), formula(*columns)


def chain(network: nn.Module, x: Tensor) -> tuple[list[Link], int]:
    """The chain, and the multiply-adds of the whole network (of its convolutions and linear layers).

    It begins with the first known layer that reads something of the input's size, and ends where a layer is
    unknown, has hooks, runs twice, or reads something else than the last one's answer as it was, and where somebody
    else reads that answer too, which the graph of the pass tells.

    Args:
        network: what runs.
        x: one input `(1, C, H, W)`.
    """
    links: list[Link] = []
    steps: list[Any] = []  # of the graph, that made each answer
    runs: Counter[nn.Module] = Counter()
    work, ended, reads = 0, False, False
    last: tuple[Tensor, int] | None = None  # the last layer's answer, and its state: it may be written to in between
    free = {part for part in network.modules() if not hooked(part)}

    def before(_part: nn.Module, args: Any, _kwargs: Any) -> None:
        nonlocal reads
        reads = last is None or (bool(args) and args[0] is last[0] and args[0]._version == last[1])

    def behind(part: nn.Module, args: Any, output: Any) -> None:
        nonlocal work, ended, last
        runs[part] += 1
        work += _work(part, output)
        link = _link(part, args, output) if reads and not ended and part in free else None
        if link is None or (last is None and args[0].shape[2:] != x.shape[2:]):
            ended = last is not None
        else:
            links.append(link)
            steps.append(output.grad_fn)
            last = output, output._version

    with Hooks() as hooks:
        for part in network.modules():
            if not any(True for _ in part.children()):
                hooks.before(part, before)
                hooks.behind(part, behind)
        with torch.enable_grad(), guarded(network, x):
            users = users_of(network(x.detach().clone().requires_grad_().clone()))  # it may be written to
    once = next((k for k, link in enumerate(links) if runs[link.module] > 1), len(links))
    shared = next((k for k, step in enumerate(steps) if users[step] != 1), len(links))
    return links[: min(once, shared + 1)], work


def _work(part: nn.Module, output: Any) -> int:
    """Multiply-adds for one input: each place of the answer takes all weights."""
    weight = part.weight if isinstance(part, nn.Linear | nn.modules.conv._ConvNd) else None
    if not isinstance(weight, Tensor) or not isinstance(output, Tensor):
        return 0
    return weight.numel() * output[0].numel() // len(weight)


def _link(part: nn.Module, args: Any, output: Any) -> Link | None:
    """The layer as a link; None for one that isn't known."""
    plain = len(args) == 1 and all(isinstance(x, Tensor) and x.ndim == 4 and len(x) == 1 for x in (*args, output))
    if not plain or (part.training and isinstance(part, _IN_TRAINING)):
        return None
    space = (output.shape[2], output.shape[3])
    if type(part) in _POINTWISE:
        known = not isinstance(part, nn.BatchNorm2d) or part.running_mean is not None
        return Link(part, part, space) if known else None
    filling = _filling(part)
    if type(part) is nn.Conv2d and part.padding_mode == "zeros" and plain_weights(part):
        left, _, top, _ = part._reversed_padding_repeated_twice
        work, before = part.weight.numel(), (top, left)
    elif filling is not None:
        work, before = output.shape[1] * math.prod(_pair(part.kernel_size)), _pair(part.padding)
    else:
        return None
    span = _both(
        lambda k, dilation: (k - 1) * dilation + 1, _pair(part.kernel_size), _pair(getattr(part, "dilation", 1))
    )
    act = shell(part)
    vars(act)["padding"] = (0, 0)
    return Link(part, act, space, work, before, span, _pair(part.stride), filling or 0)


def _filling(part: nn.Module) -> float | None:
    """What a pooling takes for padding; None where its padding is not like other places, or it is no pooling."""
    if type(part) is nn.MaxPool2d and not part.return_indices:
        return -math.inf
    counted = type(part) is nn.AvgPool2d and (part.count_include_pad or _pair(part.padding) == (0, 0))
    return 0.0 if counted and not part.ceil_mode else None


def _pair(value: Any) -> Place:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
