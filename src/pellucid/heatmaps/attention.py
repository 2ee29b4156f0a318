"""Attention rollout: attention multiplied through the layers, for pictures and clips, whatever way space and time mix.

A layer of attention moves relevance from a token to those it looks at. `Steps` says which tokens sit together in one
attention of the network: all of them (joint), those of one frame or of one place in turn (divided, as in TimeSformer),
or the places of each frame first and whole frames after (factorised, as in ViViT's second model).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.attention import reading_attention
from pellucid.engine.attention_back import attention_back
from pellucid.errors import MethodError
from pellucid.heatmaps.attention_slopes import (
    NO_ATTENTION,
    NO_GRADIENT,
    of_several,
    of_several_sizes,
    one_by_one,
    scored,
)
from pellucid.heatmaps.base import METHODS, Attribution, Method, method
from pellucid.models.layers import _noise_like
from pellucid.models.layouts import readings
from pellucid.models.spans import Intervals
from pellucid.scoring.job import Job
from pellucid.scoring.tokens import entries

Together = Literal["all", "space", "time"]
_ALL: Together = "all"


@dataclass(frozen=True)
class TokenGrid:
    """How the tokens of a transformer cover its input.

    Attributes:
        grid: cells along each space axis, time first for clips.
        prefix: tokens without a place (class, registers) in a joint or spatial attention.
        time_prefix: the same in the attention over whole frames (factorised).
        span: for each space axis, the interval of the input that the grid covers; empty: all of it.
        kind: `joint`, `divided` or `factorised`.
        together: for each attention of a pass, which tokens sit in it together.
    """

    grid: tuple[int, ...]
    prefix: int
    kind: Literal["joint", "divided", "factorised"]
    together: tuple[Together, ...]
    time_prefix: int = 0
    span: Intervals = ()


def token_grid(job: Job, shapes: Sequence[tuple[int, int]]) -> TokenGrid:
    """Read the tokens' grid from the attentions of one input, `(side by side, tokens in each)` for each layer.

    Raises:
        MethodError: no reading fits (windows, pooled attention), or none is proven.
    """
    kinds = list(dict.fromkeys(shapes))
    if len(kinds) == 1 and kinds[0][0] == 1:
        return _joint(job, len(shapes), kinds[0][1])
    if 0 < len(kinds) < 3 and job.inputs.ndim == 5:
        kinds = [kinds[0], kinds[-1]]
        found = _factorised(job, shapes, kinds) or _divided(job, shapes, kinds)
        if found is not None:
            return found
    sizes = ", ".join(f"{n} x {k} tokens" for n, k in dict.fromkeys(shapes))
    raise MethodError(
        f"The attentions of this network are of sizes {sizes}, which is no joint, divided or factorised attention over "
        "one grid (windows and pooled tokens are none either): use grad-cam or occlusion."
    )


def _joint(job: Job, layers: int, tokens: int) -> TokenGrid:
    found = (e for e in entries(job.module, job.inputs) if e.layout.prefix + e.layout.cells == tokens)
    entry = next(found, None)
    if entry is None:
        raise MethodError(
            f"It is not proven which of the {tokens} tokens belongs to which place: use grad-cam or occlusion."
        )
    layout, every = entry.layout, tuple(_ALL for _ in range(layers))
    return TokenGrid(layout.grid, layout.prefix, "joint", every, span=entry.span(job.space))


def _frame_grid(job: Job, places: int) -> tuple[int, int] | None:
    """Rows and columns of a frame of so many tokens, in the proportions of the input; None if there are none."""
    space = job.space[1:]
    found = next((r for r in readings((1, places, 1), space) if r.prefix == 0), None)
    return None if found is None else (found.grid[0], found.grid[1])


_PREFIXES = (0, 1, 2, 5)  # no token beside the grid; class; class and distillation; class and four registers


def _factorised(job: Job, shapes: Sequence[tuple[int, int]], kinds: list[tuple[int, int]]) -> TokenGrid | None:
    (frames, spatial), (alone, temporal) = kinds
    if alone != 1 or frames < 2 or frames > job.space[0] or temporal - frames not in (0, 1):
        return None
    for prefix in _PREFIXES:
        grid = _frame_grid(job, spatial - prefix)
        if grid is not None:
            together: tuple[Together, ...] = tuple("space" if s == kinds[0] else "time" for s in shapes)
            if list(together) == sorted(together):  # space first, then time
                return TokenGrid((frames, *grid), prefix, "factorised", together, temporal - frames)
    return None


def _divided(job: Job, shapes: Sequence[tuple[int, int]], kinds: list[tuple[int, int]]) -> TokenGrid | None:
    for space_kind, time_kind in (kinds, kinds[::-1]):
        (frames, spatial), (places, temporal) = space_kind, time_kind
        grid = _frame_grid(job, places)
        fits = temporal == frames and spatial - places in _PREFIXES and 1 < frames <= job.space[0]
        if grid is None or not fits:
            continue
        for together in _turns(shapes, space_kind, time_kind):
            found = TokenGrid((frames, *grid), spatial - places, "divided", together)
            if _sits_where_read(job, found):
                return found
    return None


def _turns(shapes: Sequence[tuple[int, int]], space: Any, time: Any) -> list[tuple[Together, ...]]:
    """Which attention goes over what: by their sizes, or in turn where as many frames as places leave them alike."""
    if space != time:
        return [tuple("space" if s == space else "time" for s in shapes)]
    pairs: tuple[tuple[Together, Together], ...] = (("time", "space"), ("space", "time"))
    return [tuple(pair[k % 2] for k in range(len(shapes))) for pair in pairs] if len(shapes) > 1 else []


def _sits_where_read(job: Job, tokens: TokenGrid) -> bool:
    """Whether changing one cell of the input moves most the first attention of its frame, and of its place."""
    sample = _noise_like(job.inputs)
    frames, rows, columns = tokens.grid
    first = {kind: tokens.together.index(kind) for kind in ("space", "time")}
    plain = attention_weights(job, sample)
    for cell in ((0, 0, 0), (frames - 1, rows - 1, 0), (frames // 2, 0, columns - 1)):
        changed = sample.clone()
        box = [slice(c * s // g, (c + 1) * s // g) for c, s, g in zip(cell, job.space, tokens.grid, strict=True)]
        changed[:, :, box[0], box[1], box[2]] *= -1
        moved = attention_weights(job, changed)
        for kind, at in (("space", cell[0]), ("time", cell[1] * columns + cell[2])):
            k = first[kind]
            if int((moved[k] - plain[k]).abs().flatten(1).sum(1).argmax()) != at:
                return False
    return True


def attention_weights(job: Job, inputs: Tensor) -> list[Tensor]:
    """The attentions `(side by side, heads, queries, keys)` of one input, without a graph."""
    with Capture(job.module) as capture, torch.no_grad(), reading_attention() as found:
        capture.forward(inputs)
    return of_several(found.weights)


def pooling_sizes(sizes: Sequence[Sequence[int]]) -> int:
    """How many attentions at the end are of few queries over more tokens, of the sizes of all."""
    few = (s[-2] < s[-1] for s in reversed(sizes))
    return sum(1 for _ in takewhile(bool, few))


def pooled(tokens: TokenGrid, last: Sequence[Tensor], keep: float, take: float) -> Tensor:
    """What the last queries take from each token, `(prefix + cells,)`: where relevance starts.

    Queries of their own (SigLIP) look at all tokens, or at those of the grid. Queries that stand in front of the keys
    (the class token of CaiT) keep a part for themselves.

    Args:
        tokens: how the attentions in front read.
        last: `(queries, keys)` each, in the order of execution.
        keep: see `flow_back`.
        take: see `flow_back`.

    Raises:
        MethodError: they are not over these tokens.
    """
    cells = math.prod(tokens.grid)
    size, count = tokens.prefix + cells, len(last[0])
    found, asking = last[0].new_zeros(size), last[0].new_full((count,), 1 / count)
    for k, matrix in reversed(list(enumerate(last))):
        queries, keys = matrix.shape
        own = next((n for n in (0, count) if keys - n in (size, cells)), None)
        if tokens.kind != "joint" or own is None or queries != count:
            raise MethodError(
                f"The last attention of this network is of {queries} queries over {keys} tokens, which are not the "
                f"{size} tokens of one grid in front of it: use grad-cam or occlusion."
            )
        given = asking @ matrix
        sent_off = own == 0 and k == 0  # queries that came from nowhere keep nothing
        found[size - (keys - own) :] += (1.0 if sent_off else take) * given[own:]
        asking = keep * asking + (take * given[:own] if own else 0.0)
    return found


class Flow:
    """Relevance of the output on its way back through all attentions, `r <- keep r + take r A`, onto the grid.

    Args:
        tokens: how the attentions read.
        keep: what stays where it is (the residual branch).
        take: what moves.
        start: `class` (the first prefix token), `mean` (all tokens of the grid alike), or what each token of a joint
            attention is worth, `(prefix + cells,)`.
        like: a tensor of the type and device to compute in.
    """

    def __init__(self, tokens: TokenGrid, keep: float, take: float, start: str | Tensor, like: Tensor) -> None:
        self.tokens, self.keep, self.take = tokens, keep, take
        frames = tokens.grid[0] if tokens.kind != "joint" else 1
        places = math.prod(tokens.grid) // frames
        first = isinstance(start, str) and start == "class"
        # (prefix tokens, tokens of the grid); for the factorised kind, each frame has prefix tokens of its own.
        self.heads = like.new_zeros(frames if tokens.kind == "factorised" else 1, tokens.prefix)
        self.cells = like.new_zeros(frames, places)
        self.summary = like.new_zeros(tokens.time_prefix + frames)  # whole frames, factorised only
        if tokens.kind == "factorised":
            self.summary[0 if tokens.time_prefix and first else slice(tokens.time_prefix, None)] = 1.0
            self.summary = self.summary / self.summary.sum()
        elif isinstance(start, Tensor):
            self.heads[0], self.cells[0] = start[: tokens.prefix], start[tokens.prefix :]
        elif first:
            self.heads[:, 0] = 1.0
        else:
            self.cells += 1.0 / self.cells.numel()
        self._descended = tokens.kind != "factorised"
        self._left = list(tokens.together)

    def back(self, matrix: Tensor) -> None:
        """Through the last attention that is left, `(side by side, L, L)`."""
        tokens, together, keep, take = self.tokens, self._left.pop(), self.keep, self.take
        frames, places = self.cells.shape
        if tokens.kind == "factorised" and together == "time":
            self.summary = keep * self.summary + take * self.summary @ matrix[0]
            return
        if not self._descended:  # a frame's summary is its class token, or the mean of its places
            per_frame = self.summary[tokens.time_prefix :, None]
            if tokens.prefix:
                self.heads[:, :1] = per_frame
            else:
                self.cells = (per_frame / places).expand(-1, places).clone()
            self._descended = True
        if together == "time":  # each place by itself; prefix tokens take no part
            self.cells = keep * self.cells + take * torch.einsum("ts,stu->us", self.cells, matrix)
            return
        shared = self.heads if tokens.kind == "factorised" else self.heads.expand(frames, -1) / frames
        every = torch.cat([shared, self.cells], 1)
        every = keep * every + take * torch.einsum("fl,flm->fm", every, matrix)
        self.heads, self.cells = every[:, : tokens.prefix], every[:, tokens.prefix :]
        if tokens.kind != "factorised":
            self.heads = self.heads.sum(0, keepdim=True)

    @property
    def map(self) -> Tensor:
        """`(*grid)`."""
        return self.cells.reshape(self.tokens.grid)


def flow_back(tokens: TokenGrid, steps: Sequence[Tensor], keep: float, take: float, start: str | Tensor) -> Tensor:
    """The map of a `Flow` through attentions `(side by side, L, L)`, in the order of execution."""
    flow = Flow(tokens, keep, take, start, steps[0])
    for matrix in reversed(steps):
        flow.back(matrix)
    return flow.map


class AttentionMethod(Method):
    """Base: reads the attentions of each input by itself; `roll` makes maps of them."""

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method on its own."""
        return [m.roll(job) for m in methods]

    @abstractmethod
    def roll(self, job: Job) -> list[Attribution]:
        """One attribution for each target."""

    def parted(self, job: Job, steps: Sequence[Tensor]) -> tuple[TokenGrid, list[Tensor], list[Tensor]]:
        """How the tokens of one input read, its attentions among them, and the poolings behind those.

        `steps` are `(side by side, ..., queries, keys)`, in the order of execution.

        Raises:
            MethodError: they are over no grid of tokens.
        """
        tokens, count = self.grid_of(job, [s.shape for s in steps])
        return tokens, list(steps[:count]), list(steps[count:])

    def grid_of(self, job: Job, sizes: Sequence[Sequence[int]]) -> tuple[TokenGrid, int]:
        """How the tokens of one input read, and how many of its attentions are among them; the others are poolings.

        `sizes` are `(side by side, ..., queries, keys)`, in the order of execution; raises as `parted`.
        """
        if not sizes:
            raise MethodError(NO_ATTENTION)
        count = len(sizes) - pooling_sizes(sizes)
        if any(s[-2] != s[-1] for s in sizes[:count]) or any(s[0] != 1 for s in sizes[count:]):
            raise MethodError(
                "Some attentions of this network are between tokens of two kinds (pooled keys, windows that look "
                "around): use grad-cam or occlusion."
            )
        return token_grid(job, [(s[0], s[-1]) for s in sizes[:count]]), count


