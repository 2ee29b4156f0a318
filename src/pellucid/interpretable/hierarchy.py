"""A class hierarchy read out of a linear layer: decisions from the large groups to the single class."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import AgglomerativeClustering

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable, Reason, number
from pellucid.interpretable.elastic_net import path
from pellucid.interpretable.numerics import Array, centre_and_scale


class Hierarchy(Readable):
    """Classes whose weights are alike are grouped (Ward), and a row goes down group by group (Wan et al. 2021, NBDT).

    `rule="max"`: of two groups the one that holds the class with the larger score. The way down then ends at the flat
    model's own answer, always. `rule="mean"`: a group's weights are the mean of its classes', as in the paper; without
    fine-tuning this may end elsewhere, which the fidelity card shows.

    Args:
        rule: `max` or `mean`.
        ridge: of the linear model that is fitted where none is given.
    """

    kind: ClassVar[str] = "hierarchy"
    unit: ClassVar[str] = "decisions"

    def __init__(self, rule: Literal["max", "mean"] = "max", ridge: float = 1e-3) -> None:
        self.rule = rule
        self.ridge = ridge

    @classmethod
    def of(
        cls, weights: ArrayLike, intercept: ArrayLike, labels: list[Any], rule: Literal["max", "mean"] = "max"
    ) -> Self:
        """The hierarchy of a linear layer with weights `(K, d)` and intercept `(K,)`."""
        model = cls(rule)
        W = np.asarray(weights, np.float64)
        model.classes_, model.n_features_in_ = np.asarray(labels), W.shape[1]
        model.names_ = [f"x{j}" for j in range(W.shape[1])]
        model._group(W, np.asarray(intercept, np.float64))
        return model

    def _learn(self, X: Array, answers: Array) -> None:
        mean, scale = centre_and_scale(X)
        (*_, fit) = path((X - mean) / scale, answers, [self.ridge], l1_ratio=0.0)
        weights = (fit.weights / scale[:, None]).T
        self._group(weights, fit.intercept - weights @ mean)

    def _group(self, weights: Array, intercept: Array) -> None:
        if self.rule not in ("max", "mean"):
            raise DataError(f"There is no rule {self.rule!r}: choose max or mean.")
        self.weights_, self.intercept_ = weights, intercept
        directions = weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
        self.children_ = np.asarray(AgglomerativeClustering(linkage="ward").fit(directions).children_, np.int64)
        self._leaves()

    def _leaves(self) -> None:
        K = len(self.weights_)
        self.members_: list[list[int]] = [[k] for k in range(K)]
        for left, right in self.children_:
            self.members_.append(self.members_[left] + self.members_[right])

    def _flat(self, X: Array) -> Array:
        flat: Array = X @ self.weights_.T + self.intercept_
        return flat

    def _nodes(self, flat: Array) -> Array:
        """The score `(N, nodes)` of each group."""
        pool = np.max if self.rule == "max" else np.mean
        return np.stack([pool(flat[:, m], axis=1) for m in self.members_], axis=1)

    def _scores(self, X: Array) -> Array:
        flat = self._flat(X)
        if self.rule == "max":
            return flat
        nodes = self._nodes(flat)
        logs = np.zeros_like(nodes)
        K = flat.shape[1]
        for node in range(len(self.children_) - 1, -1, -1):
            pair = self.children_[node]
            both = nodes[:, pair]
            top = both.max(1, keepdims=True)
            logs[:, pair] = logs[:, [K + node]] + both - top - np.log(np.exp(both - top).sum(1, keepdims=True))
        return logs[:, :K]

    @property
    def complexity_(self) -> int:
        """Decisions, one a group of two."""
        return len(self.children_)

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """There is one hierarchy."""
        model = type(self)(self.rule, self.ridge)
        return [model.learned(X, answers, self)]

    def way(self, x: ArrayLike) -> list[tuple[int, int, float]]:
        """The decisions of a row from the top: (group taken, group left, how much more its score is)."""
        nodes = self._nodes(self._flat(self.row(x)))[0]
        K, at, found = len(self.weights_), len(nodes) - 1, []
        while at >= K:
            first, second = (int(c) for c in self.children_[at - K])
            taken, left = (first, second) if nodes[first] >= nodes[second] else (second, first)
            found.append((taken, left, float(nodes[taken] - nodes[left])))
            at = taken
        return found

    def group(self, node: int, most: int = 3) -> str:
        """What a group holds: its class, or the first of its classes."""
        labels = [str(self.classes_[k]) for k in self.members_[node]]
        return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """The decisions from the top, with their margins."""
        return [
            Reason(f"{self.group(taken)} rather than {self.group(left)} (by {number(margin)})", contribution=margin)
            for taken, left, margin in self.way(x)
        ]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Where the way down ends."""
        if self.rule == "max":
            return super().predict(X)  # the same, see the class
        rows = np.atleast_2d(np.asarray(X, np.float64))
        return np.array([self.classes_[self.way(x)[-1][0]] for x in rows])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The linear layer and the pairs that were joined."""
        return {"weights": self.weights_, "intercept": self.intercept_, "children": self.children_}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.weights_, self.intercept_, self.children_ = arrays["weights"], arrays["intercept"], arrays["children"]
        self._leaves()

    def __str__(self) -> str:
        K = len(self.weights_)
        lines: list[str] = []

        def write(node: int, indent: str) -> None:
            if node < K:
                lines.append(f"{indent}{self.classes_[node]}")
                return
            lines.append(f"{indent}{len(self.members_[node])} classes:")
            for child in self.children_[node - K]:
                write(int(child), indent + "  ")

        write(2 * K - 2, "")
        return "\n".join(lines)
