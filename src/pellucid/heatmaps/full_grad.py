"""Full gradients: the input's share of the score and that of every bias, which together are the score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.engine import Capture, Cost
from pellucid.engine.backward import PLAIN, Propagation, RuleTable
from pellucid.engine.rules.intercepts import Bend, Bias, Constant, Degree, Kept, Shift
from pellucid.engine.rules.layers import CONVOLUTIONS, DENSE
from pellucid.engine.rules.pointwise import GATES, POINTWISE
from pellucid.engine.rules.products import NORMS, PADS, PRODUCTS, SPREADS, SUMS, Attention, Opened, Spread, Stop
from pellucid.engine.rules.rectifiers import RECTIFIERS
from pellucid.heatmaps.attention_slopes import one_by_one, scored
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.heatmaps.composites import everything_else
from pellucid.models.layouts import readings
from pellucid.scoring.job import Job
from pellucid.scoring.tokens import entries

_MISSED = 1e-3  # of the score: a gap above it is said


def gradient_rules(keep: Kept) -> RuleTable:
    """Every function led back by its gradient, with a note of what it adds to its linear part."""
    return RuleTable(
        {
            **dict.fromkeys((*POINTWISE, *GATES, *RECTIFIERS, *NORMS, "rsqrt", "reciprocal"), Bend(keep)),
            **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), Bend(keep)),
            **dict.fromkeys(("normalize", "cumprod", "prod", *SPREADS), Bend(keep)),
            **dict.fromkeys((*CONVOLUTIONS, *DENSE), Bias(keep)),
            **dict.fromkeys((*SUMS, *PADS, "batch_norm"), Constant(keep)),
            **dict.fromkeys((*PRODUCTS, "div"), Degree(keep)),
            **dict.fromkeys(("glu", "baddbmm", "addcmul"), Opened()),
            "scaled_dot_product_attention": Attention(),
        },
        plain=PLAIN,
    )


def libra_rules(keep: Kept) -> RuleTable:
    """Gates, attention weights and the spread of norms are constants, products are shared: biases are left over."""
    rules = everything_else()
    return RuleTable(
        {
            **rules,
            **dict.fromkeys(RECTIFIERS, Bend(keep)),  # 0, but where one saturates
            **dict.fromkeys((*CONVOLUTIONS, *DENSE), Bias(keep)),
            **dict.fromkeys((*SUMS, *PADS, "batch_norm"), Constant(keep)),
            **{name: Shift(keep, rules[name]) for name in NORMS},
            "softmax": Stop(Bend(keep)),
            **dict.fromkeys(("log_softmax", "logsumexp"), Bend(keep)),
            **dict.fromkeys(SPREADS, Spread(Bend(keep))),
        },
        plain=PLAIN,
    )


@dataclass
class _Places:
    """Shares of the score gathered on the input's grid.

    Args:
        space: of the input.
        prefix: tokens without a place, if tokens' places are known; tokens: how many there are.
        absolute: sizes instead of shares, where shares of several channels meet.
    """

    space: tuple[int, ...]
    tokens: int
    prefix: int
    grid: tuple[int, ...]
    absolute: bool
    total: Tensor = field(init=False)
    nowhere: Tensor = field(init=False)  # of shares that have no place
    whole: Tensor = field(init=False)  # of all shares, signed

    def begin(self, like: Tensor) -> None:
        """Another score."""
        self.total = torch.zeros(self.space, dtype=torch.float64, device=like.device)
        self.nowhere, self.whole = (torch.zeros((), dtype=torch.float64, device=like.device) for _ in range(2))

    def keep(self, name: str, share: Tensor) -> None:
        """What a function takes, at each place of its answer (of one input)."""
        share, axis = share.detach(), self._channels(name, tuple(share.shape))
        signed = _summed(share, axis)
        self.whole += signed.sum()
        rows = _summed(share.abs(), axis) if self.absolute else signed
        if axis is None:
            self.nowhere += rows.sum()
            return
        found = rows[0, self.prefix :].reshape(self.grid) if self._tokens(share.shape) else rows[0]
        self.nowhere += rows.sum() - found.sum()
        self.total += _spread(found, self.space)

    def _tokens(self, shape: Sequence[int]) -> bool:
        return len(shape) == 3 and tuple(shape[:2]) == (1, self.tokens) and bool(self.grid)

    def _channels(self, name: str, shape: tuple[int, ...]) -> int | None:
        """Which axis of an answer are its channels; None where the places of the others are not known."""
        if self._tokens(shape):
            return -1
        if len(shape) != len(self.space) + 2 or shape[0] != 1:
            return None
        kinds = [r.kind for r in readings(shape, self.space) if r.kind != "tokens"]
        if not kinds:
            return None
        return -1 if name in ("linear", "layer_norm", "native_layer_norm") or kinds[0] == "channels-last" else 1

    def map(self) -> Tensor:
        """`(*space)`: what has no place is spread evenly."""
        return self.total + self.nowhere / self.total.numel()


def _summed(share: Tensor, axis: int | None) -> Tensor:
    """Sums over one axis as precise as the network, over all others then in double precision."""
    axis = -1 if axis is None and share.ndim else axis
    whole = share if axis is None else share.sum(axis, dtype=torch.promote_types(share.dtype, torch.float32))
    return whole.double()


def _spread(cells: Tensor, space: tuple[int, ...]) -> Tensor:
    """Cells drawn over the places they stand for, linearly between their middles; each keeps its sum."""
    for axis, size in enumerate(space):
        count = cells.shape[axis]
        if count == size:
            continue
        eye = torch.eye(count, dtype=cells.dtype, device=cells.device)[None]
        weights = functional.interpolate(eye, size=size, mode="linear")[0] if size > count else _pooled(eye, size)
        weights = weights / weights.sum(1, keepdim=True)
        cells = torch.tensordot(cells.movedim(axis, -1), weights, dims=1).movedim(-1, axis)
    return cells


def _pooled(eye: Tensor, size: int) -> Tensor:
    return functional.adaptive_avg_pool1d(eye, size)[0]


@dataclass(frozen=True, kw_only=True)
class FullGradMethod(Method):
    """Base: a subclass is its table.

    Args:
        absolute: sizes of all shares, as in the paper's pictures, in place of the shares; they do not sum to the score.
    """

    absolute: bool = False

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """Shares have two signs."""
        return not self.absolute

    @abstractmethod
    def rules(self, keep: Kept) -> RuleTable:
        """The table, whose rules note what functions take for themselves."""

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method on its own."""
        return [m._explain(job) for m in methods]

    def _explain(self, job: Job) -> list[Attribution]:
        """Inputs one by one: what a function takes has a place, and its batch axis may be anywhere."""
        maps: list[list[Tensor]] = [[] for _ in job.targets]
        gaps: list[list[float]] = [[] for _ in job.targets]
        biases: list[list[float]] = [[] for _ in job.targets]
        said: list[str] = []
        for one in one_by_one(job):
            places = _places(one, self.absolute)
            with Capture(one.module, watch=one.watch, input_gradient=True) as capture:
                run = Propagation(self.rules(places.keep), capture.module)

                def score(output: Any, watched: Any, run: Propagation = run, one: Job = one) -> list[Tensor]:
                    with run.paused():
                        return scored(one.targets)(output, watched)

                with run:
                    _, scores = capture.scored(one.inputs, score)
                said = run.said()
                for k, s in enumerate(scores):
                    places.begin(one.inputs)
                    (found,) = capture.gradients([s], last=k == len(scores) - 1)
                    share = one.inputs[0].double() * found["input"][0].double()
                    whole = places.whole + share.sum()
                    missing = abs(float(whole - s.detach().double().sum()))
                    gaps[k].append(missing / max(abs(float(s.detach().sum())), 1e-12))
                    biases[k].append(float(places.whole))
                    maps[k].append((share.abs() if self.absolute else share).sum(0) + places.map())
        cost = Cost(len(job.inputs), len(job.inputs) * len(job.targets))
        return [
            Attribution(
                torch.stack(m).float(),
                notes=[*said, *_incomplete(gap)],
                facts={"completeness_gap": gap, "in_biases": taken},
                cost=cost,
            )
            for m, gap, taken in zip(maps, gaps, biases, strict=True)
        ]


