"""Games and scores whose truth is known exactly, and how often stated intervals hold it."""

import torch
from tests.helpers.games import seed

from pellucid.numerics.games import all_coalitions
from pellucid.numerics.line import closeness

PLAYERS = 10


def steep_game():
    """A sigmoid of a weighted vote: what a player adds depends on who is there, and is skewed."""
    weights = torch.rand(PLAYERS, generator=seed(5), dtype=torch.float64) ** 2
    return lambda z: torch.sigmoid(10 * (z.double() @ weights / weights.sum() - 0.5))[:, None]


def noisy_game():
    """A line, and for each coalition a number of its own."""
    pull = torch.randn(PLAYERS, generator=seed(6), dtype=torch.float64)
    table = torch.randn(2**PLAYERS, generator=seed(7), dtype=torch.float64)
    bits = 2 ** torch.arange(PLAYERS)
    return lambda z: (z.double() @ pull + table[(z.long() * bits).sum(1)])[:, None]


GAMES = {"steep": steep_game(), "noisy": noisy_game()}


def free_line(game):
    """The weights of LIME's line without penalty, from every coalition and the normal equations."""
    Z = all_coalitions(PLAYERS).double()
    w = closeness(Z, 0.25)
    X = torch.cat([torch.ones(len(Z), 1, dtype=torch.float64), Z], 1)
    return torch.linalg.solve((X.T * w) @ X, (X.T * w) @ game(Z))[1:]


def held(found, truth, slack=1e-9):
    """The share of values whose interval holds the truth, over runs that each have `low` and `high`."""
    inside = [(f.low <= truth + slack) & (truth <= f.high + slack) for f in found]
    return float(torch.stack(inside).double().mean())
