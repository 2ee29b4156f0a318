"""What several readable models compute alike: probabilities of scores, and columns in standard units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(scores: Array) -> Array:
    """Probabilities `(N, K)` of scores `(N, K)`."""
    odds = np.exp(scores - scores.max(1, keepdims=True))
    probabilities: Array = odds / odds.sum(1, keepdims=True)
    return probabilities


def centre_and_scale(X: Array) -> tuple[Array, Array]:
    """Mean and standard deviation `(d,)` of columns; a column that does not vary has the deviation 1."""
    mean, scale = X.mean(0), X.std(0)
    return mean, np.where(scale > 1e-12 * np.maximum(1, np.abs(mean)), scale, 1.0)