@dataclass(frozen=True, kw_only=True)
class RolloutMethod(AttentionMethod):
    """Base: relevance that starts at some tokens, or at the queries of a pooling."""

    start: Literal["auto", "class", "mean"] = "auto"
    keep: ClassVar[float]
    take: ClassVar[float]

    def _map(self, job: Job, steps: Sequence[Tensor]) -> tuple[Tensor, Intervals]:
        """The map `(*grid)` of one input, and what of it the grid covers.

        `steps` are its attentions `(side by side, queries, keys)`, as they count.
        """
        tokens, among, last = self.parted(job, steps)
        start: str | Tensor = self.begin(tokens)
        if last and self.start == "auto":
            start = pooled(tokens, [a[0] for a in last], self.keep, self.take)
        return flow_back(tokens, among, self.keep, self.take, start).float(), tokens.span

    def said(self, sizes: Sequence[Sequence[int]]) -> list[str]:
        """A note on an attention pooling at the end."""
        count = pooling_sizes(sizes)
        if not count or self.start != "auto":
            return []
        queries, keys = sizes[-count][-2:]
        asked = "one query" if queries == 1 else f"{queries} queries"
        return [f"The map starts from the attention pooling at the end of the network: {asked} over {keys} tokens."]

    def begin(self, tokens: TokenGrid) -> str:
        """Where relevance starts: `class` or `mean`."""
        has = tokens.prefix > 0 or tokens.time_prefix > 0
        if self.start == "class" and not has:
            raise MethodError("This transformer has no class token: roll out from the mean of its tokens (start=mean).")
        return ("class" if has else "mean") if self.start == "auto" else self.start