def _places(one: Job, absolute: bool) -> _Places:
    tokens = next(iter(entries(one.module, one.inputs)), None)
    if tokens is None:
        return _Places(one.space, 0, 0, (), absolute)
    layout = tokens.layout
    return _Places(one.space, layout.prefix + layout.cells, layout.prefix, layout.grid, absolute)


def _incomplete(gaps: list[float]) -> list[str]:
    if max(gaps) <= _MISSED:
        return []
    return [f"The completeness gap is {max(gaps):.1%}: that share of the score is in no pixel and no bias."]


@method(
    "full-grad",
    family="gradient",
    needs="gradients, functions",
    cost="1 forward + 1 backward, and two small backwards of what bends",
    paper="Srinivas & Fleuret 2019, arXiv:1905.00780, eq. 2-4",
)
@dataclass(frozen=True, kw_only=True)
class FullGrad(FullGradMethod):
    """`x dy/dx + sum over functions of b g`, `b` what a function adds to its linear part; sums to the score.

    `(N, *space)`. Biases of layers and normalisations, constants in sums, and the bends of activations, softmax and
    products, each drawn where it is in its layer. What has no place (a classifier's bias) is spread over the picture.

    Args:
        absolute: sizes of all shares, as in the paper's pictures, in place of the shares; they do not sum to the score.
    """

    def rules(self, keep: Kept) -> RuleTable:
        """Gradients."""
        return gradient_rules(keep)


@method(
    "libra-gradients",
    family="gradient",
    needs="gradients, functions",
    cost="1 forward + 1 backward",
    paper="Mehri et al. 2025, arXiv:2411.16760, sec. 4",
)
@dataclass(frozen=True, kw_only=True)
class LibraGradients(FullGradMethod):
    """FullGrad by balanced gradients: gates, attention weights and spreads held fixed, products shared. `(N, *space)`.

    What then is left over beside `x g` are biases alone, and the map sums to the score.

    Args:
        absolute: sizes of all shares in place of the shares; they do not sum to the score.
    """

    def rules(self, keep: Kept) -> RuleTable:
        """Balanced gradients."""
        return libra_rules(keep)
