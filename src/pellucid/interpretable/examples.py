"""Answers by example: a few prototypes, or the nearest of all training pictures."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable, Reason, log_probabilities, number
from pellucid.interpretable.numerics import Array, centre_and_scale


class _ByExample(Readable):
    """Base: rows of the training data, standardised, that new rows are compared with."""

    def _standardise(self, X: Array) -> Array:
        self.mean_, self.scale_ = centre_and_scale(X)
        return self.standardised(X)

    def standardised(self, X: Array) -> Array:
        """Columns in standard deviations from their mean."""
        Z: Array = (X - self.mean_) / self.scale_
        return Z

    def distances(self, X: Array) -> Array:
        """Mean squared differences `(N, P)` of standardised columns to each kept row."""
        Z = self.standardised(X)
        squares = (Z**2).sum(1)[:, None] + (self.rows_**2).sum(1) - 2 * Z @ self.rows_.T
        found: Array = np.maximum(squares, 0) / Z.shape[1]
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The kept rows, standardised, their numbers and answers, and how columns are standardised."""
        return {
            "rows": self.rows_,
            "index": self.index_,
            "answers": self.answers_,
            "mean": self.mean_,
            "scale": self.scale_,
            "width": np.array(self.width_),
        }

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.rows_, self.index_, self.answers_ = arrays["rows"], arrays["index"], arrays["answers"]
        self.mean_, self.scale_, self.width_ = arrays["mean"], arrays["scale"], float(arrays["width"])

    def _reason(self, which: int, distance: float) -> Reason:
        label = self.classes_[int(self.answers_[which].argmax())]
        text = f"like picture {self.index_[which]} ({label}), distance {number(np.sqrt(distance))}"
        return Reason(text, value=float(distance), row=int(self.index_[which]))


class Prototypes(_ByExample):
    """The class of the nearest prototype; prototypes are real training rows, a few a class.

    They are the rows nearest to the centres of k-means within each class. `p(k) ~ exp(-d_k / width)`, `d_k` being the
    distance to the nearest prototype of the class, and the width that fits the training answers best.

    Args:
        per_class: prototypes of a class.
        seed: of k-means.
    """

    kind: ClassVar[str] = "nearest"
    unit: ClassVar[str] = "prototypes"

    def __init__(self, per_class: int = 3, seed: int = 0) -> None:
        self.per_class = per_class
        self.seed = seed

    def _learn(self, X: Array, answers: Array) -> None:
        if self.per_class < 1:
            raise DataError("A class needs at least one prototype: give 1 or more.")
        Z, codes = self._standardise(X), answers.argmax(1)
        chosen: list[int] = []
        for k in range(answers.shape[1]):
            mine = np.flatnonzero(codes == k)
            count = min(self.per_class, len(np.unique(Z[mine], axis=0)))
            if not count:
                continue
            found = KMeans(count, n_init=3, random_state=self.seed).fit(Z[mine])
            far = found.transform(Z[mine])  # from each row to each centre
            chosen += [int(mine[i]) for i in dict.fromkeys(far.argmin(0).tolist())]
        self.index_ = np.array(chosen)
        self.rows_, self.answers_ = Z[self.index_], np.eye(answers.shape[1])[codes[self.index_]]
        self.width_ = 1.0
        self.width_ = min(np.geomspace(1e-3, 10, 25), key=lambda w: self._loss(X, answers, float(w)))

    def _loss(self, X: Array, answers: Array, width: float) -> float:
        scores = self._nearest(X) / -width
        top = scores.max(1, keepdims=True)
        logs = scores - top - np.log(np.exp(scores - top).sum(1, keepdims=True))
        return float(-(answers * logs).sum(1).mean())

    def _nearest(self, X: Array) -> Array:
        """The distance `(N, K)` to each class's nearest prototype; far where a class has none."""
        distances, owner = self.distances(X), self.answers_.argmax(1)
        columns = [
            distances[:, owner == k].min(1) if (owner == k).any() else np.full(len(X), 1e3)
            for k in range(len(self.classes_))
        ]
        return np.stack(columns, 1)

    def _scores(self, X: Array) -> Array:
        return self._nearest(X) / -self.width_

    @property
    def complexity_(self) -> int:
        """Prototypes."""
        return len(self.index_)

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """1, 2, 3, 5, 8 ... prototypes a class."""
        counts = sorted({c for c in (1, 2, 3, 5, 8, 13) if c < self.per_class} | {self.per_class})
        models = [type(self)(c, self.seed).learned(X, answers, self) for c in counts]
        return list({m.complexity_: m for m in models}.values())

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """The prototypes of the label, the nearest first."""
        row, k = self.row(x), self.code(x, label)
        distances = self.distances(row)[0]
        mine = [i for i in np.argsort(distances, kind="stable") if self.answers_[i].argmax() == k]
        return [self._reason(int(i), float(distances[i])) for i in mine]

    def __str__(self) -> str:
        owner = self.answers_.argmax(1)
        return "\n".join(
            f"{label}: like picture {', '.join(map(str, self.index_[owner == k])) or 'none'}"
            for k, label in enumerate(self.classes_)
        )


class Neighbours(_ByExample):
    """The mean answer of the nearest training rows, which are the evidence.

    Args:
        count: neighbours.
    """

    kind: ClassVar[str] = "neighbours"
    unit: ClassVar[str] = "training rows"

    def __init__(self, count: int = 5) -> None:
        self.count = count

    def _learn(self, X: Array, answers: Array) -> None:
        if self.count < 1:
            raise DataError("Neighbours are counted from 1: give 1 or more.")
        self.rows_, self.answers_ = self._standardise(X), answers
        self.index_, self.width_ = np.arange(len(X)), 1.0

    def _order(self, X: Array) -> NDArray[np.int64]:
        count = min(self.count, len(self.rows_))
        order: NDArray[np.int64] = np.argsort(self.distances(X), axis=1, kind="stable")[:, :count]
        return order

    def _scores(self, X: Array) -> Array:
        return log_probabilities(self.answers_[self._order(X)].mean(1), 1e-6)

    @property
    def complexity_(self) -> int:
        """All training rows: none is left out."""
        return len(self.rows_)

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """There is nothing to leave out."""
        return [type(self)(self.count).learned(X, answers, self)]

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """The neighbours, the nearest first, whatever the label."""
        row = self.row(x)
        distances = self.distances(row)[0]
        return [self._reason(int(i), float(distances[i])) for i in self._order(row)[0]]

    def __str__(self) -> str:
        return f"the mean answer of the {self.count} nearest of {len(self.rows_)} training pictures"
