"""Maps from the rows of the last attention: what it looks at, and what lies in front of that."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pellucid.engine import Cost
from pellucid.errors import MethodError
from pellucid.heatmaps.attention import RolloutMethod, TokenGrid, attention_weights, relevance_of
from pellucid.heatmaps.attention_slopes import Slopes, mean_last_slopes, one_by_one, read_slopes
from pellucid.heatmaps.base import Attribution, method
from pellucid.models.spans import Intervals
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze


@dataclass(frozen=True)
class AttentionRows:
    """Which rows of an attention count, as rows over all tokens of one grid.

    Attributes:
        tokens: how the tokens read.
        start: `class` or `mean`.
    """

    tokens: TokenGrid
    start: str

    def of(self, attention: Tensor) -> Tensor:
        """`(..., queries, keys)` -> `(..., rows, prefix + cells)`.

        Raises:
            MethodError: its keys are not these tokens.
        """
        queries, keys = attention.shape[-2:]
        if queries == keys == self.size:
            attention = attention[..., :1, :] if self.start == "class" else attention[..., self.tokens.prefix :, :]
        return self.all_of(attention)

    def all_of(self, attention: Tensor) -> Tensor:
        """Every query of an attention, `(..., queries, keys)` -> `(..., queries, prefix + cells)`; raises as `of`."""
        queries, keys = attention.shape[-2:]
        size = self.size
        if self.tokens.kind != "joint" or keys not in (size, self.cells):
            raise MethodError(
                f"An attention of this network is of {queries} queries over {keys} tokens, which is no joint attention "
                f"over the {size} tokens of one grid: use attention-rollout or grad-cam."
            )
        return torch.nn.functional.pad(attention, (size - keys, 0))

    @property
    def cells(self) -> int:
        """Tokens that have a place."""
        return math.prod(self.tokens.grid)

    @property
    def size(self) -> int:
        """All tokens."""
        return self.tokens.prefix + self.cells

    def identity(self, attention: Tensor) -> Tensor:
        """What rows keep for themselves: tokens their own place, a pooling's queries nothing."""
        queries, keys = attention.shape[-2:]
        if queries != keys:
            return torch.zeros_like(self.of(attention))
        return self.of(torch.eye(keys, dtype=attention.dtype, device=attention.device))

    def map_of(self, rows: Tensor) -> Tensor:
        """The mean of rows, on the grid."""
        cells = rows.mean(-2)[..., self.tokens.prefix :]
        return cells.reshape(*cells.shape[:-1], *self.tokens.grid).float()


class RowsMethod(RolloutMethod):
    """Base of methods that need joint attention, and read the last one's rows."""

    def rows(self, one: Job, weights: Sequence[Tensor]) -> tuple[AttentionRows, list[Tensor], Tensor]:
        """The rows that count, the attentions in front of the last, and the last, `(heads, queries, keys)` each."""
        tokens, among, last = self.parted(one, weights)
        if len(last) > 1:
            raise MethodError(
                f"{self.name} reads one attention pooling, and this network ends in {len(last)}: use "
                "attention-rollout or attention-relevance."
            )
        if tokens.kind != "joint":
            raise MethodError(
                f"{self.name} needs joint attention over all tokens, and this network's is {tokens.kind}: use "
                "attention-rollout or attention-relevance."
            )
        every = [w[0] for w in (*among, *last)]
        return AttentionRows(tokens, self.begin(tokens)), every[:-1], every[-1]


@method(
    "raw-attention",
    family="attention",
    needs="attention, tokens",
    cost="1 forward",
    paper="what a layer looks at, as it is (the baseline of Abnar & Zuidema 2020, arXiv:2005.00928, sec. 2)",
)
@dataclass(frozen=True, kw_only=True)
class RawAttention(RowsMethod):
    """`A_l` of one layer: what the class token, or all tokens on average, look at. `(N, *grid)`.

    Each head's own map is in the extras, as `heads` `(N, heads, *grid)`.

    Args:
        start: `class`, the first token without a place; `mean`, all others alike; `auto`: the queries of an attention
            pooling at the end, else the class token if there is one.
        layer: number of the attention, from 0; negative: from the last back.
        head: number of the head, from 0; None: the mean over heads.
    """

    layer: int = -1
    head: int | None = None
    uses_target: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def roll(self, job: Job) -> list[Attribution]:
        """The same map for every target."""
        maps, steps = list[Tensor](), list[Tensor]()
        span: Intervals = ()
        for one in one_by_one(job):
            steps = attention_weights(one, one.inputs)
            rows, among, last = self.rows(one, steps)
            every = [*among, last]
            if not -len(every) <= self.layer < len(every):
                raise MethodError(f"The network has {len(every)} attentions, and layer is {self.layer}.")
            chosen = every[self.layer]
            if self.head is not None and not 0 <= self.head < len(chosen):
                raise MethodError(f"This attention has {len(chosen)} heads, numbered from 0, and head is {self.head}.")
            maps.append(rows.map_of(rows.of(chosen)))
            span = rows.tokens.span
        heads = torch.stack(maps)
        values = heads.mean(1) if self.head is None else heads[:, self.head]
        cost = Cost(forwards=len(maps))
        notes = self.said([w.shape for w in steps])
        found = Attribution(values, notes=notes, extras={"heads": heads}, cost=cost, span=span)
        return [found for _ in job.targets]


