"""Heat maps of one class that look alike (SpRAy: Lapuschkin et al. 2019), and the place that a group has in common."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.ndimage import binary_dilation, label
from sklearn.cluster import KMeans

from pellucid.numerics.directions import directions

_MOST, _NEIGHBOURS = 5, 8  # groups; maps that each is joined to
_LIMIT = 600  # maps that are compared with each other
_MASS, _AREA = 0.5, 0.25  # share of the evidence that a common place holds, on at most this share of the grid

Maps = NDArray[np.float32]


def shares(maps: Maps) -> NDArray[np.float64]:
    """Maps `(n, h, w)` as shares of their evidence for the class, `(n, h * w)`; all cells alike where there is none."""
    flat = np.clip(maps.reshape(len(maps), -1).astype(np.float64), 0, None)
    total = flat.sum(1, keepdims=True)
    return np.where(total > 0, flat / np.where(total > 0, total, 1), 1 / flat.shape[1])


def clusters(maps: Maps, seed: int = 0) -> list[NDArray[np.int64]]:
    """Groups of maps, the largest first: spectral, as many as the largest gap among the first eigenvalues says.

    Joined are each map and those nearest to it; eigenvectors of the normalised Laplacian, then k-means (Ng et al.
    2001). All maps together come first, for what they have in common.
    """
    count = len(maps)
    whole = [np.arange(count)]
    if count < 3 * _NEIGHBOURS:
        return whole
    some = np.arange(count) if count <= _LIMIT else np.random.default_rng(seed).choice(count, _LIMIT, replace=False)
    rows = np.sqrt(shares(maps[some]))  # Hellinger's distance
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    near = np.argsort(distance, 1, kind="stable")[:, 1 : _NEIGHBOURS + 1]
    joined = np.zeros_like(distance)
    joined[np.repeat(np.arange(len(some)), _NEIGHBOURS), near.ravel()] = 1
    joined = np.maximum(joined, joined.T)
    degree = 1 / np.sqrt(joined.sum(1))
    values, vectors = eigh(np.eye(len(some)) - degree[:, None] * joined * degree[None], subset_by_index=[0, _MOST])
    k = int(np.argmax(np.diff(values))) + 1
    if k == 1:
        return whole
    found = KMeans(k, n_init=5, random_state=seed).fit_predict(directions(vectors[:, :k]))
    groups = sorted((some[found == g] for g in range(k)), key=len, reverse=True)
    return whole + groups


def common_cells(maps: Maps) -> Iterator[NDArray[np.bool_]]:
    """The smallest places `(h, w)` that hold half of the mean evidence, one by one, where they are small; then all."""
    mean = shares(maps).mean(0)
    order = np.argsort(-mean, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(mean[order]), _MASS)) + 1]
    if len(kept) <= _AREA * len(mean):
        place = np.zeros(len(mean), bool)
        place[kept] = True
        parts, count = label(place.reshape(maps.shape[1:]), np.ones((3, 3)))
        for k in range(1, count + 1):
            yield binary_dilation(parts == k, np.ones((3, 3)))
    yield np.ones(maps.shape[1:], bool)
