"""Decision trees: a few questions about single columns, asked one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.tree import DecisionTreeRegressor

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable, Reason, log_probabilities, number
from pellucid.interpretable.numerics import Array
from pellucid.numerics.questions import in_words

_STEPS = 12  # pruned trees to choose from


@dataclass(frozen=True)
class Node:
    """A node as a person reads it.

    Attributes:
        index: its number; the root is 0, children come after their parents.
        feature: the column asked about, -1 for a leaf.
        threshold: `left` is where the column is at most that.
        left, right: its children, -1 for a leaf.
        share: of the training rows that come here.
        probabilities: `(K,)`.
        depth: questions before it.
    """

    index: int
    feature: int
    threshold: float
    left: int
    right: int
    share: float
    probabilities: Array
    depth: int


class Tree(Readable):
    """CART on soft labels: each question lowers the squared error of the probabilities the most (Breiman et al. 1984).

    On hard labels that error is Gini's impurity, so this is the usual classification tree; on a teacher's probabilities
    it hears how sure the teacher was. Cost-complexity pruning: `sum of errors + pruning x leaves` is made least.

    Args:
        depth: most questions in a row.
        smallest: fewest training rows in a leaf.
        pruning: price of a leaf, as a share of the root's error.
        seed: of ties between columns.
    """

    kind: ClassVar[str] = "tree"
    unit: ClassVar[str] = "leaves"

    def __init__(self, depth: int = 4, smallest: int = 3, pruning: float = 0.0, seed: int = 0) -> None:
        self.depth = depth
        self.smallest = smallest
        self.pruning = pruning
        self.seed = seed

    def _learn(self, X: Array, answers: Array) -> None:
        if self.depth < 1:
            raise DataError(f"A tree of depth {self.depth} asks nothing: give 1 or more.")
        impurity = float(answers.var(0).mean())
        grown = self._grower(self.pruning * impurity).fit(X, answers).tree_
        self.feature_ = np.where(grown.children_left < 0, -1, grown.feature).astype(np.int64)
        self.threshold_ = np.where(self.feature_ < 0, 0.0, grown.threshold)
        self.left_, self.right_ = grown.children_left.astype(np.int64), grown.children_right.astype(np.int64)
        self.share_ = grown.n_node_samples / grown.n_node_samples[0]
        self.value_ = np.asarray(grown.value[:, :, 0], np.float64)

    def _grower(self, price: float) -> DecisionTreeRegressor:
        smallest = max(1, self.smallest)
        return DecisionTreeRegressor(
            max_depth=self.depth, min_samples_leaf=smallest, ccp_alpha=price, random_state=self.seed
        )

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """The pruned trees of the cost-complexity path, from two leaves up."""
        path = self._grower(0.0).cost_complexity_pruning_path(X, answers)
        impurity = float(answers.var(0).mean()) or 1.0
        prices = np.unique(np.append(path.ccp_alphas[:-1] / impurity, 0.0))[::-1]
        prices = prices[np.unique(np.linspace(0, len(prices) - 1, _STEPS).round().astype(int))]
        trees: dict[int, Self] = {}
        for price in prices:
            tree = type(self)(self.depth, self.smallest, max(float(price), self.pruning), self.seed)
            tree.learned(X, answers, self)
            trees.setdefault(tree.complexity_, tree)
        return list(trees.values())

    def leaves(self, X: Array) -> NDArray[np.int64]:
        """The leaf `(N,)` of each row. Columns are compared in single precision, as they were when it was grown."""
        X = X.astype(np.float32)
        at = np.zeros(len(X), np.int64)
        for _ in range(int(self.depth)):
            inner = self.feature_[at] >= 0
            goes_left = X[np.arange(len(X)), self.feature_[at]] <= self.threshold_[at]
            at = np.where(inner, np.where(goes_left, self.left_[at], self.right_[at]), at)
        return at

    def _scores(self, X: Array) -> Array:
        return log_probabilities(self.value_[self.leaves(X)], 1e-6)

    @property
    def complexity_(self) -> int:
        """Leaves."""
        return int((self.feature_ < 0).sum())

    def nodes(self) -> list[Node]:
        """All nodes, parents first."""
        depth = np.zeros(len(self.feature_), np.int64)
        for i in np.flatnonzero(self.feature_ >= 0):
            depth[[self.left_[i], self.right_[i]]] = depth[i] + 1
        return [
            Node(
                i,
                int(self.feature_[i]),
                float(self.threshold_[i]),
                int(self.left_[i]),
                int(self.right_[i]),
                float(self.share_[i]),
                self.value_[i],
                int(depth[i]),
            )
            for i in range(len(self.feature_))
        ]

    def path(self, x: ArrayLike) -> list[int]:
        """The nodes that a row `(d,)` comes through, the root first."""
        values = self.row(x)[0].astype(np.float32)
        nodes = [0]
        while self.feature_[nodes[-1]] >= 0:
            at = nodes[-1]
            nodes.append(int((self.left_ if values[self.feature_[at]] <= self.threshold_[at] else self.right_)[at]))
        return nodes

    def question(self, node: int) -> str:
        """What is asked at a node; yes goes right."""
        return f"{self.names_[self.feature_[node]]} > {number(self.threshold_[node])}"

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """The answers on a row's way; each contributes what it changes in the label's probability."""
        values, k, path = self.row(x)[0], self.code(x, label), self.path(x)
        found = []
        for before, after in pairwise(path):
            j = int(self.feature_[before])
            sign = "≤" if after == self.left_[before] else ">"
            text = f"{self.names_[j]} {sign} {number(self.threshold_[before])}"
            change = float(self.value_[after, k] - self.value_[before, k])
            found.append(Reason(text, j, float(values[j]), change))
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The nodes' columns."""
        return {
            "feature": self.feature_,
            "threshold": self.threshold_,
            "left": self.left_,
            "right": self.right_,
            "share": self.share_,
            "value": self.value_,
        }

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.feature_, self.threshold_ = arrays["feature"], arrays["threshold"]
        self.left_, self.right_ = arrays["left"], arrays["right"]
        self.share_, self.value_ = arrays["share"], arrays["value"]

    def __str__(self) -> str:
        def said(at: int) -> str | tuple[str, int, int]:
            if self.feature_[at] < 0:
                k = int(self.value_[at].argmax())
                return f"{self.classes_[k]} ({self.value_[at, k]:.0%}; {self.share_[at]:.0%} of rows)"
            return self.question(at), int(self.right_[at]), int(self.left_[at])

        return "\n".join(in_words(said))
