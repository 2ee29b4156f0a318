"""Estimators: from a game to one number a player, with its error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

import torch

from pellucid.errors import MethodError
from pellucid.importance.game import Game, Players
from pellucid.importance.path import Path, follow
from pellucid.models.opens import GRADIENTS, OUTPUTS, Need
from pellucid.numerics.games import (
    MAX_EXACT,
    Hierarchy,
    Solution,
    exact,
    exact_shapley,
    kernel_shap,
    owen,
    permutation_shapley,
)
from pellucid.numerics.line import evaluated, fit_line
from pellucid.numerics.presence_tree import LEAST, fit_tree
from pellucid.numerics.statistics import half_width
from pellucid.registry import Registry
from pellucid.scoring.job import Job

_TOLERANCE = 0.2  # relative standard error at which sampling stops: a correlation of about 0.98 with the truth


@dataclass(frozen=True, kw_only=True)
class Estimator(ABC):
    """An estimator and its settings.

    Args:
        samples: evaluations or permutations to spend, where it samples; `auto`: until the error is small.
        seed: of what is random.
    """

    samples: int | Literal["auto", "exact"] = "auto"
    seed: int = 0
    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = OUTPUTS
    of_a_set: ClassVar[bool] = False  # whether it measures many pictures, rather than one
    interacts: ClassVar[bool] = True  # whether pairs of its players may be looked at

    def __post_init__(self) -> None:
        if self.samples == "exact" and self.name != "shapley":
            raise MethodError(f"{self.name} has no exact values to ask for: give a number of samples, or use shapley.")
        if isinstance(self.samples, str):
            if self.samples not in ("auto", "exact"):
                raise MethodError(f"{self.samples!r} is no number of samples: give a number, auto or exact.")
        elif self.samples < 1:
            raise MethodError(f"{self.samples} samples measure nothing: give more.")

    @abstractmethod
    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """Values of all players of a game on one input."""

    @abstractmethod
    def cost(self, players: int, budget: int) -> int:
        """The most passes that K players with a budget take on one picture, before the two or three of every run."""

    def generator(self) -> torch.Generator:
        """A fresh generator with the estimator's seed."""
        return torch.Generator().manual_seed(self.seed)


class Ablation(Estimator):
    """Leave-one-out, `v(all) - v(all but k)`: exact, but blind to what two players can do for each other."""

    name = "ablation"

    def cost(self, players: int, budget: int) -> int:
        """One a player, and both ends."""
        return players + 2

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """One evaluation a player."""
        count = len(game.names)
        scores = game.value(torch.cat([torch.ones(1, count), torch.zeros(1, count), 1 - torch.eye(count)])).cpu()
        values = scores[:1] - scores[2:]
        return exact(values, scores[1], scores[0], len(scores))


class ShapleyValue(Estimator):
    """The mean contribution over all orders of joining: exact up to 12 players, sampled permutations beyond."""

    name = "shapley"

    def cost(self, players: int, budget: int) -> int:
        """All coalitions of few players, or what it may spend."""
        if self._takes_all(players, budget):
            return 1 << players
        return budget if isinstance(self.samples, str) else self.samples * players

    def _takes_all(self, players: int, budget: int) -> bool:
        return self.samples == "exact" or (players <= MAX_EXACT and 1 << players <= budget)

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """All coalitions, or antithetic permutations; `samples="exact"` insists on all coalitions."""
        count = len(game.names)
        if self._takes_all(count, players.budget):
            return exact_shapley(game.value, count)
        assert self.samples != "exact"
        return permutation_shapley(
            game.value,
            count,
            samples=self.samples,
            generator=self.generator(),
            tolerance=_TOLERANCE,
            max_evaluations=players.budget,
        )


class Kernel(Estimator):
    """Shapley values by weighted regression over coalitions (Lundberg & Lee 2017)."""

    name = "kernel"

    def cost(self, players: int, budget: int) -> int:
        """A coalition a sample."""
        return min(1 << players, self._evaluations(players, budget))

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """As many coalitions as `samples`, by default 2 K + 2048 within the players' budget, and all of few players."""
        count = len(game.names)
        samples = self._evaluations(count, players.budget)
        return kernel_shap(game.value, count, samples=samples, generator=self.generator())

    def _evaluations(self, players: int, budget: int) -> int:
        return self.samples if isinstance(self.samples, int) else min(2 * players + 2048, max(budget, 4 * players))


class OwenValue(Estimator):
    """Owen values over halves of halves of the players in their order: ShapleyValue values coarse to fine."""

    name = "owen"

    def cost(self, players: int, budget: int) -> int:
        """As many as it may spend."""
        return min(1 << players, self.samples if isinstance(self.samples, int) else 1024)

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """The part with the largest value is halved next, until `samples` evaluations are spent (default 1024)."""
        budget = self.samples if isinstance(self.samples, int) else 1024
        return owen(game.value, _halves(range(len(game.names))), budget=budget)


def _halves(players: Sequence[int]) -> Hierarchy:
    if len(players) == 1:
        return players[0]
    half = len(players) // 2
    return (_halves(players[:half]), _halves(players[half:]))


def _around(samples: int, players: int, generator: torch.Generator) -> torch.Tensor:
    """Coalitions `(samples, players)` to fit a stand-in to: nobody, all, and coin flips."""
    coalitions = (torch.rand(samples, players, generator=generator) < 0.5).float()
    coalitions[:1], coalitions[1:2] = 0, 1
    return coalitions


