"""Localisation: does the map lie where the truth does? Over the original's pixels that the model saw.

An empty mask is counted and never hit: whatever asks for a share inside of it is 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy

from pellucid.evaluation.banks.maps import MapAndTruth, TruthMask
from pellucid.evaluation.metrics.registry import metric
from pellucid.numerics.ranks import mid_ranks

TRUTH = TruthMask()
TOLERANCE = 15  # pixels, of the pointing game
_PAIRS = 4096  # up to which a tree of the mask's places takes longer to grow
_CELLS = 8  # along an axis, between which relevance is carried

_MODEL = "Says where the object is, not what the model uses: a model that looks elsewhere is rightly told so."


def _seen(found: MapAndTruth) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    seen = np.isfinite(found.heat)
    return found.heat[seen], found.truth[seen]


@metric("pointing-game", "localisation", "higher", TRUTH, paper="Zhang et al. 2018, doi:10.1007/s11263-017-1059-x",
        traps="With the paper's tolerance of 15 pixels: on small pictures that is much.", usual=True)  # fmt: skip
def pointing_game(found: MapAndTruth) -> float:
    """1 where the greatest value lies in the mask or at most 15 pixels away; of equal greatest ones, their share."""
    if found.empty:
        return 0.0
    heat = np.where(np.isfinite(found.heat), found.heat, -np.inf)
    peaks = np.argwhere((heat == heat.max()).reshape(found.shape))
    distance = _nearest(peaks, np.argwhere(found.truth.reshape(found.shape)))
    return float((distance <= TOLERANCE).mean())


def _nearest(points: NDArray[np.intp], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """From each point the distance to the nearest place; few pairs are compared one by one."""
    if len(points) * len(places) <= _PAIRS:
        return np.asarray(np.sqrt(np.square(points[:, None] - places).sum(2).min(1)), np.float64)
    from scipy.spatial import cKDTree

    nearest: NDArray[np.float64] = cKDTree(places).query(points)[0]
    return nearest


@metric("strict-pointing-game", "localisation", "higher", TRUTH, traps=_MODEL,
        paper="Zhang et al. 2018, doi:10.1007/s11263-017-1059-x")  # fmt: skip
def strict_pointing_game(found: MapAndTruth) -> float:
    """1 where the greatest value lies in the mask; of several equal greatest ones, the share of them that do."""
    heat, truth = _seen(found)
    return float(truth[heat == heat.max()].mean()) if truth.any() else 0.0


@metric("relevance-mass", "localisation", "higher", TRUTH, usual=True, traps=_MODEL,
        paper="Arras et al. 2022, arXiv:2003.07258; Wang et al. 2020 (energy-based pointing game)")  # fmt: skip
def relevance_mass(found: MapAndTruth) -> float:
    """Share of the positive relevance that lies in the mask."""
    heat, truth = _seen(found)
    positive = heat.clip(0)
    return float(positive[truth].sum() / positive.sum()) if positive.sum() > 0 else (0.0 if found.empty else math.nan)


@metric(
    "mass-over-share", "localisation", "higher", TRUTH, paper="Kohlbrenner et al. 2020, arXiv:1910.09840", traps=_MODEL
)
def mass_over_share(found: MapAndTruth) -> float:
    """Share of the positive relevance in the mask, over the mask's share of the pixels: 1 for a flat map."""
    _, truth = _seen(found)
    return relevance_mass(found) / float(truth.mean()) if truth.any() else 0.0


@metric("relevance-rank", "localisation", "higher", TRUTH, paper="Arras et al. 2022, arXiv:2003.07258", traps=_MODEL,
        usual=True)  # fmt: skip
def relevance_rank(found: MapAndTruth) -> float:
    """Share of the mask's size in greatest values that lies in the mask; equal values count by their share."""
    return _top(found, int(_seen(found)[1].sum()))


