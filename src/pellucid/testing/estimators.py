"""What every estimator promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine import Cost
from pellucid.importance.estimators import Estimator
from pellucid.importance.game import Game, Players
from pellucid.scoring.job import Job, prepare
from pellucid.testing.networks import Sound, noise

WORTH = (3.0, -1.0, 0.0, 2.0, 0.5)
"""What each player of the game adds; the third is a dummy."""


_CLOSE = 0.03  # what sampling and a ridge may change


@dataclass(frozen=True, kw_only=True)
class FixedWorths(Players):
    """A game whose every fair division is known: each player adds what it is worth, whoever else is there."""

    kind: ClassVar[str] = "additive players"

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """The sum of the worths of those who are in, plus one; a second target is worth twice as much."""
        cost = Cost()
        worth = torch.tensor(WORTH, dtype=torch.float64)

        def value(coalitions: Tensor) -> Tensor:
            cost.forwards += len(coalitions)
            score = 1 + coalitions.double() @ worth
            return torch.stack([score, 2 * score], 1)

        yield Game(value, [f"player {k + 1}" for k in range(len(WORTH))], cost)


def check_estimator(estimator: Estimator) -> None:
    """Hold an estimator of coalition games to the contract of all estimators.

    On a game in which each player adds a fixed worth, each gets that worth, the dummy nothing; errors have the values'
    shape and are none; the same question is answered the same; it spends no more than its `cost` says.

    Raises:
        AssertionError: which promise is broken.
    """
    job = prepare(Sound(), noise(1, 3, 16, 16), [1, 0])
    players = FixedWorths()
    with players.game(job) as game:
        found = estimator.solve(game, players, job)
        spent = game.cost.forwards
    with players.game(job) as game:
        again = estimator.solve(game, players, job)
    worth = torch.tensor(WORTH, dtype=torch.float64)
    expected = torch.stack([worth, 2 * worth], 1)
    assert found.values.shape == expected.shape, f"{tuple(found.values.shape)} values for 5 players and 2 targets."
    apart = float((found.values - expected).abs().max() / expected.abs().max())
    assert apart <= _CLOSE, f"Players that add a fixed worth get something else: {apart:.0%} of the largest apart."
    assert found.standard_error.shape == found.values.shape, "Errors are not one for each value."
    assert bool((found.standard_error >= 0).all()), "An error is negative or NaN."
    assert torch.equal(found.values, again.values), "The same game was solved differently: draw from `generator()`."
    limit = estimator.cost(len(WORTH), players.budget) + 2
    assert spent <= limit, f"It spent {spent} evaluations, and said {limit} at the most."
