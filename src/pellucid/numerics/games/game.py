"""A game, its memory and its solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import MethodError, ModelError, UnsteadyError

Value = Callable[[Tensor], Tensor]
"""Coalitions `(M, K)`, 1 where player k is in and 0 where it is out -> values `(M, T)`, one for each target.

One that can go on no more raises a `ModelError`: an `UnfinishedError` if some coalitions are answered by then."""


class UnfinishedError(ModelError):
    """A game broke off among many coalitions.

    Attributes:
        values: `(M, T)`, of the coalitions asked for; NaN from the first that was not evaluated on.
    """

    def __init__(self, failure: ModelError, values: Tensor) -> None:
        super().__init__(str(failure))
        self.values = values


@dataclass
class Solution:
    """What a game's players get.

    Attributes:
        values: `(K, T)`, double precision.
        standard_error: `(K, T)`, of sampling; zero where nothing was left to chance.
        low, high: `(K, T)`, 95 % interval of sampling; as the values where nothing was left to chance.
        empty: `(T,)`, the value of nobody.
        full: `(T,)`, the value of all.
        evaluations: different coalitions that this rests on.
        extra: what else an estimator has to say.
        broken: what ended the game early, if anything did: then this rests on what was answered before.
        no_interval: why there is none, in a sentence, where `low` and `high` are NaN.
    """

    values: Tensor
    standard_error: Tensor
    low: Tensor
    high: Tensor
    empty: Tensor
    full: Tensor
    evaluations: int
    extra: dict[str, Any] = field(default_factory=dict)
    broken: str = ""
    no_interval: str = ""

    @property
    def efficiency_gap(self) -> Tensor:
        """`v(all) - v(nobody) - sum of the values`, `(T,)`."""
        return self.full - self.empty - self.values.sum(0)

    @property
    def relative_error(self) -> Tensor:
        """The length of the standard errors relative to that of the values, `(T,)`."""
        return self.standard_error.square().sum(0).sqrt() / self.values.square().sum(0).sqrt().clamp(min=1e-300)


def exact(
    values: Tensor, empty: Tensor, full: Tensor, evaluations: int, extra: dict[str, Any] | None = None
) -> Solution:
    """A solution of which nothing was left to chance."""
    return Solution(values, torch.zeros_like(values), values, values, empty, full, evaluations, extra or {})


class ValueMemory:
    """A value function with a memory: each different coalition is evaluated once, by first appearance.

    Attributes:
        failure: what broke the game off; from then on nothing new is evaluated.
    """

    def __init__(self, value: Value, players: int) -> None:
        if players < 1:
            raise MethodError("A game needs at least one player.")
        self.value, self.players = value, players
        self.rows: dict[bytes, int] = {}
        self.table: Tensor | None = None
        self.failure: ModelError | None = None
        self.empty, self.full = self(torch.stack([torch.zeros(players), torch.ones(players)]))

    @property
    def evaluations(self) -> int:
        """Different coalitions so far."""
        return len(self.rows)

    def __call__(self, coalitions: Tensor, units: Sequence[int] | None = None) -> Tensor:
        """Values `(M, T)`, double precision, on the CPU; NaN from the first that was not answered on.

        Args:
            coalitions: `(M, K)`.
            units: sizes of the groups, in order, that are worth something only whole: one that the game breaks off in
                is not answered, and its coalitions are not counted; None: each coalition is worth something alone.
        """
        keys = [packed.tobytes() for packed in np.packbits(coalitions.numpy() > 0, axis=1)]
        fresh: dict[bytes, int] = {}  # where each unknown coalition appears first
        for m, key in enumerate(keys):
            if key not in self.rows:
                fresh.setdefault(key, m)
        end = len(keys)
        if fresh:
            values = self._evaluated(coalitions[list(fresh.values())].float())
            if self.failure is not None:
                lost = list(fresh.values())[answered(values) :]
                if lost:
                    end = max(e for e in accumulate(units or [1] * end, initial=0) if e <= lost[0])
            learnt = [key for key, m in fresh.items() if m < end]
            self.rows |= {key: len(self.rows) + n for n, key in enumerate(learnt)}
            values = values[: len(learnt)]
            self.table = values if self.table is None else torch.cat([self.table, values])
        assert self.table is not None
        found = torch.full((len(keys), self.table.shape[1]), torch.nan, dtype=torch.float64)
        found[:end] = self.table[[self.rows[key] for key in keys[:end]]]
        return found

    def _evaluated(self, coalitions: Tensor) -> Tensor:
        """Values of new coalitions, NaN from where the game broke off on."""
        targets = 0 if self.table is None else self.table.shape[1]
        nothing = torch.full((len(coalitions), targets), torch.nan, dtype=torch.float64)
        if self.failure is not None:
            return nothing
        try:
            values = self.value(coalitions)
        except UnsteadyError:
            raise
        except ModelError as failure:
            if self.table is None:  # not even nobody and all
                raise
            self.failure = failure
            values = failure.values if isinstance(failure, UnfinishedError) else nothing
        if values.ndim != 2 or len(values) != len(coalitions):
            raise MethodError(
                f"The game answered values of shape {tuple(values.shape)} for {len(coalitions)} coalitions; it must "
                "answer (coalitions, targets)."
            )
        return values.detach().cpu().double()

    def insist(self, enough: bool) -> None:
        """Raise what broke the game off, if anything did and what was answered before is not enough."""
        if self.failure is not None and not enough:
            raise self.failure

    def solution(
        self,
        values: Tensor,
        standard_error: Tensor | None = None,
        half: Tensor | None = None,
        no_interval: str = "",
        **extra: Any,
    ) -> Solution:
        """These values as a solution of this game, with half of their interval; none: nothing was left to chance."""
        error = torch.zeros_like(values) if standard_error is None else standard_error
        half = error if half is None else torch.full_like(half, torch.nan) if no_interval else half
        broken = "" if self.failure is None else str(self.failure)
        ends = values - half, values + half
        return Solution(values, error, *ends, self.empty, self.full, self.evaluations, extra, broken, no_interval)


def answered(values: Tensor) -> int:
    """How many rows of `(M, ...)` come before the first with a NaN, where a game broke off."""
    return int((~values.isnan().flatten(1).any(1)).long().cumprod(0).sum())


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """The generator given, or a fresh one with seed 0."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def all_coalitions(players: int) -> Tensor:
    """Every coalition, `(2^K, K)`: player k is in row r if bit k of r is set."""
    return ((torch.arange(2**players)[:, None] >> torch.arange(players)) & 1).float()
