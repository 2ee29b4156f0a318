"""The elastic-net path of a multinomial logistic model, on soft labels. Numerics only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.interpretable.numerics import Array, softmax

_MOST, _TOLERANCE = 1000, 1e-4  # steps, and movement relative to the largest weight


@dataclass(frozen=True)
class Fit:
    """One model of the path.

    Attributes:
        penalty: its price of the weights.
        weights: `(d, K)`.
        intercept: `(K,)`.
    """

    penalty: float
    weights: Array
    intercept: Array


def largest_penalty(X: Array, P: Array, l1_ratio: float) -> float:
    """The least penalty at which all weights are zero (Friedman, Hastie & Tibshirani 2010, section 2.5)."""
    return float(np.abs(X.T @ (P - P.mean(0))).max()) / (len(X) * max(l1_ratio, 1e-3))


def path(
    X: Array, P: Array, penalties: Sequence[float], *, l1_ratio: float = 0.99, positive: bool = False
) -> Iterator[Fit]:
    """Minimise `mean cross-entropy + penalty (l1_ratio |W|_1 + (1 - l1_ratio) / 2 |W|^2)` for falling penalties.

    Accelerated proximal gradient (Beck & Teboulle 2009, FISTA, with restarts) on the columns that can matter: those the
    strong rule keeps (Tibshirani et al. 2012, section 5) and those that break the optimality conditions without them.
    Each fit starts from the one before.

    Args:
        X: columns `(N, d)`, standardised.
        P: soft labels `(N, K)`, rows summing to one.
        penalties: from large to small.
        l1_ratio: 1 is the lasso, 0 ridge.
        positive: no weight below zero.
    """
    n, d = X.shape
    W, b = np.zeros((d, P.shape[1])), np.log(np.maximum(P.mean(0), 1e-12))
    before = max(largest_penalty(X, P, l1_ratio), max(penalties, default=0.0))
    for penalty in penalties:
        slope = X.T @ (softmax(X @ W + b) - P) / n
        active = (np.abs(slope).max(1) >= l1_ratio * (2 * penalty - before)) | W.any(1)
        while True:
            W[active], b = _solve(X[:, active], P, W[active], b, penalty, l1_ratio, positive)
            slope = X.T @ (softmax(X @ W + b) - P) / n
            pull = -slope if positive else np.abs(slope)
            broken = ~active & (pull.max(1) > l1_ratio * penalty * (1 + 1e-3) + 1e-12)
            if not broken.any():
                break
            active |= broken
        before = penalty
        yield Fit(penalty, W.copy(), b.copy())


def _solve(
    X: Array, P: Array, W: Array, b: Array, penalty: float, l1_ratio: float, positive: bool
) -> tuple[Array, Array]:
    n = len(X)
    A = np.hstack([X, np.ones((n, 1))])
    V = np.vstack([W, b])
    step = 2 * n / max(_largest_eigenvalue(A), 1e-12)  # softmax's curvature is at most one half
    shrink, scale = step * penalty * l1_ratio, 1 / (1 + step * penalty * (1 - l1_ratio))
    ahead, momentum = V, 1.0
    for _ in range(_MOST):
        new = ahead - step * (A.T @ (softmax(A @ ahead) - P) / n)
        weights = new[:-1]
        new[:-1] = (np.maximum(weights - shrink, 0) if positive else _soft(weights, shrink)) * scale
        if float(((ahead - new) * (new - V)).sum()) > 0:
            momentum = 1.0  # it climbs: start over (O'Donoghue & Candes 2015)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead, moved = new + (momentum - 1) / following * (new - V), float(np.abs(new - V).max())
        V, momentum = new, following
        if moved <= _TOLERANCE * max(1.0, float(np.abs(V).max())):
            break
    return V[:-1], V[-1]


def _soft(values: Array, by: float) -> Array:
    shrunk: Array = np.sign(values) * np.maximum(np.abs(values) - by, 0)
    return shrunk


def _largest_eigenvalue(A: Array) -> float:
    """Of `A^T A`, exactly: on whichever side is smaller."""
    gram = A.T @ A if A.shape[1] <= A.shape[0] else A @ A.T
    return float(np.linalg.eigvalsh(gram)[-1])
