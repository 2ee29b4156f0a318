"""Sparse autoencoders: many more concepts than channels, few of them at a place.

    x = (a - mean) / std                   each channel to unit spread: without it units die
    z = largest of relu(W (x - v) + c)     few units at a place
    x^ = z V + v                           rows of V of unit length

Makhzani & Frey 2014 (arXiv:1312.5663), Gao et al. 2024 (arXiv:2406.04093); the batch variant Bussmann et al. 2024
(arXiv:2412.06410). Units that do not fire in a whole epoch are revived: they take the directions of what is
reconstructed worst, as in Bricken et al. 2023 ("Towards monosemanticity").
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.concepts.dictionary import Array, Dictionary, dictionary
from pellucid.errors import DataError
from pellucid.progress import task

_CONSTANT = 1e-6  # spread of a channel, over the largest one's, below which it is left as it is
_WORST = 8  # rows of a batch that a dead unit may be revived from


@dataclass
class _Net:
    """Encoder `W (K, C)`, `c (K,)`; decoder `V (K, C)`, `v (C,)`, of standardised activations."""

    W: Tensor
    c: Tensor
    V: Tensor
    v: Tensor

    @classmethod
    def start(cls, count: int, channels: int, generator: torch.Generator) -> _Net:
        """The encoder begins as the decoder's transpose."""
        V = normalize(torch.randn(count, channels, generator=generator), dim=1)
        return cls(*(p.requires_grad_() for p in (V.clone(), torch.zeros(count), V, torch.zeros(channels))))

    @property
    def parameters(self) -> list[Tensor]:
        return [self.W, self.c, self.V, self.v]

    def units(self, x: Tensor) -> Tensor:
        """All units, none taken away yet."""
        return torch.relu((x - self.v) @ self.W.T + self.c)

    @torch.no_grad()
    def shorten(self) -> None:
        """Directions at unit length."""
        self.V.div_(self.V.norm(dim=1, keepdim=True).clamp(min=1e-12))

    @torch.no_grad()
    def revive(self, dead: Tensor, residuals: Tensor, adam: torch.optim.Optimizer) -> None:
        """Dead units take the directions of these residuals `(m, C)`, and the optimiser forgets them."""
        dead = dead[: len(residuals)]
        if not len(dead):
            return
        alive = torch.ones(len(self.W), dtype=torch.bool)
        alive[dead] = False
        length = self.W[alive].norm(dim=1).mean() if alive.any() else torch.ones(())
        self.V[dead] = normalize(residuals[: len(dead)], dim=1)
        self.W[dead] = self.V[dead] * length
        self.c[dead] = 0
        for parameter in (self.W, self.c, self.V):
            for moment in ("exp_avg", "exp_avg_sq"):
                adam.state[parameter][moment][dead] = 0


