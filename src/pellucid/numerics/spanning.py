"""The shortest tree that joins points, and the hull around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spanning_length(points: NDArray[np.float64]) -> tuple[float, float]:
    """Length of the Euclidean minimum spanning tree of different points `(N, d)`, N >= 2, and their hull's volume.

    The tree's edges are edges of a Delaunay triangulation, so no matrix of all distances is made. The volume is 0 where
    the points lie in fewer than d dimensions.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial import ConvexHull, Delaunay

    centred = points - points.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    if rank == 1:
        along = centred @ axes[0]
        return float(along.max() - along.min()), 0.0
    inside = points if rank == points.shape[1] else centred @ axes[:rank].T
    corners = Delaunay(inside).simplices
    pairs = np.concatenate([corners[:, [a, b]] for a in range(rank + 1) for b in range(a)])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    away = np.linalg.norm(inside[pairs[:, 0]] - inside[pairs[:, 1]], axis=1)
    graph = coo_matrix((away, (pairs[:, 0], pairs[:, 1])), shape=(len(points), len(points)))
    volume = float(ConvexHull(inside).volume) if rank == points.shape[1] else 0.0
    return float(minimum_spanning_tree(graph.tocsr()).sum()), volume