@metric("top-k", "localisation", "higher", TRUTH, paper="Theiner et al. 2021, arXiv:2104.14995", traps=_MODEL)
def top_k(found: MapAndTruth) -> float:
    """Share of the hundredth of greatest values that lies in the mask."""
    return _top(found, max(1, len(_seen(found)[0]) // 100))


@metric(
    "concept-influence", "localisation", "higher", TRUTH, paper="Theiner et al. 2021, arXiv:2104.14995", traps=_MODEL
)
def concept_influence(found: MapAndTruth) -> float:
    """Share of the hundredth of greatest values in the mask, over the mask's share of the pixels: 1 by chance."""
    _, truth = _seen(found)
    return top_k(found) / float(truth.mean()) if truth.any() else 0.0


def top_share(found: MapAndTruth, k: int) -> float:
    """Share of the k greatest values that lies in the mask; equal values at the edge count by their share."""
    return _top(found, k)


def _top(found: MapAndTruth, k: int) -> float:
    heat, truth = _seen(found)
    if not truth.any() or not k:
        return 0.0
    edge = np.partition(heat, len(heat) - k)[len(heat) - k]
    above, level = heat > edge, heat == edge
    inside = truth[above].sum() + (k - above.sum()) * truth[level].mean()
    return float(inside / k)


@metric("mask-auc", "localisation", "higher", TRUTH, traps=_MODEL, usual=True,
        paper="Fawcett 2006, doi:10.1016/j.patrec.2005.10.010")  # fmt: skip
def mask_auc(found: MapAndTruth) -> float:
    """The chance that a pixel of the mask has a greater value than one outside (area under the ROC curve)."""
    heat, truth = _seen(found)
    inside, outside = int(truth.sum()), int((~truth).sum())
    if not inside:
        return 0.0
    if not outside:
        return math.nan
    ranks = mid_ranks(from_numpy(heat)).numpy()
    return float((ranks[truth].sum() - inside * inside / 2) / (inside * outside))


@metric("mask-ap", "localisation", "higher", TRUTH, paper="average precision, as scikit-learn defines it", traps=_MODEL)
def mask_ap(found: MapAndTruth) -> float:
    """Average precision of the map as a detector of the mask's pixels."""
    from sklearn.metrics import average_precision_score

    heat, truth = _seen(found)
    return float(average_precision_score(truth, heat)) if truth.any() else 0.0


@metric("mass-nearness", "localisation", "higher", TRUTH, paper="Clark et al. 2024, XAI-TRIS, arXiv:2306.12816",
        traps=_MODEL)  # fmt: skip
def mass_nearness(found: MapAndTruth) -> float:
    """1 less how far absolute relevance is carried to lie evenly in the mask (earth mover's), over the diagonal."""
    if found.empty:
        return 0.0
    heat = np.nan_to_num(np.abs(found.heat), posinf=0.0, neginf=0.0)
    have, want = (_coarse(v.reshape(found.shape)) for v in (heat, found.truth.astype(float)))
    return 1 - _carried(have, want) if have.sum() > 0 else math.nan


def _coarse(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Summed over at most `_CELLS` cells along each axis."""
    for axis, length in enumerate(values.shape):
        edges = np.linspace(0, length, min(length, _CELLS) + 1).round().astype(int)
        values = np.add.reduceat(values, edges[:-1], axis)
    return values


def _carried(have: NDArray[np.float64], want: NDArray[np.float64]) -> float:
    """The least mean distance, by linear programming, over the diagonal."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, identity, kron, vstack

    places = np.indices(have.shape).reshape(have.ndim, -1).T / np.array(have.shape)
    sources, goals = np.flatnonzero(have.ravel() > 0), np.flatnonzero(want.ravel() > 0)
    away = np.linalg.norm(places[sources][:, None] - places[goals], axis=2) / math.sqrt(have.ndim)
    a, b = have.ravel()[sources] / have.sum(), want.ravel()[goals] / want.sum()
    leaving = kron(identity(len(a)), csr_matrix(np.ones((1, len(b)))))
    coming = kron(csr_matrix(np.ones((1, len(a)))), identity(len(b)))
    solved = linprog(away.ravel(), A_eq=vstack([leaving, coming]).tocsr()[:-1], b_eq=np.concatenate([a, b])[:-1])
    return float(solved.fun)


@metric("mask-iou", "localisation", "higher", TRUTH, paper="Choe et al. 2020, arXiv:2001.07437", traps=_MODEL)
def mask_iou(found: MapAndTruth) -> float:
    """Largest overlap (intersection over union) of the mask with what lies above any threshold."""
    heat, truth = _seen(found)
    if not truth.any():
        return 0.0
    order = np.argsort(-heat, kind="stable")
    last = np.append(heat[order][1:] != heat[order][:-1], True)  # equal values pass a threshold together
    hits = truth[order].cumsum()[last]
    shown = (np.arange(len(order)) + 1)[last]
    return float((hits / (truth.sum() + shown - hits)).max())
