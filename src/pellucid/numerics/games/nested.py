"""Owen's values: Shapley's rule in groups within groups, from coarse to fine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import TypeAlias

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.numerics.games.game import Solution, Value, ValueMemory, all_coalitions, answered
from pellucid.numerics.games.orders import MAX_EXACT, exact_weights

Hierarchy: TypeAlias = "int | Sequence[Hierarchy]"
"""A player, or a group of groups: `((0, 1), (2, (3, 4)))`."""


@dataclass(order=True)
class _Part:
    """A group of players on top of a context, with what it adds there, waiting to be split."""

    priority: float
    number: int
    group: Hierarchy = field(compare=False)
    context: Tensor = field(compare=False)
    weight: float = field(compare=False)
    gain: Tensor = field(compare=False)


def members(hierarchy: Hierarchy) -> list[int]:
    """The players of a hierarchy, from left to right."""
    found, stack = [], [hierarchy]
    while stack:
        node = stack.pop()
        if isinstance(node, int):
            found.append(node)
        else:
            stack.extend(reversed(node))
    return found


def owen(value: Value, hierarchy: Hierarchy, *, budget: int = 1024, together: int = 16) -> Solution:
    """Owen's values of players in nested groups (Owen 1977; Winter 1989 for many levels), from coarse to fine.

    Groups come in as a whole: only orders that keep every group together count. Each group's gain is divided among
    its parts by Shapley's rule, in every context that its neighbours can make, and the part with the largest gain is
    split next, until the budget is spent; what is still whole then is shared evenly among its players. A flat
    hierarchy gives Shapley's values. A game that breaks off after the first split leaves whole what was not split by
    then.

    Args:
        value: the game.
        hierarchy: players 0 to K - 1 in nested groups of at most 12.
        budget: coalitions to evaluate.
        together: groups split at once, to fill batches.

    Returns:
        The solution, without standard errors, since nothing is drawn; `extra["unsplit"]` `(K, T)` is the size of what
        each player has from even shares, zero when everything was split.
    """
    players = members(hierarchy)
    if sorted(players) != list(range(len(players))):
        raise MethodError("A hierarchy holds the players 0 to K - 1, each once.")
    asked = ValueMemory(value, len(players))
    values = torch.zeros(len(players), len(asked.full), dtype=torch.float64)
    unsplit, number = torch.zeros_like(values), count()
    waiting: list[_Part] = []
    stopped: list[_Part] = []

    def gained(group: Hierarchy, context: Tensor, weight: float, gain: Tensor) -> None:
        while not isinstance(group, int) and len(group) == 1:
            group = group[0]
        if isinstance(group, int):
            values[group] += weight * gain
        else:
            urgency = weight * float(gain.abs().max())
            heapq.heappush(waiting, _Part(-urgency, next(number), group, context, weight, gain))

    gained(hierarchy, torch.zeros(len(players)), 1.0, asked.full - asked.empty)
    while waiting:
        parts: list[_Part] = []
        free = budget - asked.evaluations
        while waiting and len(parts) < together:
            part = heapq.heappop(waiting)
            price = 2 ** _width(part.group) - 2
            (parts if price <= free else stopped).append(part)
            free -= price if price <= free else 0
        stopped += parts[_split(asked, parts, gained, values) :]
    asked.insist(all(part.number for part in stopped))  # number 0: all players, still whole
    for part in stopped:
        inside = members(part.group)
        values[inside] += part.weight * part.gain / len(inside)
        unsplit[inside] += part.weight * part.gain.abs() / len(inside)
    return asked.solution(values, unsplit=unsplit)


def _width(group: Hierarchy) -> int:
    assert not isinstance(group, int)
    if len(group) > MAX_EXACT:
        raise MethodError(f"A group of {len(group)} is too wide: nest its parts in groups of at most {MAX_EXACT}.")
    return len(group)


def _split(asked: ValueMemory, parts: Sequence[_Part], gained: Callable[..., None], values: Tensor) -> int:
    """Divide each part among its children: Shapley's game of the children on top of the part's context.

    Returns how many, from the first: all, unless the game breaks off.
    """
    widths = {_width(part.group) for part in parts}
    coalitions = {w: all_coalitions(w) for w in widths}
    shapley = {w: exact_weights(w) for w in widths}
    made = []
    for part in parts:
        assert not isinstance(part.group, int)
        blocks = torch.zeros(len(part.group), asked.players)
        for block, child in zip(blocks, part.group, strict=True):
            block[members(child)] = 1
        made.append(part.context + coalitions[len(blocks)] @ blocks)
    if not made:
        return 0
    sizes = [len(m) for m in made]
    scores = asked(torch.cat(made), sizes)
    if asked.failure is not None:
        parts = parts[: sum(end <= answered(scores) for end in accumulate(sizes))]
    for part, contexts, score in zip(parts, made, scores.split(sizes), strict=False):  # type: ignore[no-untyped-call]
        assert not isinstance(part.group, int)
        weights = shapley[len(part.group)]
        shares = weights @ (score - score[0])
        for j, child in enumerate(part.group):
            if isinstance(child, int):
                values[child] += part.weight * shares[j]
                continue
            for row in (weights[j] < 0).nonzero()[:, 0].tolist():  # the coalitions of the others
                gained(child, contexts[row], part.weight * -float(weights[j, row]), score[row | 1 << j] - score[row])
    return len(parts)
