"""Sparse linear models: a few weights a class, which add up to the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable, Reason, number
from pellucid.interpretable.elastic_net import Fit, largest_penalty, path
from pellucid.interpretable.numerics import Array, centre_and_scale

_POINTS, _SPAN = 16, 1e-2  # penalties of the path, and the last one relative to the first


class SparseLinear(Readable):
    """`score_k = b_k + sum_j w_jk (x_j - mean_j) / sd_j`, most `w_jk` zero (elastic net; Wong et al. 2021, section 3).

    Since the columns are standardised, weights can be compared. Rows of average columns get the scores `b`.

    Args:
        features: most columns that a class may use, on average over classes; None leaves that to `penalty`.
        penalty: price of the weights, as a share of the least price at which all are zero.
        l1_ratio: how much of the price is on absolute values (which makes zeros), the rest on squares.
        positive: only weights for a class, none against: presence counts, absence does not.
    """

    kind: ClassVar[str] = "linear"
    unit: ClassVar[str] = "weights"

    def __init__(
        self,
        features: int | None = None,
        penalty: float = 0.03,
        l1_ratio: float = 0.99,
        positive: bool = False,
    ) -> None:
        self.features = features
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.positive = positive

    def _learn(self, X: Array, answers: Array) -> None:
        if self.features is not None and self.features < 1:
            raise DataError(f"A model of {self.features} features says nothing: give 1 or more.")
        found = None
        shares = np.geomspace(1, _SPAN, _POINTS) if self.features is not None else self._shares()
        for fit in self._path(X, answers, shares):
            if self.features is not None and found is not None and _used(fit) > self.features:
                break
            found = fit
        assert found is not None
        self.weights_, self.intercept_ = found.weights, found.intercept

    def _shares(self) -> Array:
        """The way down to this penalty, which is quicker than the leap."""
        steps = max(2, 1 + round(_POINTS * np.log(self.penalty) / np.log(_SPAN))) if 0 < self.penalty < 1 else 1
        shares: Array = np.geomspace(1, max(self.penalty, 1e-6), steps) if steps > 1 else np.array([1.0])
        return shares

    def _path(self, X: Array, answers: Array, shares: Array) -> list[Fit]:
        self.mean_, self.scale_ = centre_and_scale(X)
        Z = (X - self.mean_) / self.scale_
        top = largest_penalty(Z, answers, self.l1_ratio)
        return list(path(Z, answers, list(shares * top), l1_ratio=self.l1_ratio, positive=self.positive))

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """The path from the first weights on, up to this model's own limit."""
        models: dict[int, Self] = {}
        shares = np.geomspace(1, _SPAN, _POINTS)
        for model in self._along(X, answers, shares):
            used = model.complexity_ / len(self.classes_)
            if self.features is not None and used > self.features and models:
                break
            if model.complexity_:
                models[model.complexity_] = model
        return list(models.values())

    def refitted(self, models: Sequence[Self], X: Array, answers: Array) -> list[Self]:
        """All along one path, which is much quicker than a path each."""
        return self._along(X, answers, np.array([m.penalty for m in models]))

    def _along(self, X: Array, answers: Array, shares: Array) -> list[Self]:
        """A model for each penalty of a path; their own limit is that penalty."""
        models = []
        for share, fit in zip(shares, self._path(X, answers, shares), strict=True):
            model = type(self)(None, float(share), self.l1_ratio, self.positive)
            model.classes_, model.names_, model.n_features_in_ = self.classes_, self.names_, self.n_features_in_
            model.mean_, model.scale_ = self.mean_, self.scale_
            model.weights_, model.intercept_ = fit.weights, fit.intercept
            models.append(model)
        return models

    def longest(self, X: Array, answers: Array, columns: int) -> Array:
        """The weights `(d, K)` of the first model on the path that uses that many columns, or of the last one."""
        fits = self._path(X, answers, np.geomspace(1, _SPAN, _POINTS))
        enough = (fit.weights for fit in fits if fit.weights.any(1).sum() >= columns)
        return next(enough, fits[-1].weights)

    def _scores(self, X: Array) -> Array:
        scores: Array = self.standardised(X) @ self.weights_ + self.intercept_
        return scores

    def standardised(self, X: Array) -> Array:
        """Columns in standard deviations from their mean."""
        Z: Array = (X - self.mean_) / self.scale_
        return Z

    @property
    def complexity_(self) -> int:
        """Weights that are not zero."""
        return int(np.count_nonzero(self.weights_))

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """Each used column's `w (x - mean) / sd`; with the intercept they add up to the score."""
        row, k = self.row(x), self.code(x, label)
        parts = self.standardised(row)[0] * self.weights_[:, k]
        order = [j for j in np.argsort(-np.abs(parts), kind="stable") if self.weights_[j, k] != 0]
        return [
            Reason(f"{self.names_[j]} = {number(row[0, j])}", int(j), float(row[0, j]), float(parts[j])) for j in order
        ]

    def intervene(self, x: ArrayLike, changes: Mapping[str, float]) -> Array:
        """Scores `(K,)` of a row whose named columns are set by hand: each moves by `w (new - old) / sd`.

        Raises:
            DataError: no such column.
        """
        check_is_fitted(self)
        row = self.row(x).copy()
        for name, value in changes.items():
            if name not in self.names_:
                raise DataError(f"There is no column {name!r} to set: choose among {', '.join(self.names_[:10])} ...")
            row[0, self.names_.index(name)] = value
        scores: Array = self._scores(row)[0]
        return scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, intercepts, and how columns are standardised."""
        return {
            "weights": self.weights_,
            "intercept": self.intercept_,
            "mean": self.mean_,
            "scale": self.scale_,
        }

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.weights_, self.intercept_ = arrays["weights"], arrays["intercept"]
        self.mean_, self.scale_ = arrays["mean"], arrays["scale"]

    def __str__(self) -> str:
        lines = []
        for k, label in enumerate(self.classes_):
            order = [j for j in np.argsort(-np.abs(self.weights_[:, k]), kind="stable") if self.weights_[j, k] != 0]
            terms = " ".join(f"{self.weights_[j, k]:+.3g} {self.names_[j]}" for j in order)
            lines.append(f"{label}: {self.intercept_[k]:.3g} {terms}".rstrip())
        return "\n".join(lines)


def _used(fit: Fit) -> float:
    """Columns a class, on average."""
    return float(np.count_nonzero(fit.weights) / fit.weights.shape[1])