@dictionary(
    "sae", about="many concepts, few at a place (sparse autoencoder)", paper="Gao et al. 2024, arXiv:2406.04093"
)
class TopKSAE(Dictionary):
    """A sparse autoencoder that keeps the `active` largest units at each place.

    Args:
        count: number of concepts, usually more than channels.
        seed: of the start and of the order of the data.
        active: units kept at a place; None: a tenth of `count`, at least 1 and at most 32.
        epochs: passes over the data.
        batch: rows in a step.
        rate: step size of Adam, which falls to zero along half a cosine; None: 0.05 / sqrt(count).

    Attributes:
        losses_: share of the variance left unexplained, in each epoch.
        dead_: units that did not fire in each epoch; all but the last epoch's were then revived.
        seconds_: of each epoch.
    """

    kept: ClassVar[tuple[str, ...]] = ("components_", "offset_", "encoder_", "bias_", "lengths_")

    encoder_: Array
    bias_: Array
    lengths_: Array
    losses_: list[float]
    dead_: list[int]
    seconds_: list[float]

    def __init__(
        self,
        count: int = 256,
        seed: int = 0,
        active: int | None = None,
        epochs: int = 20,
        batch: int = 256,
        rate: float | None = None,
    ) -> None:
        super().__init__(count, seed)
        self.active = active
        self.epochs = epochs
        self.batch = batch
        self.rate = rate

    @property
    def _kept(self) -> int:
        wished = self.active if self.active is not None else max(1, min(32, self.count // 10))
        return min(self.count, wished)

    def _fit(self, A: Array) -> None:
        if self._kept < 1 or self.epochs < 1 or self.batch < 1:
            raise DataError("A sparse autoencoder needs active, epochs and batch of at least 1.")
        mean, std = A.mean(0, dtype=np.float64), A.std(0, dtype=np.float64)
        std = np.where(std > _CONSTANT * std.max(), std, 1.0)
        with torch.inference_mode(False), torch.enable_grad():
            net = self._trained(A, torch.from_numpy(mean).float(), torch.from_numpy(std).float())
        W, c, V, v = (p.detach().double().numpy() for p in net.parameters)
        self._keep(V * std, mean + v * std)
        self.lengths_ = np.linalg.norm(V * std, axis=1).astype(np.float32)
        self.encoder_, self.bias_ = (W / std).astype(np.float32), c.astype(np.float32)

    def _trained(self, A: Array, mean: Tensor, std: Tensor) -> _Net:
        generator = torch.Generator().manual_seed(self.seed)
        net = _Net.start(self.count, A.shape[1], generator)
        rate = self.rate if self.rate is not None else 0.05 / math.sqrt(self.count)
        adam = torch.optim.Adam(net.parameters, lr=rate)
        steps = self.epochs * math.ceil(len(A) / self.batch)
        fall = torch.optim.lr_scheduler.LambdaLR(adam, lambda s: 0.5 + 0.5 * math.cos(math.pi * min(s / steps, 1.0)))
        self.losses_, self.dead_, self.seconds_ = [], [], []
        with task("sparse autoencoder", self.epochs) as advance:
            for epoch in range(self.epochs):
                begun = time.perf_counter()
                lost = total = 0.0
                fired = torch.zeros(self.count, dtype=torch.bool)
                worst: list[tuple[Tensor, Tensor]] = []
                order = torch.randperm(len(A), generator=generator)
                for start in range(0, len(A), self.batch):
                    rows = order[start : start + self.batch]
                    x = (torch.from_numpy(A[rows.numpy()]) - mean) / std
                    z = self._sparse(net.units(x))
                    residual = x - z @ net.V - net.v
                    adam.zero_grad()
                    torch.autograd.backward(residual.square().mean(), inputs=net.parameters)
                    adam.step()
                    fall.step()
                    net.shorten()
                    error, residual = residual.detach().square().sum(1), residual.detach()
                    top = error.topk(min(len(error), _WORST)).indices
                    worst.append((error[top], residual[top]))
                    lost, total = lost + float(error.sum()), total + float(x.square().sum())
                    fired |= (z.detach() > 0).any(0)
                dead = torch.nonzero(~fired)[:, 0]
                if epoch + 1 < self.epochs:
                    largest = torch.cat([e for e, _ in worst]).argsort(descending=True, stable=True)
                    net.revive(dead, torch.cat([r for _, r in worst])[largest], adam)
                self.losses_.append(lost / max(total, 1e-30))
                self.dead_.append(len(dead))
                self.seconds_.append(time.perf_counter() - begun)
                advance(1)
        return net

    def _sparse(self, z: Tensor) -> Tensor:
        """All but the largest of each row at zero."""
        top = z.topk(self._kept, dim=1)
        return torch.zeros_like(z).scatter(1, top.indices, top.values)

    def _encode(self, A: Array) -> Array:
        raw = np.maximum((A - self.offset_) @ self.encoder_.T + self.bias_, 0)
        codes: Array = self._sparse(torch.from_numpy(raw)).numpy() * self.lengths_
        return codes


@dictionary("batch-sae", about="as sae, with more concepts at places that need more", paper="arXiv:2412.06410")
class BatchTopKSAE(TopKSAE):
    """A sparse autoencoder that keeps the largest units of a whole batch, on average `active` a place.

    On new data a unit counts where it is above a threshold: the mean, over the last epoch's batches, of the smallest
    value that was kept. A place's codes then do not depend on what else is in the batch.
    """

    kept: ClassVar[tuple[str, ...]] = (*TopKSAE.kept, "threshold_")

    threshold_: Array

    def _trained(self, A: Array, mean: Tensor, std: Tensor) -> _Net:
        self._smallest: list[float] = []
        net = super()._trained(A, mean, std)
        last = self._smallest[-math.ceil(len(A) / self.batch) :]
        self.threshold_ = np.array([np.mean(last)], np.float32)
        del self._smallest
        return net

    def _sparse(self, z: Tensor) -> Tensor:
        top = z.flatten().topk(self._kept * len(z))
        self._smallest.append(float(top.values[-1].detach()))
        return torch.zeros_like(z).flatten().scatter(0, top.indices, top.values).view_as(z)

    def _encode(self, A: Array) -> Array:
        raw = np.maximum((A - self.offset_) @ self.encoder_.T + self.bias_, 0)
        codes: Array = np.where(raw >= self.threshold_, raw, 0) * self.lengths_
        return codes
