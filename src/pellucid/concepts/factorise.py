"""Dictionaries by matrix factorisation: NMF, semi-NMF, PCA, ICA, k-means; and random directions, to compare with."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn import cluster, decomposition
from sklearn.exceptions import ConvergenceWarning

from pellucid.concepts.dictionary import Array, Dictionary, dictionary
from pellucid.progress import task

_SWEEPS = 500  # of coordinate descent at most; it stops earlier when codes stand still
_STILL = 1e-5  # change in a sweep, over the largest code


def nonnegative_codes(
    A: NDArray[Any], D: NDArray[Any], start: NDArray[Any] | None = None, sweeps: int = _SWEEPS
) -> Array:
    """`argmin_{U >= 0} ||A - U D||^2` row by row, by cyclic coordinate descent on all rows at once.

        u_k <- max(0, u_k + (a - u D) . d_k / ||d_k||^2)

    The problem is convex and each step solves its coordinate exactly, so the loss never rises (Cichocki & Phan 2009).

    Args:
        A: `(n, C)`.
        D: `(K, C)`.
        start: codes `(n, K)` to begin with; default: zero.
        sweeps: over all coordinates, at most.
    """
    target, gram = D @ A.T, D @ D.T  # a concept a row: rows are contiguous
    U = np.zeros_like(target) if start is None else np.array(start.T, target.dtype, order="C")
    alive = np.flatnonzero(np.diag(gram) > 0)
    for _ in range(sweeps):
        moved = 0.0
        for k in alive:
            new = np.maximum(0, U[k] + (target[k] - gram[k] @ U) / gram[k, k])
            moved = max(moved, float(np.abs(new - U[k]).max(initial=0)))
            U[k] = new
        if moved <= _STILL * float(U.max(initial=0)):
            break
    return np.ascontiguousarray(U.T, np.float32)


@dictionary("nmf", about="parts that only add up; activations must be >= 0", paper="Lee & Seung 1999, Nature 401")
class NMF(Dictionary):
    """Non-negative matrix factorisation: `min ||A - U D||^2` with `U >= 0`, `D >= 0`.

    The factorisation of CRAFT (Fel et al. 2023, arXiv:2211.10154). scikit-learn's coordinate descent, from its
    deterministic start (NNDSVDa); codes of new data by `nonnegative_codes`.
    """

    positive_input: ClassVar[bool] = True

    def _fit(self, A: Array) -> None:
        init = "nndsvda" if self.count <= min(A.shape) else "random"
        model = decomposition.NMF(self.count, init=init, tol=1e-3, max_iter=200, random_state=self.seed)
        with task("NMF"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # how well it fits is measured and said
            model.fit(A)
        self._keep(model.components_)

    def _encode(self, A: Array) -> Array:
        return nonnegative_codes(A, self.components_)


@dictionary("semi-nmf", about="directions of any sign, amounts >= 0", paper="Ding, Li & Jordan 2010, TPAMI 32(1)")
class SemiNMF(Dictionary):
    """Semi-non-negative factorisation: `min ||A - U D||^2` with `U >= 0` and `D` free, for signed activations.

    Alternates the least squares for `D` with one sweep of `nonnegative_codes` for `U`, from a k-means start as in the
    paper; the loss never rises.

    Args:
        count: number of concepts.
        seed: of the start.
        iterations: at most.
        tolerance: relative gain of an iteration below which it ends.
    """

    def __init__(self, count: int = 25, seed: int = 0, iterations: int = 200, tolerance: float = 1e-4) -> None:
        super().__init__(count, seed)
        self.iterations = iterations
        self.tolerance = tolerance

    def _fit(self, A: Array) -> None:
        X = A.astype(np.float64)
        labels = _clusters(X, self.count, self.seed, starts=4).labels_
        U = np.full((len(X), self.count), 0.2)
        U[np.arange(len(X)), labels] += 1
        ridge = 1e-9 * np.eye(self.count)
        loss = np.inf
        with task("semi-NMF", self.iterations) as advance:
            for _ in range(self.iterations):
                gram = U.T @ U
                D = np.linalg.solve(gram + ridge * np.trace(gram), U.T @ X)
                scale = np.maximum(np.linalg.norm(D, axis=1), 1e-12)
                D, U = D / scale[:, None], U * scale
                U = nonnegative_codes(X, D, U, sweeps=1).astype(np.float64)
                loss, last = float(((X - U @ D) ** 2).sum()), loss
                advance(1)
                if last - loss < self.tolerance * loss:
                    break
        self._keep(D)

    def _encode(self, A: Array) -> Array:
        return nonnegative_codes(A, self.components_)


@dictionary("pca", about="orthogonal directions of greatest variance", paper="Pearson 1901; Hotelling 1933")
class PCA(Dictionary):
    """Principal components; codes have both signs, and each direction points to where the longer tail is."""

    nonnegative: ClassVar[bool] = False

    def _fit(self, A: Array) -> None:
        count = min(self.count, *A.shape)
        model = decomposition.PCA(count, svd_solver="full" if A.shape[1] > len(A) else "covariance_eigh")
        found: NDArray[Any] = model.fit_transform(A.astype(np.float64))
        self._keep(model.components_ * _long_tail(found)[:, None], model.mean_)

    def _encode(self, A: Array) -> Array:
        return np.asarray((A - self.offset_) @ self.components_.T, np.float32)


@dictionary("ica", about="directions whose amounts are independent", paper="Hyvarinen & Oja 2000, FastICA")
class ICA(Dictionary):
    """Independent components; codes have both signs, and each direction points to where the longer tail is."""

    nonnegative: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = ("components_", "offset_", "filters_")

    filters_: Array

    def _fit(self, A: Array) -> None:
        count = min(self.count, *A.shape)
        model = decomposition.FastICA(count, whiten="unit-variance", random_state=self.seed, max_iter=400, tol=1e-3)
        with task("ICA"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = model.fit_transform(A.astype(np.float64))
        sign = _long_tail(found)
        length = np.linalg.norm(model.mixing_, axis=0)
        self._keep((model.mixing_ * sign).T, model.mean_)
        self.filters_ = (model.components_ * (sign * length)[:, None]).astype(np.float32)

    def _encode(self, A: Array) -> Array:
        return np.asarray((A - self.offset_) @ self.filters_.T, np.float32)


@dictionary("kmeans", about="each place is of one kind", paper="Lloyd 1982; as concepts: Ghorbani et al. 2019 (ACE)")
class KMeans(Dictionary):
    """k-means: a place's code is the length of its centre, for the nearest centre alone; so the codes are a map."""

    kept: ClassVar[tuple[str, ...]] = ("components_", "offset_", "lengths_")

    lengths_: Array

    def _fit(self, A: Array) -> None:
        with task("k-means"):
            centres = _clusters(A, self.count, self.seed, starts=4).cluster_centers_
        self.lengths_ = np.linalg.norm(centres, axis=1).astype(np.float32)
        self._keep(centres)

    def _encode(self, A: Array) -> Array:
        centres = self.components_ * self.lengths_[:, None]
        nearest = ((centres**2).sum(1) - 2 * A @ centres.T).argmin(1)
        codes = np.zeros((len(A), len(centres)), np.float32)
        codes[np.arange(len(A)), nearest] = self.lengths_[nearest]
        return codes


