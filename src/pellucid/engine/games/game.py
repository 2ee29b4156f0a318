"""A game, its memory and its solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import MethodError

Value = Callable[[Tensor], Tensor]
"""Coalitions `(M, K)`, 1 where player k is in and 0 where it is out -> values `(M, T)`, one for each target."""


@dataclass
class Solution:
    """What a game's players get.

    Attributes:
        values: `(K, T)`, double precision.
        standard_error: `(K, T)`, of sampling; zero where nothing was left to chance.
        empty: `(T,)`, the value of nobody.
        full: `(T,)`, the value of all.
        evaluations: different coalitions evaluated.
        extra: what else an estimator has to say.
    """

    values: Tensor
    standard_error: Tensor
    empty: Tensor
    full: Tensor
    evaluations: int
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def efficiency_gap(self) -> Tensor:
        """`v(all) - v(nobody) - sum of the values`, `(T,)`."""
        return self.full - self.empty - self.values.sum(0)

    @property
    def relative_error(self) -> Tensor:
        """The length of the standard errors relative to that of the values, `(T,)`."""
        return self.standard_error.square().sum(0).sqrt() / self.values.square().sum(0).sqrt().clamp(min=1e-300)


class Asked:
    """A value function with a memory: each different coalition is evaluated once, by first appearance."""

    def __init__(self, value: Value, players: int) -> None:
        if players < 1:
            raise MethodError("A game needs at least one player.")
        self.value, self.players = value, players
        self.rows: dict[bytes, int] = {}
        self.table: Tensor | None = None
        self.empty, self.full = self(torch.stack([torch.zeros(players), torch.ones(players)]))

    @property
    def evaluations(self) -> int:
        """Different coalitions so far."""
        return len(self.rows)

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Values `(M, T)`, double precision, on the CPU."""
        found, fresh = [], []
        for m, packed in enumerate(np.packbits(coalitions.numpy() > 0, axis=1)):
            key = packed.tobytes()
            if key not in self.rows:
                self.rows[key] = len(self.rows)
                fresh.append(m)
            found.append(self.rows[key])
        if fresh:
            values = self.value(coalitions[fresh].float()).detach().cpu().double()
            if values.ndim != 2 or len(values) != len(fresh):
                raise MethodError(
                    f"The game answered values of shape {tuple(values.shape)} for {len(fresh)} coalitions; it must "
                    "answer (coalitions, targets)."
                )
            self.table = values if self.table is None else torch.cat([self.table, values])
        assert self.table is not None
        return self.table[found]

    def solution(self, values: Tensor, standard_error: Tensor | None = None, **extra: Any) -> Solution:
        """These values as a solution of this game."""
        error = torch.zeros_like(values) if standard_error is None else standard_error
        return Solution(values, error, self.empty, self.full, self.evaluations, extra)


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """The generator given, or a fresh one with seed 0."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def all_coalitions(players: int) -> Tensor:
    """Every coalition, `(2^K, K)`: player k is in row r if bit k of r is set."""
    return ((torch.arange(2**players)[:, None] >> torch.arange(players)) & 1).float()
