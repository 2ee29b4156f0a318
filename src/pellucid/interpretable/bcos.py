"""B-cos networks: made of units whose answer is an exact sum over the input (Boehle, Fritz & Schiele 2022).

A unit answers `|cos(x, w)|^(B-1) w^T x` with `|w| = 1`: large only where the input points along its weights. With the
cosines held fixed the whole network is one matrix, `f(x) = W(x) x`, which is its explanation and adds up exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable, Reason, number
from pellucid.interpretable.numerics import Array, centre_and_scale
from pellucid.progress import task

_TINY = 1e-6
_fixed: ContextVar[bool] = ContextVar("pellucid_bcos_fixed", default=False)


@contextmanager
def fixed_cosines() -> Iterator[None]:
    """Inside, cosines are constants for autograd: the gradient of an output is then its row of `W(x)`."""
    token = _fixed.set(True)
    try:
        yield
    finally:
        _fixed.reset(token)


def _scaled(linear: Tensor, norm: Tensor, b: float) -> Tensor:
    """`|cos|^(b-1) linear`, of answers of unit weights to inputs of length `norm`."""
    cosine = linear.abs() / (norm + _TINY)
    factor = (cosine + _TINY).pow(b - 1) if b != 1 else torch.ones_like(cosine)
    return linear * (factor.detach() if _fixed.get() else factor)


class BcosLinear(nn.Linear):
    """`(N, inputs) -> (N, outputs)`, without a bias; `b` is B."""

    def __init__(self, inputs: int, outputs: int, b: float = 2.0) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        """The sum, scaled by the cosine."""
        return _scaled(
            functional.linear(x, functional.normalize(self.weight, dim=1)), x.norm(dim=1, keepdim=True), self.b
        )


class BcosConv2d(nn.Conv2d):
    """`(N, C, H, W) -> (N, K, h, w)`, without a bias; each place's patch is the input of the unit."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0, b: float = 2.0) -> None:
        super().__init__(inputs, outputs, size, stride, padding, bias=False)
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        """The sum over each patch, scaled by the cosine with the patch."""
        weight = functional.normalize(self.weight.flatten(1), dim=1).view_as(self.weight)
        linear = functional.conv2d(x, weight, None, self.stride, self.padding)
        ones = torch.ones_like(self.weight[:1])
        squares = functional.conv2d(x.square(), ones, None, self.stride, self.padding)
        return _scaled(linear, (squares + _TINY**2).sqrt(), self.b)


class BcosNet(nn.Module):
    """A small network for small pictures in [0, 1], `(N, C, H, W) -> (N, classes)`.

    The input is doubled to `(x, 1 - x)`, so that dark places can speak as loudly as bright ones. Scores are the mean of
    class maps over places, times `gain`, plus an offset that no place can claim.

    Args:
        channels: C.
        classes: K.
        width: units of the first layer.
        b: B.
        gain: what the small answers of cosines are multiplied by.
    """

    def __init__(self, channels: int, classes: int, width: int = 32, b: float = 2.0, gain: float = 40.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            BcosConv2d(2 * channels, width, 3, 1, 1, b),
            BcosConv2d(width, 2 * width, 3, 2, 1, b),
            BcosConv2d(2 * width, 2 * width, 3, 1, 1, b),
            BcosConv2d(2 * width, classes, 1, 1, 0, b),
        )
        self.gain = gain
        self.offset = nn.Parameter(torch.full((classes,), -float(np.log(max(classes - 1, 1)))))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        maps = self.layers(torch.cat([x, 1 - x], 1))
        scores: Tensor = self.gain * maps.mean((2, 3)) + self.offset
        return scores


def contributions(net: BcosNet, x: Tensor, classes: Tensor) -> Tensor:
    """What each place adds to a class's logit, `(N, H, W)`; with the offset they sum to it exactly.

    Args:
        net: the network.
        x: `(N, C, H, W)` in [0, 1].
        classes: `(N,)`.
    """
    doubled = torch.cat([x, 1 - x], 1).detach().requires_grad_()
    with torch.enable_grad(), fixed_cosines():
        scores = net.gain * net.layers(doubled).mean((2, 3))
        picked = scores.gather(1, classes[:, None]).sum()
    (rows,) = torch.autograd.grad(picked, doubled)
    return (rows * doubled).sum(1).detach()