@method(
    "attention-rollout",
    family="attention",
    needs="attention, tokens",
    cost="1 forward",
    paper="Abnar & Zuidema 2020, arXiv:2005.00928, sec. 3; clips: Bertasius et al. 2021, arXiv:2102.05095",
)
@dataclass(frozen=True, kw_only=True)
class AttentionRollout(RolloutMethod):
    """`r_l = r_{l+1} (A_l + I) / 2`, from the class token down to the patches; `A` the mean over heads. `(N, *grid)`.

    Says where information could come from, whatever the target. With divided attention each layer is two steps, over
    the frames at a place and over the places of a frame; with factorised attention, frames are weighed first and each
    is then rolled out by itself.

    Args:
        start: `class`, the first token without a place; `mean`, all others alike; `auto`: what a last attention of few
            queries over all tokens takes from each (attention pooling), else the class token if there is one.
    """

    keep: ClassVar[float] = 0.5
    take: ClassVar[float] = 0.5
    uses_target: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def roll(self, job: Job) -> list[Attribution]:
        """The same map for every target."""
        maps, steps = list[Tensor](), list[Tensor]()
        span: Intervals = ()
        for n in range(len(job.inputs)):
            one = Job(job.module, job.inputs[n : n + 1].detach(), job.targets)
            steps = [w.mean(1) for w in attention_weights(one, one.inputs)]
            values, span = self._map(one, steps)
            maps.append(values)
        found = Attribution(torch.stack(maps), notes=self.said(_sizes(steps)), cost=Cost(forwards=len(maps)), span=span)
        return [found for _ in job.targets]


