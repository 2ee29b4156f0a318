"""Shapley's values as a mean over orders: all of them, or some."""

from __future__ import annotations

from math import comb
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.numerics.games.game import Solution, Value, ValueMemory, all_coalitions, answered, seeded
from pellucid.numerics.statistics import half_width

MAX_EXACT = 12  # players: 4096 coalitions
_LEAST = 4  # walks (pairs) that an interval needs: of fewer, some agree by luck, whatever the factor
_CHUNK = 2**22  # entries of a matrix of coalitions made at once


def exact_weights(players: int) -> Tensor:
    """`(K, 2^K)`: Shapley values are this times the values of `all_coalitions`.

    Of the orders of K players, `|S|! (K - |S| - 1)! / K!` have exactly the set S in front of player i.
    """
    coalitions = all_coalitions(players).double()
    before = torch.tensor([1 / (players * comb(players - 1, s)) for s in range(players)], dtype=torch.float64)
    size = coalitions.sum(1).long()
    joined, missed = before[(size - 1).clamp(min=0)], before[size.clamp(max=players - 1)]
    return torch.where(coalitions > 0, joined[:, None], -missed[:, None]).T


def exact_shapley(value: Value, players: int) -> Solution:
    """Shapley's values from all `2^K` coalitions (Shapley 1953), at most 12 players."""
    if players > MAX_EXACT:
        raise MethodError(
            f"Exact Shapley values of {players} players take 2^{players} evaluations: use at most {MAX_EXACT} players "
            "(coarser segments), or permutation sampling."
        )
    asked = ValueMemory(value, players)
    values = asked(all_coalitions(players))
    asked.insist(False)
    return asked.solution(exact_weights(players) @ (values - asked.empty))


def permutation_shapley(
    value: Value,
    players: int,
    *,
    samples: int | Literal["auto"] = "auto",
    generator: torch.Generator | None = None,
    tolerance: float = 0.1,
    antithetic: bool = True,
    max_evaluations: int = 4096,
) -> Solution:
    """Shapley's values from random orders of the players (Castro et al. 2009); efficient to rounding.

    With `antithetic`, each order is also walked backwards (Mitchell et al. 2022): what a player adds early and what it
    adds late then stand in the same pair, and cancel much of each other's noise. Standard errors come from the spread
    of the pairs, and from four of them on intervals (`half_width`, pooled over the players). A game that breaks off is
    answered from the walks (pairs) before, if there are two.

    Args:
        value: the game.
        players: K.
        samples: orders to walk, K - 1 evaluations each; `auto` goes on until `Solution.relative_error` is within
            `tolerance` for every target and no player drops out of the strongest tenth, or the evaluations are spent.
        generator: of the orders, on the CPU; None: seed 0.
        tolerance: relative standard error to reach.
        antithetic: walk orders in pairs, an odd number rounded up.
        max_evaluations: what `auto` may spend, though it always walks two orders (pairs).

    Returns:
        The solution; `extra` has `permutations` and `converged` (True for a fixed number of samples).
    """
    asked, generator = ValueMemory(value, players), seeded(generator)
    fold = 2 if antithetic else 1
    if samples != "auto" and samples < 2 * fold:
        raise MethodError(f"{samples} orders give no standard error: walk at least {2 * fold}.")
    if samples != "auto":
        gains = _walks(asked, -(-samples // fold), generator, antithetic)
        asked.insist(len(gains) > 1)
        return _mean_of(asked, gains, fold, converged=True)
    most = max(2, (max_evaluations - 2) // (fold * max(1, players - 1)))
    gains = _walks(asked, min(most, 4), generator, antithetic)
    asked.insist(len(gains) > 1)
    while True:
        now = _mean_of(asked, gains, fold, converged=True)
        exact = bool((now.standard_error == 0).all())  # every pair tells the same: two players, or an additive game
        if exact or (bool((now.relative_error <= tolerance).all()) and _steady(gains, now)):
            return now
        if len(gains) >= most or asked.failure is not None:
            now.extra["converged"] = False
            return now
        more = min(max(4, len(gains) // 2), most - len(gains))
        gains = torch.cat([gains, _walks(asked, more, generator, antithetic)])


def _walks(asked: ValueMemory, walks: int, generator: torch.Generator, antithetic: bool) -> Tensor:
    """What each player added on each walk, or on average over each pair of walks, `(walks, K, T)`.

    Fewer walks if the game breaks off: those before the first that was not answered whole.
    """
    K = asked.players
    rank = torch.stack([torch.randperm(K, generator=generator) for _ in range(walks)])  # when each player comes in
    found = []
    for part in rank.split(max(1, _CHUNK // (2 * K * (K + 1)))):  # type: ignore[no-untyped-call]
        both = torch.stack([part, K - 1 - part], 1) if antithetic else part[:, None]  # (walks, 1 or 2, K)
        prefixes = both[:, :, None] < torch.arange(K + 1)[:, None]  # (walks, 1 or 2, K + 1, K)
        units = [prefixes[0, ..., 0].numel()] * len(part)
        values = asked(prefixes.reshape(-1, K), units).reshape(*prefixes.shape[:3], -1)
        steps = values.diff(dim=2)
        found.append(steps.gather(2, both[..., None].expand_as(steps)).mean(1))
    gains = torch.cat(found)
    return gains if asked.failure is None else gains[: answered(gains)]


def _mean_of(asked: ValueMemory, gains: Tensor, fold: int, *, converged: bool) -> Solution:
    error = gains.std(0) / len(gains) ** 0.5
    orders = fold * len(gains)
    few = f"{orders} orders are too few to tell how far they scatter, so there is no interval: walk {_LEAST * fold}."
    return asked.solution(
        gains.mean(0),
        error,
        half_width(error, len(gains) - 1, pooled=True),
        few if len(gains) < _LEAST and bool(error.any()) else "",
        permutations=orders,
        converged=converged,
    )


def _steady(gains: Tensor, now: Solution) -> bool:
    """Whether the strongest tenth of the first half of the walks is still in front, up to two standard errors."""
    before = gains[: len(gains) // 2].mean(0).abs()
    strongest = before.topk(max(1, len(before) // 10), dim=0).indices
    strength = now.values.abs()
    cutoff = strength.topk(len(strongest), dim=0).values[-1]
    return bool(((strength + 2 * now.standard_error).gather(0, strongest) >= cutoff).all())