def train(
    net: nn.Module, X: Tensor, answers: Tensor, *, epochs: int, rate: float, batch: int = 64, seed: int = 0
) -> None:
    """Cross-entropy to soft answers by Adam, the rate falling to zero; the global random state is left alone."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    steps = epochs * -(-len(X) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with task("training", steps) as advance, torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(X), generator=generator).split(batch):  # type: ignore[no-untyped-call]
                optimiser.zero_grad()
                loss = -(answers[rows] * net(X[rows]).log_softmax(1)).sum(1).mean()
                loss.backward()
                optimiser.step()
                schedule.step()
                advance(1)


class BcosHead(Readable):
    """Two B-cos layers on given columns: `score_k = gain sum_j W_kj(x) z_j + offset_k`, exactly, for each row.

    Args:
        width: hidden units.
        b: B.
        epochs: passes over the rows.
        seed: of the start and the order of rows.
    """

    kind: ClassVar[str] = "bcos"
    unit: ClassVar[str] = "hidden units"

    def __init__(self, width: int = 64, b: float = 1.5, epochs: int = 60, seed: int = 0) -> None:
        self.width = width
        self.b = b
        self.epochs = epochs
        self.seed = seed

    def _learn(self, X: Array, answers: Array) -> None:
        if self.width < 1 or self.epochs < 1:
            raise DataError("A B-cos head needs at least one unit and one epoch: give 1 or more.")
        self.mean_, self.scale_ = centre_and_scale(X)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net_ = self._made(X.shape[1], answers.shape[1])
        rows = torch.from_numpy((X - self.mean_) / self.scale_).float()
        train(self.net_, rows, torch.from_numpy(answers).float(), epochs=self.epochs, rate=5e-3, seed=self.seed)
        self.net_.requires_grad_(False)

    def _made(self, columns: int, classes: int) -> _Head:
        return _Head(columns, self.width, classes, self.b)

    def matrix(self, X: Array) -> tuple[Array, Array]:
        """`W(x)` `(N, K, d)` and the standardised rows `z` `(N, d)`; `W(x) z + offset` are the scores."""
        Z = torch.from_numpy((X - self.mean_) / self.scale_).float().requires_grad_()
        with torch.enable_grad(), fixed_cosines():
            scores = self.net_.linear(Z)
            rows = [torch.autograd.grad(s, Z, retain_graph=True)[0] for s in scores.sum(0)]
        return torch.stack(rows, 1).double().numpy(), Z.detach().double().numpy()

    def _scores(self, X: Array) -> Array:
        with torch.no_grad():
            Z = torch.from_numpy((X - self.mean_) / self.scale_).float()
            scores: Array = self.net_(Z).double().numpy()
        return scores

    @property
    def complexity_(self) -> int:
        """Hidden units."""
        return self.width

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """4, 8, 16 ... hidden units."""
        widths = sorted({w for w in (4, 16) if w < self.width} | {self.width})
        return [type(self)(w, self.b, self.epochs, self.seed).learned(X, answers, self) for w in widths]

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """Each column's share of the score; with the offset they add up to it."""
        row, k = self.row(x), self.code(x, label)
        W, Z = self.matrix(row)
        parts = W[0, k] * Z[0]
        return [
            Reason(f"{self.names_[j]} = {number(row[0, j])}", int(j), float(row[0, j]), float(parts[j]))
            for j in np.argsort(-np.abs(parts), kind="stable")
        ]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, and how columns are standardised."""
        weights = {f"net.{name}": value.numpy() for name, value in self.net_.state_dict().items()}
        return {"mean": self.mean_, "scale": self.scale_, **weights}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.mean_, self.scale_ = arrays["mean"], arrays["scale"]
        state = {n.removeprefix("net."): torch.from_numpy(v) for n, v in arrays.items() if n.startswith("net.")}
        with torch.random.fork_rng(devices=[]):
            self.net_ = self._made(len(self.mean_), len(self.classes_))
        self.net_.load_state_dict(state)
        self.net_.requires_grad_(False)

    def __str__(self) -> str:
        return f"two B-cos layers of {self.width} units on {len(self.names_)} columns; each answer is an exact sum"


class _Head(nn.Module):
    def __init__(self, columns: int, width: int, classes: int, b: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(BcosLinear(columns, width, b), BcosLinear(width, classes, b))
        self.gain = nn.Parameter(torch.tensor(5.0))
        self.offset = nn.Parameter(torch.zeros(classes))

    def linear(self, x: Tensor) -> Tensor:
        """The scores without the offset."""
        scores: Tensor = self.gain * self.layers(x)
        return scores

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.offset
