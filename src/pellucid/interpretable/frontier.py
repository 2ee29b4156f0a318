"""How complex should it be? Models from simple to complex, measured on rows they have not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable
from pellucid.interpretable.numerics import Array
from pellucid.progress import task

_FOLDS = 4

M = TypeVar("M", bound=Readable)


@dataclass(frozen=True)
class Point:
    """A model on the front.

    Attributes:
        complexity: how much there is to read.
        agreement: share of unseen rows on which its top class is the teacher's, mean over folds.
        error: standard error of that.
        chosen: whether it was taken.
    """

    complexity: float
    agreement: float
    error: float
    chosen: bool = False


def choose(model: M, X: Array, answers: Array, seed: int = 0) -> tuple[M, list[Point]]:
    """Of `model` and simpler ones of its kind, the simplest whose agreement is within a standard error of the best.

    (Breiman et al. 1984, section 3.4.3, the one-standard-error rule.) Agreement is cross-validated; the model taken is
    the one fitted to all rows.

    Args:
        model: fitted to all rows; its settings are the limit.
        X, answers: those rows `(N, d)` and soft answers `(N, K)`.
        seed: of the folds.

    Raises:
        DataError: a class with fewer rows than folds.
    """
    models = model.simpler(X, answers)
    if len(models) == 1:
        return models[0], []
    folds = splits(answers.argmax(1), seed)
    held = [np.zeros(len(X)) for _ in models]
    with task("choosing a complexity", len(folds)) as advance:
        for train, test in folds:
            twins = model.refitted(models, X[train], answers[train])
            for twin, right in zip(twins, held, strict=True):
                right[test] = twin._scores(X[test]).argmax(1) == answers[test].argmax(1)
            advance(1)
    means = np.array([right.mean() for right in held])
    errors = np.array([right.std() / np.sqrt(len(right)) for right in held])
    best = int(means.argmax())
    taken = int(np.flatnonzero(means >= means[best] - errors[best])[0])
    points = [Point(m.complexity_, float(means[i]), float(errors[i]), i == taken) for i, m in enumerate(models)]
    return models[taken], points


def splits(codes: NDArray[np.int64], seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Stratified folds (train, test).

    Raises:
        DataError: a class with fewer rows than folds.
    """
    counts = np.bincount(codes)
    least = int(counts[counts > 0].min())
    folds = min(_FOLDS, least)
    if folds < 2:
        raise DataError(
            f"A class has only {least} training picture, too few to choose a complexity by cross-validation: give "
            "more pictures, or fix the complexity (--depth, --features)."
        )
    chosen = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return list(chosen.split(np.zeros((len(codes), 1)), codes))
