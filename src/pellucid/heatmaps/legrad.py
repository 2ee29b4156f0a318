"""LeGrad: each layer's tokens are given to the head by themselves, and its own attention is asked what they gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, Cost
from pellucid.engine.attention_back import AttentionsBack, attention_back
from pellucid.engine.hooks import Hooks
from pellucid.engine.leaves import first_tensor, replace_first_tensor
from pellucid.errors import MethodError
from pellucid.heatmaps.attention import AttentionMethod, relevance_of
from pellucid.heatmaps.attention_rows import AttentionRows
from pellucid.heatmaps.attention_slopes import NO_GRADIENT, of_several_sizes, one_by_one
from pellucid.heatmaps.base import Attribution, method
from pellucid.models.spans import Intervals
from pellucid.scoring.job import Job
from pellucid.scoring.tokens import entries

_SAME = 1e-3  # of the score: what the head may say otherwise of the last layer's tokens in a batch


class _Layers:
    """The blocks of a transformer in one pass: cut apart in front of each, and all handed to the head as a batch."""

    def __init__(self, module: nn.Module, first_block: str, found: AttentionsBack) -> None:
        parent = module.get_submodule(first_block.rpartition(".")[0])
        self.blocks = list(parent.children())
        self._found = found
        self.attended: list[int] = []  # how many attentions had run behind each block
        self.cuts: list[Tensor] = []  # the tokens in front of each block
        self.tokens: list[Tensor] = []  # and behind

    def watch(self, hooks: Hooks) -> None:
        """Cut and hand over."""
        for block in self.blocks:
            hooks.before(block, self._cut)
            hooks.behind(block, self._hand_over)

    def _cut(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tokens = first_tensor((args, kwargs))
        if tokens is None:
            raise MethodError("A block of this network is given no tokens: use attention-relevance.")
        self.cuts.append(tokens.detach().requires_grad_())
        return replace_first_tensor((args, kwargs), self.cuts[-1])

    def _hand_over(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        tokens = first_tensor(output)
        if tokens is None:
            raise MethodError("A block of this network answers no tokens: use attention-relevance.")
        self.tokens.append(tokens)
        self.attended.append(len(of_several_sizes(self._found.sizes)))
        if len(self.tokens) < len(self.blocks):
            return None
        return replace_first_tensor(output, torch.cat(self.tokens))


class _Gains:
    """What each layer gains, `mean over heads and queries of relu(ds_l / dA_l)`, as its attention comes by."""

    def __init__(self, rows: AttentionRows, places: list[int]) -> None:
        self._rows, self._places = rows, places
        self._found: dict[int, Tensor] = {}

    def met(self, place: int, weights: Tensor, gradient: Tensor) -> None:
        """Of an attention between tokens `(1, tokens)`; a pooling has all layers as its batch."""
        if place in self._places:
            self._found[place] = self._rows.all_of(gradient.clamp(min=0).mean(1)).mean(1)

    def taken(self) -> Tensor:
        """`(layers, tokens)` of the score that was led back, 0 where no gradient came by; the next begins.

        Raises:
            MethodError: none came by.
        """
        found, self._found = self._found, {}
        if not found:
            raise MethodError(NO_GRADIENT)
        nothing = torch.zeros_like(next(iter(found.values())))
        return torch.cat([found.get(place, nothing) for place in self._places])


@method(
    "legrad",
    family="attention",
    needs="gradients, attention, tokens",
    cost="2 forwards + 1 backward",
    paper="Bousselham et al. 2024, arXiv:2404.03214, eq. 4-8",
)
@dataclass(frozen=True, kw_only=True)
class LeGrad(AttentionMethod):
    """`mean over layers, heads and queries of relu(ds_l / dA_l)`, `s_l` the score of layer `l`'s own tokens.

    `(N, *grid)`. The head reads every layer's tokens as if it were the last; no attention map is multiplied.

    Args:
        first: number of the first layer that counts, from 0.
    """

    first: int = 0
    signed: ClassVar[bool] = False

    def roll(self, job: Job) -> list[Attribution]:
        """One forward, one with the layers cut apart, and one backward a target, for each input."""
        if job.watch:
            raise MethodError("legrad asks the network's head, and this target is inside the network: use grad-cam.")
        maps: list[list[Tensor]] = [[] for _ in job.targets]
        span: Intervals = ()
        for one in one_by_one(job):
            rows, found = self._layers(one)
            for k, layers in enumerate(found):
                maps[k].append(rows.map_of(layers.mean(0, keepdim=True)))
            span = rows.tokens.span
        cost = Cost(2 * len(job.inputs), len(job.inputs) * len(job.targets))
        return [relevance_of(torch.stack(m), [], cost, span) for m in maps]

    def _layers(self, one: Job) -> tuple[AttentionRows, list[Tensor]]:
        """How the tokens of one input read, and for each target what each layer gains, `(layers, tokens)`."""
        with Capture(one.module) as capture, torch.no_grad(), attention_back() as back:
            output = capture.forward(one.inputs)
            targets = [t.freeze(output) for t in one.targets]
            plain = [t.score(output, {}) for t in targets]
        sizes = list(of_several_sizes(back.sizes).values())
        tokens, count = self.grid_of(one, sizes)
        last = len(sizes) - count
        rows = AttentionRows(tokens, "mean")
        entry = next((e for e in entries(one.module, one.inputs)), None)
        if entry is None or tokens.kind != "joint" or last > 1:
            raise MethodError(
                "legrad needs a row of blocks with joint attention over all tokens, and at most one attention pooling "
                "behind them: use attention-relevance."
            )
        with Capture(one.module, input_gradient=True, edited=True) as capture:
            with attention_back() as back, Hooks() as hooks:
                layers = _Layers(capture.module, entry.block, back)
                if not 0 <= self.first < len(layers.blocks):
                    raise MethodError(f"The network has {len(layers.blocks)} layers, and first is {self.first}.")
                layers.watch(hooks)
                output = capture.forward(one.inputs)
            row = torch.zeros(len(layers.blocks), dtype=torch.long)
            with torch.enable_grad():
                scores = [t.select(row).score(output, {}) for t in targets]
            self._prove(scores, plain, layers)
            places = list(of_several_sizes(back.sizes))
            gains = _Gains(rows, places[count:] if last else places[:count])
            back.met = gains.met
            found = []
            leaves = layers.tokens if last else layers.cuts  # a pooling's gain is the head's, others are a layer's own
            for s in scores:
                torch.autograd.grad(s.sum(), leaves, retain_graph=True, allow_unused=True)
                found.append(gains.taken()[self.first :])
        return rows, found

    def _prove(self, scores: list[Tensor], plain: list[Tensor], layers: _Layers) -> None:
        count = len(layers.blocks)
        steps = [b - a for a, b in zip([0, *layers.attended], layers.attended, strict=False)]
        same = all(
            s.shape == (count,) and abs(float(s[-1].detach()) - float(p[0])) <= _SAME * max(1.0, abs(float(p[0])))
            for s, p in zip(scores, plain, strict=True)
        )
        if not same or len(layers.attended) != count or set(steps) != {1}:
            raise MethodError(
                "The head of this network cannot be asked about each layer's tokens by themselves (its blocks are not "
                "one attention each, or it mixes a batch): use attention-relevance."
            )
