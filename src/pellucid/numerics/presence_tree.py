"""A decision tree in place of a game: rules about which players are there, and what the game is worth by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.numerics.line import closeness
from pellucid.numerics.questions import in_words

LEAVES = (2, 3, 4, 5, 6, 8, 10, 12, 16)  # sizes to choose from: a person reads no larger tree
_FOLDS = 5
_SMALLEST = 5  # samples in a leaf
LEAST = 2 * _FOLDS * _SMALLEST  # samples: each fold has two leaves
_REFITS = 50


@dataclass(frozen=True)
class PresenceTree:
    """Nodes as columns; the root is 0, children come after their parents.

    Attributes:
        player: `(n,)`, who is asked for; -1 for a leaf.
        there, away: `(n,)`, the child if that player is in, and if it is out; -1 for a leaf.
        value: `(n, T)`, the mean score of the samples that come here.
        share: `(n,)`, of all samples.
    """

    player: NDArray[np.int64]
    there: NDArray[np.int64]
    away: NDArray[np.int64]
    value: NDArray[np.float64]
    share: NDArray[np.float64]

    @property
    def leaves(self) -> int:
        """How many."""
        return int((self.player < 0).sum())

    def predict(self, coalitions: Tensor) -> Tensor:
        """Values `(M, T)` of coalitions `(M, K)`."""
        inside, at = coalitions.numpy() > 0, np.zeros(len(coalitions), np.int64)
        while (asking := self.player[at] >= 0).any():
            yes = inside[np.arange(len(at)), self.player[at]]
            at = np.where(asking, np.where(yes, self.there[at], self.away[at]), at)
        return torch.from_numpy(self.value[at])

    def shapley(self, players: int) -> Tensor:
        """Shapley's values `(K, T)` of the tree as a game, exactly; they add up to `predict(all) - predict(nobody)`.

        A leaf is worth its value v to the coalitions that hold all p players on its way that must be there, and none
        of the a that must be away. In that game each of the p has `v (p - 1)! a! / (p + a)!` and each of the a has
        `-v p! (a - 1)! / (p + a)!`: the chance, over all orders, to be the one who opens or shuts it. The tree is
        the sum of its leaves.
        """
        found = np.zeros((players, self.value.shape[1]))

        def walk(node: int, there: list[int], away: list[int]) -> None:
            k = int(self.player[node])
            if k >= 0:
                walk(int(self.there[node]), [*there, k], away)
                walk(int(self.away[node]), there, [*away, k])
                return
            p, a = len(there), len(away)
            if there:
                found[there] += self.value[node] * (factorial(p - 1) * factorial(a) / factorial(p + a))
            if away:
                found[away] -= self.value[node] * (factorial(p) * factorial(a - 1) / factorial(p + a))

        walk(0, [], [])
        return torch.from_numpy(found)

    def words(self, names: Sequence[str], target: int = 0) -> list[str]:
        """The tree in words, a line a question or an answer, indented by its depth."""

        def said(node: int) -> str | tuple[str, int, int]:
            k = int(self.player[node])
            if k < 0:
                return f"{self.value[node, target]:.3g} ({self.share[node]:.0%} of the samples)"
            return f"{names[k]} is there", int(self.there[node]), int(self.away[node])

        return in_words(said)


@dataclass
class FittedTree:
    """A tree fitted to samples of a game, with how well it stands in.

    Attributes:
        tree: fitted to all samples.
        r2: `(T,)`, the weighted share of the variance explained of samples left out of the fit, over 5 folds; a little
            flattered, since the number of leaves was chosen by it.
        standard_error: `(K, T)`, of the tree's Shapley values, over trees of resampled samples: wide where a player's
            place in the tree is a matter of luck.
    """

    tree: PresenceTree
    r2: Tensor
    standard_error: Tensor


def fit_tree(
    coalitions: Tensor, scores: Tensor, *, kernel_width: float = 0.25, leaves: int | None = None, seed: int = 0
) -> FittedTree:
    """A regression tree on which players are there, one for all targets: LIMEtree.

    CART lowers the squared error of the scores, with samples weighed by their closeness to the whole as LIME's, the
    best split of any leaf first. The number of leaves is the fewest within one standard error of the best fidelity on
    samples left out (Breiman et al. 1984, sec. 3.4.3). Sokol & Flach 2020, arXiv:2005.01427.

    Args:
        coalitions: `(M, K)` of 0 and 1.
        scores: `(M, T)`.
        kernel_width: see `closeness`.
        leaves: how many; None chooses.
        seed: of folds, resampling, and ties between players.
    """
    if leaves is not None and leaves < 2:
        raise MethodError(f"A tree of {leaves} leaf asks nothing: give 2 or more.")
    Z, y = coalitions.numpy().astype(np.float32), scores.double().numpy()
    weights = closeness(coalitions, kernel_width).numpy()
    if len(Z) < LEAST:
        raise MethodError(f"A tree needs more than {len(Z)} samples: give hundreds.")
    generator = np.random.default_rng(seed)
    folds = generator.permutation(len(Z)) % _FOLDS
    sizes = LEAVES if leaves is None else (leaves,)
    fidelity = np.array([_left_out(Z, y, weights, folds, size, seed) for size in sizes])  # (sizes, folds, T)
    mean = fidelity.mean((1, 2))
    best = int(mean.argmax())
    least = mean[best] - fidelity[best].mean(1).std(ddof=1) / _FOLDS**0.5
    size = int(np.argmax(mean >= least))
    refits = []
    for _ in range(_REFITS):
        rows = generator.integers(len(Z), size=len(Z))
        refits.append(_grown(Z[rows], y[rows], weights[rows], sizes[size], seed).shapley(Z.shape[1]))
    tree = _grown(Z, y, weights, sizes[size], seed)
    return FittedTree(tree, torch.from_numpy(fidelity[size].mean(0)), torch.stack(refits).std(0))


def _left_out(
    Z: NDArray[Any], y: NDArray[Any], weights: NDArray[Any], folds: NDArray[Any], size: int, seed: int
) -> NDArray[np.float64]:
    """R2 `(folds, T)` on each fold of a tree grown on the others; 1 for scores that never move."""
    found = np.ones((_FOLDS, y.shape[1]))
    for fold in range(_FOLDS):
        out = folds == fold
        tree = _grown(Z[~out], y[~out], weights[~out], size, seed)
        w = weights[out] / weights[out].sum()
        missed = w @ (y[out] - tree.predict(torch.from_numpy(Z[out])).numpy()) ** 2
        spread = w @ (y[out] - w @ y[out]) ** 2
        moves = spread > 1e-24 * (w @ y[out] ** 2)
        found[fold, moves] = 1 - missed[moves] / spread[moves]
    return found


def _grown(Z: NDArray[Any], y: NDArray[Any], weights: NDArray[Any], size: int, seed: int) -> PresenceTree:
    """CART on scores in units of their own spread: no target outweighs another, and rounding is no reason to split."""
    from sklearn.tree import DecisionTreeRegressor

    middle = weights @ y / weights.sum()
    spread = np.sqrt(weights @ (y - middle) ** 2 / weights.sum())
    unit = np.where(spread > 1e-9 * np.abs(y).max(0), spread, 1)
    cart = DecisionTreeRegressor(
        max_leaf_nodes=size, min_samples_leaf=_SMALLEST, min_impurity_decrease=1e-12, random_state=seed
    )
    grown = cart.fit(Z, (y - middle) / unit, weights).tree_
    leaf = grown.children_left < 0
    return PresenceTree(
        np.where(leaf, -1, grown.feature).astype(np.int64),
        grown.children_right.astype(np.int64),  # above 1/2: the player is there
        grown.children_left.astype(np.int64),
        grown.value[:, :, 0] * unit + middle,
        grown.n_node_samples / grown.n_node_samples[0],
    )
