"""Additive models: one curve a column; the curves' heights add up to the score."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable, Reason, number
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.numerics import Array

_WIDEST = 50  # columns: more are neither read nor fitted in reasonable memory


class Additive(Readable):
    """`score_k = b_k + sum_j f_jk(x_j)`, each `f` a step function (explainable boosting, Lou et al. 2012, Nori 2019).

    Fitted by the package `interpret-core` without pairs of columns; what it learned is kept as plain steps. Of more
    than `features` columns, those that a sparse linear model would take are used.

    Args:
        features: most columns to use.
        bins: steps of a curve.
        seed: of the boosting.

    Raises:
        DataError: the package is not installed.
    """

    kind: ClassVar[str] = "additive"
    unit: ClassVar[str] = "curves"

    def __init__(self, features: int = 12, bins: int = 32, seed: int = 0) -> None:
        self.features = features
        self.bins = bins
        self.seed = seed

    def _learn(self, X: Array, answers: Array) -> None:
        try:
            from interpret.glassbox import ExplainableBoostingClassifier
        except ImportError as error:
            raise DataError(
                "Additive models need the package interpret-core: pip install 'pellucid[gam]', or take --into linear."
            ) from error
        if not 1 <= self.features <= _WIDEST:
            raise DataError(f"An additive model uses 1 to {_WIDEST} columns, not {self.features}.")
        codes = answers.argmax(1)
        present = np.unique(codes)
        if len(present) < 2:
            raise DataError("There is only one class in the answers, so there is nothing to tell apart: add pictures.")
        self.columns_ = self._chosen(X, answers)
        boosting = ExplainableBoostingClassifier(
            interactions=0, max_bins=self.bins, outer_bags=4, n_jobs=1, random_state=self.seed
        ).fit(X[:, self.columns_], codes)
        classes = answers.shape[1]
        self.intercept_ = np.full(classes, -30.0)  # a class that no row has
        self.intercept_[present] = _by_class(np.asarray(boosting.intercept_, np.float64).reshape(1, -1))[0]
        self.cuts_: list[Array] = []
        self.steps_: list[Array] = []
        for bins, heights in zip(boosting.bins_, boosting.term_scores_, strict=True):
            steps = np.zeros((len(bins[0]) + 1, classes))
            body = np.asarray(heights, np.float64)[1:-1]  # without the bins of missing and of unknown values
            steps[:, present] = _by_class(body if body.ndim == 2 else body[:, None])
            self.cuts_.append(np.asarray(bins[0], np.float64))
            self.steps_.append(steps)

    def _chosen(self, X: Array, answers: Array) -> NDArray[np.int64]:
        """The columns of the longest sparse linear model that uses no more than allowed."""
        varying = np.flatnonzero(X.std(0) > 0)
        if len(varying) <= self.features:
            return varying if len(varying) else np.arange(1)
        weights = SparseLinear().longest(X[:, varying], answers, self.features)
        strongest = np.argsort(-np.abs(weights).sum(1), kind="stable")[: self.features]
        return np.sort(varying[strongest])

    def curve(self, term: int) -> tuple[Array, Array]:
        """The thresholds `(s - 1,)` of a term and its heights `(s, K)` between them."""
        return self.cuts_[term], self.steps_[term]

    def parts(self, X: Array) -> Array:
        """What each term adds, `(N, terms, K)`."""
        return np.stack(
            [
                steps[np.searchsorted(cuts, X[:, j], side="right")]
                for j, cuts, steps in zip(self.columns_, self.cuts_, self.steps_, strict=True)
            ],
            axis=1,
        )

    def _scores(self, X: Array) -> Array:
        scores: Array = self.parts(X).sum(1) + self.intercept_
        return scores

    @property
    def complexity_(self) -> int:
        """Curves."""
        return len(self.columns_)

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """1, 2, 4, 8 ... columns."""
        counts = sorted({c for c in (1, 2, 4, 8, 16, 32) if c < self.features} | {self.features})
        models = [type(self)(c, self.bins, self.seed).learned(X, answers, self) for c in counts]
        return list({m.complexity_: m for m in models}.values())

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """Each curve's height at the row; with the intercept they add up to the score."""
        row, k = self.row(x), self.code(x, label)
        parts = self.parts(row)[0, :, k]
        return [
            Reason(
                f"{self.names_[self.columns_[t]]} = {number(row[0, self.columns_[t]])}",
                int(self.columns_[t]),
                float(row[0, self.columns_[t]]),
                float(parts[t]),
            )
            for t in np.argsort(-np.abs(parts), kind="stable")
        ]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Columns, intercepts, thresholds and heights."""
        found: dict[str, NDArray[Any]] = {"columns": self.columns_, "intercept": self.intercept_}
        for t, (cuts, steps) in enumerate(zip(self.cuts_, self.steps_, strict=True)):
            found |= {f"cuts.{t}": cuts, f"steps.{t}": steps}
        return found

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.columns_, self.intercept_ = arrays["columns"], arrays["intercept"]
        self.cuts_ = [arrays[f"cuts.{t}"] for t in range(len(self.columns_))]
        self.steps_ = [arrays[f"steps.{t}"] for t in range(len(self.columns_))]

    def __str__(self) -> str:
        lines = []
        for t, j in enumerate(self.columns_):
            spread = self.steps_[t].max(0) - self.steps_[t].min(0)
            k = int(spread.argmax())
            lines.append(f"{self.names_[j]}: moves {self.classes_[k]} by up to {number(spread[k])}")
        return "\n".join(lines)


def _by_class(scores: Array) -> Array:
    """One column of log-odds as two, so that their softmax is the same probability."""
    if scores.shape[1] > 1:
        return scores
    pair: Array = np.hstack([-scores / 2, scores / 2])
    return pair
