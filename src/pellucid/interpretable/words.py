"""Words: the named numbers that a readable model speaks of, from one layer of a network or from the picture.

Each kind of words is a small module `(N, cells, C) -> (N, words)` through which gradients pass, so that a readable
model on top of a network can itself be explained by any method.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pellucid.concepts import Dictionary, restore
from pellucid.errors import DataError

Pool = Literal["mean", "max"]
Domain = Literal["layer", "picture"]


class Words(nn.Module):
    """Base: named columns.

    Attributes:
        names: of the words.
        kind: as records call it.
        domain: `layer`: `(N, cells, C)` activations; `picture`: `(N, C, *space)` pixels in [0, 1].
    """

    kind: ClassVar[str]
    domain: ClassVar[Domain] = "layer"
    names: list[str]

    @abstractmethod
    def forward(self, A: Tensor) -> Tensor:
        """`(N, words)`."""

    def places(self, A: Tensor) -> Tensor | None:
        """How much of each word is at each cell, `(N, cells, words)`; None where words have no place."""
        return None

    def about(self) -> dict[str, Any]:
        """All but the arrays, as plain values."""
        return {"kind": self.kind, "names": self.names}

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was learned."""

    def rows(self, values: NDArray[np.float32], which: NDArray[np.int64], batch: int = 256) -> NDArray[np.float64]:
        """Words `(n, words)` of some of the activations `(N, *grid, C)`, in batches."""
        parts = []
        for start in range(0, len(which), batch):
            A = torch.from_numpy(np.array(values[which[start : start + batch]], np.float32))
            with torch.no_grad():
                parts.append(self(A.reshape(len(A), -1, A.shape[-1])).double().numpy())
        return np.concatenate(parts)


def _pooled(values: Tensor, pool: Pool) -> Tensor:
    return values.mean(1) if pool == "mean" else values.amax(1)


class ChannelWords(Words):
    """The layer's channels themselves, pooled over places."""

    kind = "channels"

    def __init__(self, names: Sequence[str], pool: Pool = "mean") -> None:
        super().__init__()
        self.names, self.pool = list(names), pool

    def forward(self, A: Tensor) -> Tensor:
        """The mean, or the largest value, of each channel."""
        return _pooled(A, self.pool)

    def places(self, A: Tensor) -> Tensor:
        """The activations."""
        return A

    def about(self) -> dict[str, Any]:
        """With the pooling."""
        return {**super().about(), "pool": self.pool}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Nothing is learned."""
        return {}


class _Encode(torch.autograd.Function):
    """A dictionary's codes, which are locally linear in the activations; the backward pass is that linear map."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, dictionary: Dictionary) -> Tensor:
        codes = torch.from_numpy(dictionary.encode(rows.detach().cpu().numpy())).to(rows)
        ctx.save_for_backward(codes)
        ctx.dictionary = dictionary
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        return _pull(ctx.dictionary, codes, grads[0]), None


def _pull(dictionary: Dictionary, codes: Tensor, grad: Tensor) -> Tensor:
    """`grad (n, K)` times the derivative of the codes by the activations, `(n, C)`."""

    def matrix(name: str) -> Tensor | None:
        value = getattr(dictionary, name, None)
        return None if value is None else torch.from_numpy(np.asarray(value)).to(grad)

    alive = (codes > 0).to(grad)
    if (filters := matrix("filters_")) is not None:  # linear everywhere
        return grad @ filters
    if (encoder := matrix("encoder_")) is not None:  # linear where a unit fires
        lengths = matrix("lengths_")
        assert lengths is not None
        return (grad * alive * lengths) @ encoder
    D = torch.from_numpy(dictionary.components_).to(grad)
    if not dictionary.nonnegative:  # orthonormal directions
        return grad @ D
    if matrix("lengths_") is not None:  # nearest centre: constant almost everywhere
        return torch.zeros(len(grad), D.shape[1]).to(grad)
    # Non-negative least squares: on the codes above zero, u = (D_S D_S^T)^-1 D_S a.
    gram = (D @ D.T)[None] * alive[:, :, None] * alive[:, None]
    gram = gram + torch.diag_embed(1 - alive) + 1e-9 * torch.eye(len(D)).to(grad)
    solved = torch.linalg.solve(gram, (grad * alive)[:, :, None])[:, :, 0]
    pulled: Tensor = (solved * alive) @ D
    return pulled


class ConceptWords(Words):
    """How much there is of each concept of a dictionary, pooled over places."""

    kind = "concepts"

    def __init__(self, dictionary: Dictionary, names: Sequence[str] | None = None, pool: Pool = "mean") -> None:
        super().__init__()
        self.dictionary, self.pool = dictionary, pool
        self.names = list(names or (f"concept {k + 1}" for k in range(len(dictionary.components_))))

    def forward(self, A: Tensor) -> Tensor:
        """Codes, pooled."""
        return _pooled(self.places(A), self.pool)

    def places(self, A: Tensor) -> Tensor:
        """Codes at each place."""
        codes: Tensor = _Encode.apply(A.reshape(-1, A.shape[-1]), self.dictionary)
        return codes.reshape(*A.shape[:2], -1)

    def about(self) -> dict[str, Any]:
        """With the dictionary's own."""
        return {**super().about(), "pool": self.pool, "dictionary": self.dictionary.state()[0]}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The dictionary's."""
        return dict(self.dictionary.state()[1])


