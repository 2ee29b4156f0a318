"""Games to solve, and their values by definition, written out as loops."""

from itertools import combinations, permutations
from math import factorial

import torch


def seed(number):
    return torch.Generator().manual_seed(number)


def table_game(players, targets=1, number=0):
    """A game with an independent random value for every coalition; counts its calls."""
    table = torch.randn(2**players, targets, generator=seed(number), dtype=torch.float64)
    bits = 2 ** torch.arange(players)

    def value(coalitions):
        assert set(coalitions.unique().tolist()) <= {0.0, 1.0}
        value.asked += len(coalitions)
        value.calls += 1
        return table[(coalitions.long() * bits).sum(1)]

    value.asked = value.calls = 0
    return value


def smooth_game(players, number=0, bend=1.0):
    """A random quadratic game with a bend, of any number of players, for two targets."""
    pull = torch.randn(players, 2, generator=seed(number), dtype=torch.float64)
    pairs = torch.randn(players, players, generator=seed(number + 1), dtype=torch.float64) / players

    def value(coalitions):
        z = coalitions.double()
        return (z @ pull) + bend * torch.tanh(torch.einsum("mi,ij,mj->m", z, pairs, z))[:, None]

    return value


def of(value, players, inside):
    z = torch.zeros(1, players)
    z[0, list(inside)] = 1
    return value(z)[0]


def brute_shapley(value, players):
    """Every set without i, with its weight."""
    found = []
    for i in range(players):
        others = [k for k in range(players) if k != i]
        total = 0
        for size in range(players):
            for S in combinations(others, size):
                weight = factorial(size) * factorial(players - size - 1) / factorial(players)
                total = total + weight * (of(value, players, (*S, i)) - of(value, players, S))
        found.append(total)
    return torch.stack(found)


def brute_owen(value, hierarchy, players):
    """The mean gain over all orders in which every group comes in as a whole."""

    def orders(node):
        if isinstance(node, int):
            return [[node]]
        found = []
        for turn in permutations(node):
            lines = [[]]
            for child in turn:
                lines = [line + more for line in lines for more in orders(child)]
            found += lines
        return found

    every = orders(hierarchy)
    total = torch.zeros(players, len(of(value, players, [])), dtype=torch.float64)
    for order in every:
        for at, i in enumerate(order):
            total[i] += of(value, players, order[: at + 1]) - of(value, players, order[:at])
    return total / len(every)


def halved(players):
    if len(players) == 1:
        return players[0]
    half = len(players) // 2
    return (halved(players[:half]), halved(players[half:]))


def close(a, b, tolerance=1e-9):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
