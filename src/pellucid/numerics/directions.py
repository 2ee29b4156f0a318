"""Directions of vectors."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", bound=np.floating)


def directions(rows: NDArray[Real]) -> NDArray[Real]:
    """Rows `(N, D)` at length 1, as precise as they came; one of zeros stays as it is."""
    found: NDArray[Real] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