class Parts(Words):
    """How alike the most alike place is to each of a few real patches (Nauta et al. 2023, PIP-Net; Chen et al. 2019).

    `word_p = max over cells of cos(A_cell, patch_p)`.

    Args:
        patches: `(P, C)` activations of real patches.
        where: `(P, 2)` the picture each comes from, and its cell.
        names: of the parts.
    """

    kind = "parts"
    patches: Tensor

    def __init__(self, patches: NDArray[Any], where: NDArray[Any], names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.register_buffer("patches", torch.from_numpy(np.asarray(patches, np.float32)), persistent=False)
        self.where = np.asarray(where, np.int64)
        self.names = list(names or (f"part {p + 1}" for p in range(len(patches))))

    def forward(self, A: Tensor) -> Tensor:
        """The largest cosine over places."""
        return self.places(A).amax(1)

    def places(self, A: Tensor) -> Tensor:
        """Cosines at each place."""
        return functional.normalize(A, dim=-1) @ functional.normalize(self.patches, dim=-1).T

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The patches and where they are from."""
        return {"patches": self.patches.cpu().numpy(), "where": self.where}


class Attributes(Words):
    """Attributes that people named, each read off the pooled layer by a ridge regression.

    Args:
        weights: `(C, attributes)`; intercept: `(attributes,)`.
        names: of the attributes.
    """

    kind = "attributes"
    weights: Tensor
    intercept: Tensor

    def __init__(self, weights: NDArray[Any], intercept: NDArray[Any], names: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(np.asarray(weights, np.float32)), persistent=False)
        self.register_buffer("intercept", torch.from_numpy(np.asarray(intercept, np.float32)), persistent=False)
        self.names = list(names)

    @classmethod
    def fit(cls, pooled: NDArray[Any], attributes: NDArray[Any], names: Sequence[str], folds: int = 5) -> Attributes:
        """From pooled activations `(N, C)` and attributes `(N, a)`; each one's ridge is cross-validated."""
        from sklearn.linear_model import RidgeCV

        if len(pooled) != len(attributes):
            raise DataError(f"There are {len(attributes)} rows for {len(pooled)} pictures: give one each.")
        scale = pooled.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        model = RidgeCV(alphas=np.geomspace(1, 1e5, 11), alpha_per_target=True).fit(pooled / scale, attributes)
        coefficients = np.atleast_2d(model.coef_) / scale
        return cls(coefficients.T, np.atleast_1d(model.intercept_), names)

    def forward(self, A: Tensor) -> Tensor:
        """The attributes' estimates."""
        return A.mean(1) @ self.weights + self.intercept

    def places(self, A: Tensor) -> Tensor:
        """What each place adds; with the intercept the mean over places is the estimate."""
        return A @ self.weights

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The regressions."""
        return {"weights": self.weights.cpu().numpy(), "intercept": self.intercept.cpu().numpy()}


class PropertyWords(Words):
    """Plain properties of a picture, in words anybody knows: what can be said without a network."""

    kind = "properties"
    domain: ClassVar[Domain] = "picture"

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.names = ["brightness", "contrast", "edges", "vertical edges", "fine detail", "bright centre"]
        if channels == 3:
            self.names += ["red", "green", "blue", "colourfulness"]

    def forward(self, A: Tensor) -> Tensor:
        """Of pixels `(N, C, H, W)` in [0, 1]."""
        grey = A.mean(1)
        dx, dy = grey.diff(dim=-1), grey.diff(dim=-2)
        horizontal, vertical = dx.abs().mean((1, 2)), dy.abs().mean((1, 2))
        h, w = grey.shape[-2:]
        middle = grey[:, h // 4 : h - h // 4, w // 4 : w - w // 4].mean((1, 2))
        smooth = functional.avg_pool2d(grey[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
        columns = [
            grey.mean((1, 2)),
            grey.flatten(1).std(1),
            horizontal + vertical,
            horizontal / (horizontal + vertical + 1e-6),
            (grey - smooth).abs().mean((1, 2)),
            middle - grey.mean((1, 2)),
        ]
        if self.channels == 3:
            mean = A.mean((2, 3))
            share = mean / (mean.sum(1, keepdim=True) + 1e-6)
            rg, yb = A[:, 0] - A[:, 1], (A[:, 0] + A[:, 1]) / 2 - A[:, 2]
            spread = (rg.flatten(1).var(1) + yb.flatten(1).var(1) + 1e-9).sqrt()
            level = (rg.mean((1, 2)) ** 2 + yb.mean((1, 2)) ** 2 + 1e-9).sqrt()
            columns += [*share.T, spread + 0.3 * level]  # Hasler & Suesstrunk 2003, eq. 10
        return torch.stack(columns, 1)

    def about(self) -> dict[str, Any]:
        """With the number of channels."""
        return {**super().about(), "channels": self.channels}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Nothing is learned."""
        return {}


def words_from(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Words:
    """The inverse of `about` and `arrays`."""
    kind, names = about["kind"], about["names"]
    if kind == "channels":
        return ChannelWords(names, about["pool"])
    if kind == "concepts":
        return ConceptWords(restore(about["dictionary"], arrays), names, about["pool"])
    if kind == "parts":
        return Parts(arrays["patches"], arrays["where"], names)
    if kind == "attributes":
        return Attributes(arrays["weights"], arrays["intercept"], names)
    if kind == "properties":
        return PropertyWords(about["channels"])
    raise DataError(f"There are no words of kind {kind!r}.")
