"""Concept activation vectors: the direction of a layer that example pictures of a concept share.

Two estimates of it from pictures with the concept (`a_i`, label 1) and without (label 0):

    pattern    v = cov(a, label) / var(label) = mean of those with - mean of those without
    logistic   v = the weights of a logistic regression on standardised activations

The second separates best, and for that also turns away from whatever disturbs; the first is what the concept looks like
in the activations, and varies far less from sample to sample (Haufe et al. 2014; Pahde et al. 2022, arXiv:2202.03482).
The first is the default.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError, MethodError

Kind = Literal["pattern", "logistic"]

Rows = NDArray[np.floating[Any]]


def concept_vector(concept: Rows, other: Rows, kind: Kind = "pattern") -> NDArray[np.float64]:
    """The direction `(C,)` from `other` `(m, C)` to `concept` `(n, C)`, as long as a step from one mean to the other.

    Raises:
        DataError: fewer than two pictures on a side.
        MethodError: an unknown kind.
    """
    if min(len(concept), len(other)) < 2:
        raise DataError(
            f"A concept needs at least 2 pictures with it and 2 without, not {len(concept)} and {len(other)}: give "
            "more."
        )
    P, R = np.asarray(concept, np.float64), np.asarray(other, np.float64)
    step: NDArray[np.float64] = P.mean(0) - R.mean(0)
    if kind == "pattern":
        return step
    if kind != "logistic":
        raise MethodError(f"A concept vector is by pattern or logistic, not {kind!r}.")
    weights = _weights(np.concatenate([P, R]), len(P))
    length = float(np.linalg.norm(weights))
    return weights / length * np.linalg.norm(step) if length > 0 else np.zeros_like(step)


def separation(concept: Rows, other: Rows, kind: Kind = "pattern", folds: int = 5, seed: int = 0) -> float:
    """How well the vector tells pictures with the concept from those without: held-out area under the ROC curve.

    0.5 is chance. High is no proof that the model uses the concept; low means there is no such direction here.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    X = np.concatenate([concept, other]).astype(np.float64)
    y = np.repeat([1, 0], [len(concept), len(other)])
    folds = min(folds, len(concept) // 2, len(other) // 2)
    if folds < 2:
        return float("nan")
    areas = []
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, y):
        v = concept_vector(X[train][y[train] == 1], X[train][y[train] == 0], kind)
        areas.append(roc_auc_score(y[test], X[test] @ v))
    return float(np.mean(areas))


def _weights(X: NDArray[np.float64], positives: int) -> NDArray[np.float64]:
    """Weights of an L2 logistic regression, back in the activations' own units."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    spread = X.std(0)
    spread[spread < 1e-12] = np.inf  # a channel that never varies says nothing
    y = np.arange(len(X)) < positives
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200)
        model.fit((X - X.mean(0)) / spread, y)
    found: NDArray[np.float64] = model.coef_[0] / spread
    return found
