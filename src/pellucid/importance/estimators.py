"""Estimators: from a game to one number a player, with its error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from pellucid.engine.games import (
    MAX_EXACT,
    Hierarchy,
    Solution,
    exact_shapley,
    kernel_shap,
    owen,
    permutation_shapley,
)
from pellucid.engine.surrogate import surrogate
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Job
from pellucid.importance.game import Game, Players
from pellucid.importance.inputs import Regions
from pellucid.importance.internals import Channels, channel_relevance, chosen_layer


@dataclass(frozen=True, kw_only=True)
class Estimator(ABC):
    """An estimator and its settings.

    Args:
        samples: evaluations or permutations to spend, where it samples; `auto`: until the error is small.
        seed: of what is random.
    """

    samples: int | Literal["auto"] = "auto"
    seed: int = 0
    name: ClassVar[str]

    @abstractmethod
    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """Values of all players of a game on one input."""

    def generator(self) -> torch.Generator:
        """A fresh generator with the estimator's seed."""
        return torch.Generator().manual_seed(self.seed)


class Ablation(Estimator):
    """Leave-one-out, `v(all) - v(all but k)`: exact, but blind to what two players can do for each other."""

    name = "ablation"

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """One evaluation a player."""
        count = len(game.names)
        scores = game.value(torch.cat([torch.ones(1, count), torch.zeros(1, count), 1 - torch.eye(count)])).cpu()
        values = scores[:1] - scores[2:]
        return Solution(values, torch.zeros_like(values), scores[1], scores[0], len(scores))


class Shapley(Estimator):
    """The mean contribution over all orders of joining: exact up to 12 players, sampled permutations beyond."""

    name = "shapley"

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """All coalitions, or antithetic permutations."""
        count = len(game.names)
        if count <= MAX_EXACT:
            return exact_shapley(game.value, count)
        return permutation_shapley(game.value, count, samples=self.samples, generator=self.generator())


class Kernel(Estimator):
    """Shapley values by weighted regression over coalitions (Lundberg & Lee 2017)."""

    name = "kernel"

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """As many coalitions as `samples`, by default 2 K + 2048 and all of few players."""
        count = len(game.names)
        samples = 2 * count + 2048 if self.samples == "auto" else self.samples
        return kernel_shap(game.value, count, samples=samples, generator=self.generator())


class Owen(Estimator):
    """Owen values over halves of halves of the players in their order: Shapley values coarse to fine."""

    name = "owen"

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """The part with the largest value is halved next, until `samples` evaluations are spent (default 1024)."""
        budget = 1024 if self.samples == "auto" else self.samples
        return owen(game.value, _halves(range(len(game.names))), budget=budget)


def _halves(players: Sequence[int]) -> Hierarchy:
    if len(players) == 1:
        return players[0]
    half = len(players) // 2
    return (_halves(players[:half]), _halves(players[half:]))


class Linear(Estimator):
    """The weights of a linear model of the score around the input (LIME, Ribeiro 2016), with its fidelity."""

    name = "lime"

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """A ridge on `samples` random coalitions (default 10 K, at least 500), weighed by closeness to the whole."""
        count = len(game.names)
        samples = max(500, 10 * count) if self.samples == "auto" else self.samples
        coalitions = (torch.rand(samples, count, generator=self.generator()) < 0.5).float()
        coalitions[0], coalitions[1] = 0, 1
        scores = game.value(coalitions).cpu()
        fitted = surrogate(coalitions, scores)
        extra = {"r2": fitted.r2_held_out.tolist()}
        return Solution(fitted.weights, fitted.standard_error, scores[0], scores[1], samples, extra)


class Gradient(Estimator):
    """First order, from one backward pass: gradient x (input - baseline) of a region, x activation of a channel."""

    name = "gradient"

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """Only regions and channels have gradients to sum."""
        if isinstance(players, Channels):
            values = channel_relevance(job, chosen_layer(job, players.layer)).T
        elif isinstance(players, Regions):
            values = players.first_order(job)
        else:
            raise MethodError(f"`gradient` measures regions and channels, not {players.kind}: use ablation or shapley.")
        ends = game.value(torch.stack([torch.zeros(len(game.names)), torch.ones(len(game.names))])).cpu()
        return Solution(values.cpu(), torch.zeros_like(values).cpu(), ends[0], ends[1], 2)


ESTIMATORS: dict[str, type[Estimator]] = {e.name: e for e in (Ablation, Shapley, Kernel, Owen, Linear, Gradient)}


def get_estimator(name: str, **settings: Any) -> Estimator:
    """An estimator by name; `MethodError` with the list if there is none."""
    if name not in ESTIMATORS:
        raise MethodError(f"There is no estimator {name!r}: choose {', '.join(ESTIMATORS)}.")
    return ESTIMATORS[name](**settings)
