"""What pairs of players do together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.numerics.games.game import Value, ValueMemory, all_coalitions, seeded
from pellucid.numerics.games.orders import MAX_EXACT


@dataclass
class Interactions:
    """How pairs of players act together: positive where both are worth more than each by itself, negative where one
    makes up for the other.

    Attributes:
        pairs: the P pairs.
        values: `(P, T)`.
        standard_error: `(P, T)`, zero where nothing was sampled.
        kind: `shapley` or `second-difference`.
        evaluations: different coalitions evaluated.
    """

    pairs: list[tuple[int, int]]
    values: Tensor
    standard_error: Tensor
    kind: str
    evaluations: int


def strongest_pairs(values: Tensor, players: int = 5) -> list[tuple[int, int]]:
    """All pairs among the strongest `players` of `(K, T)` values, by their largest size over targets."""
    order = values.abs().amax(1).argsort(descending=True, stable=True)[:players].tolist()
    return list(combinations(order, 2))


def interactions(
    value: Value,
    players: int,
    pairs: Sequence[tuple[int, int]],
    *,
    kind: Literal["shapley", "second-difference"] = "shapley",
    samples: int = 32,
    generator: torch.Generator | None = None,
) -> Interactions:
    """What pairs of players add together beyond what each adds: `v(S + ij) - v(S + i) - v(S + j) + v(S)`.

    `shapley` is the mean over contexts S without i and j, all sizes alike and all sets of a size alike (Grabisch &
    Roubens 1999): exact for at most 12 players, else from random contexts, each with its complement.
    `second-difference` takes the one context of all others, 3 evaluations a pair at the most: does the second
    removal cost more, or less, after the first?

    Args:
        value: the game.
        players: K.
        pairs: of different players.
        kind: `shapley` or `second-difference`.
        samples: contexts for each pair, where there are too many for all.
        generator: of the contexts, on the CPU; None: seed 0.
    """
    if any(i == j or not (0 <= i < players and 0 <= j < players) for i, j in pairs) or not pairs:
        raise MethodError(f"Give pairs of two different players, 0 to {players - 1}.")
    if kind not in ("shapley", "second-difference"):
        raise MethodError(f"There is no interaction {kind!r}: choose shapley or second-difference.")
    asked, generator = ValueMemory(value, players), seeded(generator)
    exact = players <= MAX_EXACT
    units = -(-samples // 2)
    if kind == "shapley" and not exact and units < 2:
        raise MethodError(f"{samples} contexts give no standard error: give at least 3.")
    rest = players - 2
    contexts, weights = torch.ones(1, rest), torch.ones(1, dtype=torch.float64)
    if kind == "shapley" and exact:
        contexts = all_coalitions(rest)
        weights = torch.tensor([1 / ((rest + 1) * comb(rest, int(s))) for s in contexts.sum(1)], dtype=torch.float64)
    corners = []
    for i, j in pairs:
        if kind == "shapley" and not exact:
            sizes = torch.randint(rest + 1, (units, 1), generator=generator)
            drawn = (torch.rand(units, rest, generator=generator).argsort(1).argsort(1) < sizes).float()
            contexts = torch.cat([drawn, 1 - drawn])
        S = torch.zeros(len(contexts), players)
        S[:, [k for k in range(players) if k not in (i, j)]] = contexts
        corners += [S + (_unit(i, S) if a else 0) + (_unit(j, S) if b else 0) for a in (0, 1) for b in (0, 1)]
    v = asked(torch.cat(corners))
    asked.insist(False)
    v = v.reshape(len(pairs), 4, len(contexts), -1)
    second = v[:, 3] - v[:, 2] - v[:, 1] + v[:, 0]  # (P, contexts, T)
    if kind == "shapley" and not exact:
        means = (second[:, :units] + second[:, units:]) / 2
        values, error = means.mean(1), means.std(1) / units**0.5
    else:
        values = torch.einsum("c,pct->pt", weights, second)
        error = torch.zeros_like(values)
    return Interactions([(i, j) for i, j in pairs], values, error, kind, asked.evaluations)


def _unit(player: int, like: Tensor) -> Tensor:
    return torch.eye(like.shape[1])[player]
