"""Cooperative games: how much each player adds to a score. Pure numerics over a value function; knows no picture.

A value function is asked in batches as large as an estimator can make them, and for each different coalition once.
Shapley's value of player i is the mean of `v(S + i) - v(S)` over all orders in which the players can come in, S being
those before i; whatever the estimator, the values add up to `v(all) - v(nobody)` (efficiency).

A game that breaks off (`UnfinishedError`) is answered from the coalitions that were evaluated before, if they will do.
"""

from pellucid.numerics.games.game import Solution, UnfinishedError, Value, all_coalitions, answered, exact
from pellucid.numerics.games.interaction import Interactions, interactions, strongest_pairs
from pellucid.numerics.games.kernel import kernel_shap
from pellucid.numerics.games.nested import Hierarchy, members, owen
from pellucid.numerics.games.orders import MAX_EXACT, exact_shapley, exact_weights, permutation_shapley

__all__ = [
    "MAX_EXACT",
    "Hierarchy",
    "Interactions",
    "Solution",
    "UnfinishedError",
    "Value",
    "all_coalitions",
    "answered",
    "exact",
    "exact_shapley",
    "exact_weights",
    "interactions",
    "kernel_shap",
    "members",
    "owen",
    "permutation_shapley",
    "strongest_pairs",
]
