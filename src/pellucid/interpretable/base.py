"""What all readable classifiers share: scikit-learn's contract, soft labels to learn from, reasons, plain storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pellucid.errors import DataError
from pellucid.interpretable.numerics import Array, softmax


@dataclass(frozen=True)
class Reason:
    """One piece of what speaks for an answer.

    Attributes:
        text: the piece as people say it: `stripes > 0.41`.
        feature: the column it is about; -1 where it is about no single one.
        value: the column's value.
        contribution: what it adds to the class's score (log-odds), or NaN where the model does not add.
        row: the training row it points to, -1 for none.
    """

    text: str
    feature: int = -1
    value: float = float("nan")
    contribution: float = float("nan")
    row: int = -1


class Readable(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A classifier that a person can read, fitted to labels or to a teacher's soft answers.

    Attributes:
        classes_: `(K,)`, the labels.
        names_: what the columns are called.
        kind: as the command line calls it.
        unit: what `complexity_` counts.
    """

    kind: ClassVar[str]
    unit: ClassVar[str]
    classes_: NDArray[Any]
    names_: list[str]
    n_features_in_: int

    def fit(
        self, X: ArrayLike, y: ArrayLike, soft: ArrayLike | None = None, names: Sequence[str] | None = None
    ) -> Self:
        """Learn from columns `(N, d)` and labels `(N,)`.

        Args:
            X: one row a picture.
            y: labels; with `soft`, the teacher's top classes.
            soft: `(N, K)` a teacher's probabilities of the sorted labels, which say more than its top class.
            names: of the columns.

        Raises:
            DataError: fewer than two classes, or shapes that do not fit.
        """
        columns: Array
        columns, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("There is only one class in the answers, so there is nothing to tell apart: add pictures.")
        answers = np.eye(len(self.classes_))[codes]
        if soft is not None:
            answers = np.asarray(soft, dtype=np.float64)
            if answers.shape != (len(columns), len(self.classes_)):
                raise DataError(
                    f"The soft answers are {answers.shape}, not one row for each of {len(columns)} pictures and one "
                    f"column for each of {len(self.classes_)} classes."
                )
            answers = answers / answers.sum(1, keepdims=True)
        given = names if names is not None else getattr(self, "feature_names_in_", None)
        self.names_ = [str(n) for n in given] if given is not None else [f"x{j}" for j in range(columns.shape[1])]
        if len(self.names_) != columns.shape[1]:
            raise DataError(f"There are {columns.shape[1]} columns but {len(self.names_)} names: give one each.")
        self._learn(columns, answers)
        return self

    @abstractmethod
    def _learn(self, X: Array, answers: Array) -> None:
        """Fit to soft answers `(N, K)` whose rows sum to one."""

    @abstractmethod
    def _scores(self, X: Array) -> Array:
        """Scores `(N, K)` whose softmax are the probabilities: logits, or log-probabilities."""

    @abstractmethod
    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """Why this row `(d,)` gets a label (None: the one predicted), the strongest first."""

    @property
    @abstractmethod
    def complexity_(self) -> int:
        """How much there is to read, in `unit`."""

    @abstractmethod
    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """Models of this kind from simple to as complex as this one's settings allow, fitted to the same data."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was learned, as plain arrays."""

    @abstractmethod
    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """The inverse of `arrays`."""

    def scores(self, X: ArrayLike) -> Array:
        """Scores `(N, K)` whose softmax are the probabilities."""
        check_is_fitted(self)
        return self._scores(validate_data(self, X, reset=False, dtype=np.float64))

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities `(N, K)` in the order of `classes_`."""
        return softmax(self.scores(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable label of each row."""
        best = self.scores(X).argmax(1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def learned(self, X: Array, answers: Array, like: Readable) -> Self:
        """This model fitted to what `like` was fitted to: its classes and names, without checking them again."""
        self.classes_, self.names_, self.n_features_in_ = like.classes_, like.names_, like.n_features_in_
        self._learn(X, answers)
        return self

    def refitted(self, models: Sequence[Self], X: Array, answers: Array) -> list[Self]:
        """Models with the settings of these, fitted to other rows; this one's classes and names."""
        return [type(m)(**m.get_params()).learned(X, answers, self) for m in models]

    def as_dict(self) -> dict[str, Any]:
        """Kind, settings, classes and names as plain values; the rest is in `arrays`."""
        check_is_fitted(self)
        return {
            "kind": self.kind,
            "settings": self.get_params(),
            "classes": self.classes_.tolist(),
            "names": self.names_,
        }

    @classmethod
    def from_dict(cls, about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of `as_dict` and `arrays`."""
        model = cls(**about["settings"])
        model.classes_, model.names_ = np.asarray(about["classes"]), list(about["names"])
        model.n_features_in_ = len(model.names_)
        model._restore(arrays)
        return model

    def row(self, x: ArrayLike) -> Array:
        """One row `(d,)`, checked, as `(1, d)`."""
        check_is_fitted(self)
        checked: Array = validate_data(self, np.asarray(x, np.float64).reshape(1, -1), reset=False, dtype=np.float64)
        return checked

    def code(self, x: ArrayLike, label: Any) -> int:
        """The column of a label's scores; of the row's own prediction if there is none."""
        if label is None:
            return int(self._scores(self.row(x)).argmax())
        found = np.flatnonzero(self.classes_ == label)
        if not len(found):
            raise DataError(f"There is no class {label!r}: choose among {', '.join(map(str, self.classes_[:10]))} ...")
        return int(found[0])


def number(value: float) -> str:
    """Three figures, as people write them."""
    return f"{value:.3g}"


def log_probabilities(probabilities: Array, least: float = 1e-3) -> Array:
    """Logarithms with a floor, since leaves and teachers may be certain."""
    logs: Array = np.log(np.maximum(probabilities, least))
    return logs