class Linear(Estimator):
    """The weights of a linear model of the score around the input (LIME, Ribeiro 2016), with its fidelity."""

    name = "lime"

    def cost(self, players: int, budget: int) -> int:
        """A coalition a sample."""
        return self.samples if isinstance(self.samples, int) else max(500, 10 * players)

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """A ridge on `samples` random coalitions (default 10 K, at least 500), weighed by closeness to the whole."""
        count = len(game.names)
        samples = self.samples if isinstance(self.samples, int) else max(500, 10 * count)
        if samples < 4:
            raise MethodError(f"A line needs more than {samples} samples: give hundreds.")
        coalitions, scores, broken = evaluated(game.value, _around(samples, count, self.generator()))
        fitted = fit_line(coalitions, scores)
        extra = {"r2": fitted.r2_held_out.tolist()}
        told = fitted.weights, fitted.standard_error, fitted.low, fitted.high
        return Solution(*told, scores[0], scores[1], fitted.samples, extra, broken, fitted.no_interval)


class LocalTree(Estimator):
    """Rules about which players are there, in place of the score around the input (LIMEtree, Sokol & Flach 2020).

    A player's value is its ShapleyValue value in the fitted tree, exact. Its interval is of the tree: over trees of
    resampled samples. How well the tree stands in for the score is said beside LIME's line on the same samples.
    """

    name = "tree"

    def cost(self, players: int, budget: int) -> int:
        """A coalition a sample."""
        return self.samples if isinstance(self.samples, int) else max(1000, 10 * players)

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """A tree on `samples` random coalitions (default 10 K, at least 1000), weighed by closeness to the whole."""
        count = len(game.names)
        drawn = _around(self.cost(count, players.budget), count, self.generator())
        coalitions, scores, broken = evaluated(game.value, drawn, least=LEAST)
        fitted = fit_tree(coalitions, scores, seed=self.seed)
        extra = {
            "tree": fitted.tree,
            "tree_r2": fitted.r2.tolist(),
            "line_r2": fit_line(coalitions, scores).r2_held_out.tolist(),
        }
        values = fitted.tree.shapley(count)
        half = half_width(fitted.standard_error, inf)
        told = values, fitted.standard_error, values - half, values + half
        return Solution(*told, scores[0], scores[1], len(scores), extra, broken)


class Gradient(Estimator):
    """First order, from one backward pass: gradient x (input - baseline) of a region, x activation of a channel."""

    name = "gradient"
    needs = GRADIENTS
    interacts = False

    def cost(self, players: int, budget: int) -> int:
        """One forward, one backward, both ends."""
        return 4

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """Players whose content is a sum of numbers have gradients to sum; others say why not."""
        values = players.first_order(job).cpu()
        game.cost.backwards += len(job.targets)
        ends = game.value(torch.stack([torch.zeros(len(game.names)), torch.ones(len(game.names))])).cpu()
        return exact(values, ends[0], ends[1], 2)


class Conductance(Estimator):
    """What flows through each unit on the straight path from the baseline to the input (Dhamdhere et al. 2018).

    The units of a layer share `f(x) - f(baseline)`, within the gap that is stated. Of regions of the input it is
    integrated gradients, summed. `samples`: steps of the path; `auto`: 32, doubled until the gap is within 1 %.
    """

    name = "conductance"
    needs = GRADIENTS
    interacts = False

    def cost(self, players: int, budget: int) -> int:
        """A forward and a backward a step."""
        return 2 * (self.samples if isinstance(self.samples, int) else 1024)

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """One path for all players and targets."""
        steps = self.samples if isinstance(self.samples, int) else None

        def along(layer: str | None, baseline: torch.Tensor) -> Path:
            return follow(job, layer, baseline, steps=steps)

        values, path = players.conducted(job, along)
        game.cost.forwards += path.passes
        game.cost.backwards += path.passes * len(job.targets)
        extra = {"steps": path.steps, "path_gap": path.gap.tolist()}
        return exact(values.cpu(), path.empty, path.full, path.passes, extra)


class Permutation(Estimator):
    """What the score loses when a player's content is exchanged for another picture's (Breiman 2001; Fisher 2019).

    It needs a folder: `samples` (default 3) other pictures of it lend their content in turn. See `exchange`.
    """

    name = "permutation"
    of_a_set = True
    interacts = False

    def cost(self, players: int, budget: int) -> int:
        """An ablation for each picture that lends."""
        return self.donors * (players + 4)

    def solve(self, game: Game, players: Players, job: Job) -> Solution:
        """One picture has nobody to exchange with."""
        raise MethodError(
            "permutation exchanges contents between pictures, so one picture has no answer: give a folder, or use "
            "ablation or shapley."
        )

    @property
    def donors(self) -> int:
        """Pictures that lend their content to each picture."""
        return self.samples if isinstance(self.samples, int) else 3


ESTIMATORS: Registry[type[Estimator]] = Registry(
    "estimator",
    {
        e.name: e
        for e in (Ablation, ShapleyValue, Kernel, OwenValue, Linear, LocalTree, Gradient, Conductance, Permutation)
    },
)


def get_estimator(name: str, **settings: Any) -> Estimator:
    """An estimator by name; `MethodError` with near misses if there is none."""
    return ESTIMATORS.find(name)(**settings)
