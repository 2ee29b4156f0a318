"""Players and games: parts of an input or of a model, and the score as a function of which of them are in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from pellucid.engine import Cost
from pellucid.heatmaps.base import Job

Value = Callable[[Tensor], Tensor]
"""Coalitions `(M, K)` of 0 (out) and 1 (in) -> scores `(M, T)`, double precision."""


@dataclass
class Game:
    """A game on one input.

    Attributes:
        value: the scores of coalitions.
        names: of the players.
        cost: what the game has cost so far.
        pictures: what the players look like: `labels` `(*space)`, or `maps` `(K, *grid)`.
    """

    value: Value
    names: list[str]
    cost: Cost
    pictures: dict[str, Tensor] = field(default_factory=dict)


class Players(ABC):
    """A kind of players: a frozen dataclass that says how they are cut and how they are taken away."""

    kind: ClassVar[str]
    comparable: ClassVar[bool] = True  # whether player k is the same thing in another picture

    @abstractmethod
    def game(self, job: Job) -> AbstractContextManager[Game]:
        """Open the game of one input `(1, C, *space)`; the model is borrowed while it is open."""