@method(
    "attention-relevance",
    family="attention",
    needs="gradients, attention, tokens",
    cost="1 forward + 1 backward",
    paper="Chefer et al. 2021, arXiv:2103.15679, eq. 5-6",
)
@dataclass(frozen=True, kw_only=True)
class AttentionRelevance(RolloutMethod):
    """`r_l = r_{l+1} + r_{l+1} A_l`, with `A = mean over heads of relu(dy/dA A)`: rollout for a target. `(N, *grid)`.

    Args:
        start: `class`, the first token without a place; `mean`, all others alike; `auto`: what a last attention of few
            queries over all tokens takes from each (attention pooling), else the class token if there is one.
    """

    keep: ClassVar[float] = 1.0
    take: ClassVar[float] = 1.0
    signed: ClassVar[bool] = False

    def roll(self, job: Job) -> list[Attribution]:
        """One forward an input, one backward a target."""
        maps: list[list[Tensor]] = [[] for _ in job.targets]
        walk = None
        cost = Cost(len(job.inputs), len(job.inputs) * len(job.targets))
        for one in one_by_one(job):
            with Capture(one.module, watch=one.watch, input_gradient=True) as capture:
                with attention_back() as back:
                    _, scores = capture.scored(one.inputs, scored(one.targets))
                sizes = of_several_sizes(back.sizes)
                grid = self.grid_of(one, list(sizes.values()))
                for k, s in enumerate(scores):
                    walk = _Walk(self, grid, sizes)
                    back.met = walk.met
                    capture.gradients([s], last=k == len(scores) - 1)
                    maps[k].append(walk.map())
        assert walk is not None
        notes, span = self.said(list(walk.sizes.values())), walk.tokens.span
        return [relevance_of(torch.stack(m), notes, cost, span) for m in maps]


