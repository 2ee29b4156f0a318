"""How good concepts are, before anyone looks at them: what they keep of the layer, and how alike their pictures are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.concepts.dictionary import Array


def monosemanticity(embeddings: ArrayLike, activations: ArrayLike) -> NDArray[np.float64]:
    """How alike the pictures are that a concept responds to: their mean cosine, weighted by how much it responds.

        MS_k = sum_{i<j} r_ik r_jk e_i . e_j / sum_{i<j} r_ik r_jk
             = (||sum_i r_ik e_i||^2 - sum_i r_ik^2) / ((sum_i r_ik)^2 - sum_i r_ik^2)

    Pach et al. 2025 (arXiv:2504.02821, eq. 4-5). The second line is exact and needs no pair: O(N d) a concept.

    Args:
        embeddings: `(N, d)`, one a picture, from any encoder; made unit length here.
        activations: `(N, K)`, negative ones count as none. Responses are stretched to [0, 1] for each concept, as in
            the paper.

    Returns:
        `(K,)` in [-1, 1]; NaN for a concept that responds to fewer than two pictures.
    """
    E = np.asarray(embeddings, np.float64)
    E = E / np.maximum(np.linalg.norm(E, axis=1, keepdims=True), 1e-30)
    r = np.maximum(np.asarray(activations, np.float64), 0)
    low, high = r.min(0), r.max(0)
    r = (r - low) / np.where(high > low, high - low, 1)
    own = (r**2 * (E**2).sum(1, keepdims=True)).sum(0)
    together = ((r.T @ E) ** 2).sum(1)
    pairs = r.sum(0) ** 2 - (r**2).sum(0)
    known = pairs > 1e-9
    return np.where(known, (together - own) / np.where(known, pairs, 1), np.nan)


@dataclass
class Reconstruction:
    """What is kept of activations, added up chunk by chunk.

    Attributes:
        rows: places seen.
        lost: `sum ||a - a^||^2`.
    """

    rows: int = 0
    lost: float = 0.0
    used: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    active: float = 0.0
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    _square: float = 0.0

    def add(self, A: Array, U: Array, decoded: Array) -> None:
        """Some places: activations `(n, C)`, codes `(n, K)`, and what the codes stand for."""
        if not self.rows:
            self.used, self._sum = np.zeros(U.shape[1]), np.zeros(A.shape[1])
        self.rows += len(A)
        self.lost += float(((A - decoded).astype(np.float64) ** 2).sum())
        self.used += (U != 0).sum(0)
        self.active += float((U != 0).sum())
        self._sum += A.sum(0, dtype=np.float64)
        self._square += float((A.astype(np.float64) ** 2).sum())

    @property
    def r2(self) -> float:
        """Share of the activations' variance that the concepts explain."""
        variance = self._square - float((self._sum**2).sum()) / max(self.rows, 1)
        return 1 - self.lost / variance if variance > 0 else float("nan")

    @property
    def relative_error(self) -> float:
        """`||A - A^|| / ||A||`."""
        return float(np.sqrt(self.lost / self._square)) if self._square > 0 else float("nan")

    @property
    def concepts_a_place(self) -> float:
        """How many concepts are there at a place, on average (L0)."""
        return self.active / max(self.rows, 1)

    @property
    def dead(self) -> float:
        """Share of the concepts that are nowhere."""
        return float((self.used == 0).mean())