@dictionary("random", about="random directions: what any concepts must beat", paper="the baseline")
class Random(Dictionary):
    """Directions drawn at random, in units of each channel's spread; codes are the least-squares ones.

    No directions chosen without looking at the data can say more about it on average: the baseline beside which every
    number about concepts stands.
    """

    nonnegative: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = ("components_", "offset_", "filters_")

    filters_: Array

    def _fit(self, A: Array) -> None:
        generator = np.random.default_rng(self.seed)
        self._keep(generator.standard_normal((self.count, A.shape[1])) * A.std(0, dtype=np.float64), A.mean(0))
        self.filters_ = np.linalg.pinv(self.components_.astype(np.float64)).T.astype(np.float32)

    def _encode(self, A: Array) -> Array:
        return np.asarray((A - self.offset_) @ self.filters_.T, np.float32)


def _clusters(A: NDArray[Any], count: int, seed: int, starts: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than centres
        return cluster.KMeans(count, n_init=starts, max_iter=100, random_state=seed).fit(A)


def _long_tail(codes: NDArray[Any]) -> NDArray[np.float64]:
    """The sign of each column's skewness: what is rare and strong counts as present."""
    skew = ((codes - codes.mean(0)) ** 3).mean(0)
    return np.where(skew < 0, -1.0, 1.0)
