"""Whether two dictionaries hold the same concepts, in whatever order: the best pairing, and how alike the pairs are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone

from pellucid.concepts.dictionary import Array, Dictionary
from pellucid.progress import task


def matched(
    a: NDArray[np.floating], b: NDArray[np.floating], *, signed: bool = False
) -> tuple[NDArray[np.intp], Array]:
    """Pair each direction of `a` `(K, C)` with another of `b` `(M, C)`, M >= K, so that cosines add up to the most.

    Args:
        a: directions of any length.
        b: directions of any length.
        signed: whether a direction and its negative are the same concept (PCA, ICA).

    Returns:
        For each of `a` the partner's number in `b` `(K,)`, and the cosine `(K,)` of the two (its size, where signed).
        The Hungarian method (Kuhn 1955): the pairing is the best of all.
    """
    cosine = _unit(a) @ _unit(b).T
    cosine = np.abs(cosine) if signed else cosine
    rows, partners = linear_sum_assignment(-cosine)
    return partners, cosine[rows, partners].astype(np.float32)


def stability(dictionary: Dictionary, A: Array, seeds: Sequence[int] = (1, 2)) -> Array:
    """How well each concept is found again `(K,)`: the mean matched cosine with dictionaries of other seeds and data.

    Each is fitted with another seed to another random half of the activations, because a method without randomness
    would otherwise find the same again for no reason. 1: always the same; concepts of noise reach what
    chance allows, which shrinks with the number of channels.
    """
    found = []
    with task("concepts of other seeds", len(seeds)) as advance:
        for seed in seeds:
            rows = np.random.default_rng(seed).permutation(len(A))[: max(len(A) // 2, dictionary.count, 2)]
            other = clone(dictionary).set_params(seed=dictionary.seed + seed).fit(A[np.sort(rows)])
            found.append(matched(dictionary.components_, other.components_, signed=not dictionary.nonnegative)[1])
            advance(1)
    mean: Array = np.mean(found, axis=0, dtype=np.float32)
    return mean


def _unit(directions: NDArray[Any]) -> NDArray[np.float64]:
    D = directions.astype(np.float64)
    unit: NDArray[np.float64] = D / np.maximum(np.linalg.norm(D, axis=1, keepdims=True), 1e-30)
    return unit
