"""The error-aware mixture: groups of samples that are alike, are of like classes, and are answered alike.

Source: Eyuboglu et al. 2022, "Domino" (arXiv:2203.14960), section 5: given its group, a sample's row, truth and answer
are drawn independently of each other, and what is said of truth and answer counts `WEIGHT` times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

WEIGHT, GROUPS, AXES = (
    10.0,
    25,
    128,
)  # of truth and answer in the likelihood (gamma); groups; principal axes
_ROUNDS, _TOLERANCE = 100, 1e-3
_LEAST_VARIANCE, _PRIOR = 1e-3, 1e-6  # of a row whose columns have variance 1; of each class in each group

Floats = NDArray[np.float64]


def principal(rows: NDArray[np.floating], axes: int = AXES) -> Floats:
    """Rows `(N, D)` along their first principal axes, `(N, min(axes, D))`, the largest variance 1."""
    centred = rows.astype(np.float64) - rows.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    found = centred @ vectors[:, ::-1][:, :axes]
    spread = float(found.std(0).max(initial=0.0))
    scaled: Floats = found / spread if spread > 0 else found
    return scaled


@dataclass(frozen=True, eq=False)
class ErrorMixture:
    """G groups, fitted by expectation and maximisation.

    Attributes:
        weights: `(G,)`, share of each group.
        means, variances: `(G, D)`, of the rows.
        truths, answers: `(G, K)`, how often each class is true, and is answered.
    """

    weights: Floats
    means: Floats
    variances: Floats
    truths: Floats
    answers: Floats

    @classmethod
    def fitted(
        cls, rows: Floats, truth: NDArray[np.int64], said: Floats, groups: int = GROUPS, weight: float = WEIGHT,
        seed: int = 0,
    ) -> ErrorMixture:  # fmt: skip
        """The mixture of samples: rows `(N, D)`, true classes `(N,)`, answers as distributions `(N, K)`.

        It starts with the cells of the confusion matrix, shared out among the groups as they are filled: errors begin
        apart from right answers, as in the paper.
        """
        true = np.eye(said.shape[1])[truth]
        mixed = cls._of(rows, true, said, _first(truth, said.argmax(1), groups, seed))
        before = -np.inf
        for _ in range(_ROUNDS):
            joint = mixed.joint(rows, truth, said, weight)
            total = logsumexp(joint, 1, keepdims=True)
            now = float(total.mean())
            if abs(now - before) < _TOLERANCE:
                break
            before = now
            mixed = cls._of(rows, true, said, np.exp(joint - total))
        return mixed

    @classmethod
    def _of(cls, rows: Floats, true: Floats, said: Floats, belongs: Floats) -> ErrorMixture:
        """The groups that samples belong to with these shares, `(N, G)`."""
        size = belongs.sum(0) + 1e-9
        means = belongs.T @ rows / size[:, None]
        variances = belongs.T @ rows**2 / size[:, None] - means**2 + _LEAST_VARIANCE
        classes = [belongs.T @ of + _PRIOR for of in (true, said)]
        truths, answers = (c / c.sum(1, keepdims=True) for c in classes)
        return cls(size / size.sum(), means, np.maximum(variances, _LEAST_VARIANCE), truths, answers)

    def near(self, rows: Floats, truth: NDArray[np.int64], weight: float = WEIGHT) -> Floats:
        """Log-likelihood of each sample's row and true class with each group, `(N, G)`; of its answer nothing."""
        precise = 1 / self.variances
        distance = rows**2 @ precise.T - 2 * rows @ (self.means * precise).T + (self.means**2 * precise).sum(1)
        near = -0.5 * (distance + np.log(2 * np.pi * self.variances).sum(1))
        found: Floats = np.log(self.weights) + near + weight * np.log(self.truths).T[truth]
        return found

    def joint(self, rows: Floats, truth: NDArray[np.int64], said: Floats, weight: float = WEIGHT) -> Floats:
        """The same with the answer, a distribution over the classes `(N, K)`."""
        found: Floats = self.near(rows, truth, weight) + weight * said @ np.log(self.answers).T
        return found

    def belongs(self, rows: Floats, truth: NDArray[np.int64], said: Floats | None = None) -> Floats:
        """The share of each sample that belongs to each group, `(N, G)`; without `said` whatever was answered."""
        joint = self.near(rows, truth) if said is None else self.joint(rows, truth, said)
        found: Floats = np.exp(joint - logsumexp(joint, 1, keepdims=True))
        return found

    @property
    def faults(self) -> Floats:
        """By how much truth and answer of each group differ, `(G,)`: the largest difference of a class's shares."""
        found: Floats = np.abs(self.truths - self.answers).max(1)
        return found


def _first(truth: NDArray[np.int64], answer: NDArray[np.int64], groups: int, seed: int) -> Floats:
    """Who belongs where at first, `(N, groups)`: a cell of the confusion matrix each, the fullest cut at random."""
    rng = np.random.default_rng(seed)
    cells, inside = np.unique(truth * (int(max(truth.max(), answer.max())) + 1) + answer, return_inverse=True)
    parts = [np.flatnonzero(inside == c) for c in range(len(cells))]
    parts.sort(key=len, reverse=True)
    parts = parts[:groups]
    while len(parts) < groups and len(parts[0]) > 1:
        rng.shuffle(parts[0])
        parts += [parts[0][: len(parts[0]) // 2], parts[0][len(parts[0]) // 2 :]]
        parts = sorted(parts[1:], key=len, reverse=True)
    found = np.full((len(truth), len(parts)), 1e-3)
    for g, part in enumerate(parts):
        found[part, g] += 1
    shares: Floats = found / found.sum(1, keepdims=True)
    return shares