class _Walk:
    """One target's relevance on its way back through attentions as they come by, from the last; none is kept.

    Args:
        method: what begins where; grid: see `AttentionMethod.grid_of`.
        sizes: of the attentions that count, by their numbers in the order of execution.
    """

    def __init__(self, method: RolloutMethod, grid: tuple[TokenGrid, int], sizes: Mapping[int, Sequence[int]]) -> None:
        self.method, self.sizes = method, sizes
        self.tokens, self._among = grid
        self._left = list(sizes)  # the last comes by first
        self._early: dict[int, Tensor] = {}  # what came before its turn: of blocks side by side
        self._last: list[Tensor] = []
        self._flow: Flow | None = None
        self._seen = False

    def met(self, place: int, weights: Tensor, gradient: Tensor) -> None:
        """`A = mean over heads of relu(dy/dA A)` of an attention that comes by."""
        if place not in self.sizes:
            return
        self._seen = True
        self._early[place] = (gradient * weights).relu().mean(1)
        while self._left and self._left[-1] in self._early:
            self._back(self._early.pop(self._left.pop()))

    def _back(self, matrix: Tensor) -> None:
        if len(self._left) >= self._among:
            self._last.insert(0, matrix[0])
            return
        if self._flow is None:
            method = self.method
            start: str | Tensor = method.begin(self.tokens)
            if self._last and method.start == "auto":
                start = pooled(self.tokens, self._last, method.keep, method.take)
            self._flow = Flow(self.tokens, method.keep, method.take, start, matrix)
        self._flow.back(matrix)

    def map(self) -> Tensor:
        """What reached the grid; an attention that did not come by has no gradient.

        Raises:
            MethodError: none came by.
        """
        if not self._seen:
            raise MethodError(NO_GRADIENT)
        while self._left:
            place = self._left.pop()
            side, queries, keys = self.sizes[place][0], *self.sizes[place][-2:]
            self._back(self._early.pop(place) if place in self._early else torch.zeros(side, queries, keys))
        assert self._flow is not None
        return self._flow.map.float()


def _sizes(weights: Sequence[Tensor]) -> list[torch.Size]:
    return [w.shape for w in weights]


METHODS.alias("generic-attention", of="attention-relevance")


def relevance_of(values: Tensor, notes: list[str], cost: Cost, span: Intervals) -> Attribution:
    """Maps that are not negative, with a note where nothing speaks for the target."""
    if not values.any():
        notes = [*notes, "No attention speaks for the target, so the map is zero: use grad-cam, signed."]
    return Attribution(values.detach(), notes=notes, cost=cost, span=span)
