"""Players and games: parts of an input or of a model, and the score as a function of which of them are in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine import Cost
from pellucid.errors import MethodError
from pellucid.importance.path import Path
from pellucid.media.geometry import Geometry
from pellucid.models.opens import OUTPUTS, Need
from pellucid.registry import settings_of
from pellucid.scoring.job import Job, plain_setting

Value = Callable[[Tensor], Tensor]
"""Coalitions `(M, K)` of 0 (out) and 1 (in) -> scores `(M, T)`, double precision."""


@dataclass
class Game:
    """A game on one input.

    Attributes:
        value: the scores of coalitions.
        names: of the players.
        cost: what the game has cost so far.
        pictures: what the players look like: `labels` `(*space)`, the player of each place (any even grid over the
            input will do); `maps` `(K, *grid)`, how active each is where; `inputs` `(K, C, *space)`, each by itself in
            the model's units, `frames` likewise, to be shown as they are, since they are compared with each other.
        notes: what a reader must know, as far as it is known by now.
    """

    value: Value
    names: list[str]
    cost: Cost
    pictures: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Players(ABC):
    """A kind of players: a frozen dataclass that says how they are cut and how they are taken away.

    `game` is all that a new kind must have. The rest has a sensible default, or says why there is none.
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = OUTPUTS
    budget: ClassVar[int] = 4096  # evaluations that a sampling estimator may spend on one input if none are asked for
    comparable: bool = True  # whether player k is the same thing in another picture

    def fitted(self, x: Tensor, geometry: Geometry) -> Players:
        """These players, cut for one input `(C, *space)` that shows `geometry` of its picture.

        By default as they are.
        """
        return self

    @abstractmethod
    def game(self, job: Job) -> AbstractContextManager[Game]:
        """Open the game of one input `(1, C, *space)`; the model is borrowed while it is open."""

    def first_order(self, job: Job) -> Tensor:
        """`(K, T)`: what each player adds to first order, gradient x its content."""
        raise MethodError(f"{self.kind} have no gradient of their own: use ablation or shapley.")

    def conducted(self, job: Job, along: Callable[[str | None, Tensor], Path]) -> tuple[Tensor, Path]:
        """`(K, T)`: what flows through each player on the path `along(layer or None for the input, baseline)`."""
        raise MethodError(
            f"Conductance follows the score through the units of a layer or the places of the input, and {self.kind} "
            "are neither: use ablation or shapley."
        )

    def donated(self, donor: Tensor) -> Players:
        """These players with the content of another input `(1, C, *space)` in place of what is out."""
        raise MethodError(
            f"Permutation swaps contents between pictures, and {self.kind} have none to swap: use ablation or shapley."
        )

    def settings(self) -> dict[str, Any]:
        """What the players were cut with, as plain values, for the record; tensors by their hash."""
        return {name: plain_setting(getattr(self, name)) for name in settings_of(self)}


class Deferred(Players):
    """Base of players that stand for others, which show once the job is there: what is left to a kind is `standing`."""

    @abstractmethod
    def standing(self, job: Job) -> Players:
        """The players that these are in a job."""

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Theirs."""
        with self.standing(job).game(job) as game:
            yield game

    def first_order(self, job: Job) -> Tensor:
        """Theirs."""
        return self.standing(job).first_order(job)

    def conducted(self, job: Job, along: Callable[[str | None, Tensor], Path]) -> tuple[Tensor, Path]:
        """Theirs."""
        return self.standing(job).conducted(job, along)


class Cut(Deferred):
    """Base of players that are cut anew for each input: what is left to a kind is `fitted`."""

    comparable = False

    @abstractmethod
    def fitted(self, x: Tensor, geometry: Geometry) -> Players:
        """The players of one input."""

    def standing(self, job: Job) -> Players:
        """Cut on the input as it is."""
        return self.fitted(job.inputs[0].detach(), Geometry.identity(job.space))


def summed_by(labels: Tensor, products: Tensor, count: int) -> Tensor:
    """`(count, T)`: the sums of `(T, *space)` over the places of each label."""
    sums = torch.zeros(count, len(products), dtype=torch.float64, device=products.device)
    return sums.index_add_(0, labels.flatten().to(products.device), products.double().flatten(1).T)


def place_names(cells: Sequence[int]) -> list[str]:
    """Names of the cells of a grid, row by row."""
    places = torch.cartesian_prod(*(torch.arange(n) for n in cells)).reshape(-1, len(cells)).tolist()
    words = ("row", "column") if len(cells) == 2 else [f"axis {d}" for d in range(len(cells))]
    return [", ".join(f"{w} {i + 1}" for w, i in zip(words, place, strict=True)) for place in places]