@dataclass(frozen=True, kw_only=True)
class FeedbackMethod(RowsMethod):
    """Base: what the last attention's rows find on their way back, times how much the score would gain by them.

    The gain is the gradient to the last attention, positive parts, averaged over heads and over the way from a zero
    input (integrated gradients).

    Args:
        start: as of attention-rollout.
        first: number of the first attention that counts, from 0; None: as the paper has it.
        steps: of the way from zero.
    """

    first: int | None = None
    steps: int = 20
    signed: ClassVar[bool] = False
    left_out: ClassVar[int]  # one of so many attentions is left out at the start

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"{self.name} needs steps of at least 1.")

    def counted(self, among: list[Tensor]) -> slice:
        """Which of the attentions in front of the last count."""
        first = (len(among) + 1) // self.left_out if self.first is None else self.first
        if not 0 <= first <= len(among):
            raise MethodError(f"The network has {len(among) + 1} attentions, and first is {first}.")
        return slice(first, None)

    @abstractmethod
    def walk(self, rows: AttentionRows, among: list[Tensor], last: Tensor, slopes: list[Tensor]) -> Tensor:
        """The rows `(rows, prefix + cells)` led back through the attentions; `slopes` are one target's."""

    def roll(self, job: Job) -> list[Attribution]:
        """One forward and backward, and `steps` of each on the way."""
        job = _frozen(job)
        maps: list[list[Tensor]] = [[] for _ in job.targets]
        read = Slopes([], [])
        span: Intervals = ()
        for one in one_by_one(job):
            read = read_slopes(one)
            rows, among, last = self.rows(one, read.weights)
            gains = mean_last_slopes(one, self.steps)
            for k, slopes in enumerate(read.gradients):
                found = self.walk(rows, among, last, [g[0] for g in slopes])
                gain = rows.of(gains[k].clamp(min=0).mean(0))
                maps[k].append(rows.map_of(found * gain))
            span = rows.tokens.span
        count = len(job.inputs) * (1 + self.steps)
        cost = Cost(count + len(job.inputs), count * len(job.targets))
        return [relevance_of(torch.stack(m), self.said([w.shape for w in read.weights]), cost, span) for m in maps]


def _frozen(job: Job) -> Job:
    return Job(job.module, job.inputs, freeze(job), reading=job.reading, medium=job.medium)


@method(
    "transition-attention",
    family="attention",
    needs="gradients, attention, tokens",
    cost="steps (20) forwards + backwards, and 2 forwards + 1 backward",
    paper="Yuan et al. 2021, Explaining Information Flow Inside Vision Transformers Using Markov Chain, eq. 4-8",
)
@dataclass(frozen=True, kw_only=True)
class TransitionAttention(FeedbackMethod):
    """`r = A_L` (class row), `r <- r + r A_l` down the layers, times `relu` of the gradient to `A_L`. `(N, *grid)`.

    Attention as the transitions of a Markov chain whose last state is the class token's.

    Args:
        start: `class`, the first token without a place; `mean`, all others alike; `auto`: the queries of an attention
            pooling at the end, else the class token if there is one.
        first: number of the first attention that counts, from 0; None: a third is left out (4 of 12 in the paper).
        steps: of the way from a zero input, over which the gradient is averaged.
    """

    left_out: ClassVar[int] = 3

    def walk(self, rows: AttentionRows, among: list[Tensor], last: Tensor, slopes: list[Tensor]) -> Tensor:
        """States, from the last back."""
        state = rows.of(last.mean(0))
        for attention in reversed(among[self.counted(among)]):
            state = state + state @ attention.mean(0)
        return state


@method(
    "beyond-intuition",
    family="attention",
    needs="gradients, attention, tokens",
    cost="steps (20) forwards + backwards, and 2 forwards + 1 backward",
    paper="Chen et al. 2023, Beyond Intuition: Rethinking Token Attributions inside Transformers (TMLR), sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class BeyondIntuition(FeedbackMethod):
    """`r = (I + A_L) ... (I + A_l)` with heads weighed by `mean |A' dy/dA|`, times `relu` of the gradient to `A_L`.

    `(N, *grid)`. Attention perception (what tokens take up, head by head) times reasoning feedback (what the score
    gains by the last attention).

    Args:
        start: `class`, the first token without a place; `mean`, all others alike; `auto`: the queries of an attention
            pooling at the end, else the class token if there is one.
        first: number of the first attention that counts, from 0; None: a quarter is left out (3 of 12 in the paper).
        steps: of the way from a zero input, over which the gradient is averaged.
    """

    left_out: ClassVar[int] = 4

    def walk(self, rows: AttentionRows, among: list[Tensor], last: Tensor, slopes: list[Tensor]) -> Tensor:
        """Perceptions, from the last back."""
        counted = self.counted(among)
        final = _by_heads(last, slopes[len(among)])
        found = rows.identity(final) + rows.of(final)
        for attention, slope in zip(reversed(among[counted]), reversed(slopes[: len(among)][counted]), strict=True):
            found = found + found @ _by_heads(attention, slope)
        return found


def _by_heads(attention: Tensor, slope: Tensor) -> Tensor:
    """Heads put together by `I_h = mean |A_h' G_h|`; alike where none of them matters."""
    worth = (attention.mT @ slope).abs().mean((-1, -2))
    share = worth / worth.sum() if bool(worth.sum() > 0) else torch.full_like(worth, 1 / len(worth))
    return torch.einsum("h,hqk->qk", share, attention)
