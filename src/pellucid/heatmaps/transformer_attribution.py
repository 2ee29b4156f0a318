"""Transformer attribution: rollout of attentions, each head weighed by its gradient and its own relevance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.backward import Call, Propagation, Rule, RuleTable, carrier
from pellucid.engine.rules.pointwise import Pass
from pellucid.engine.rules.products import NORMS, Balanced
from pellucid.errors import MethodError
from pellucid.heatmaps.attention import RolloutMethod, relevance_of
from pellucid.heatmaps.attention_slopes import one_by_one, read_slopes, scored
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.composites import table
from pellucid.heatmaps.lrp import Excitation
from pellucid.models.spans import Intervals
from pellucid.scoring.job import Job

_SAME = 1e-3  # what an attention may differ by between the plain pass and the pass by rules


@dataclass(frozen=True)
class KeptAttention(Rule):
    """Another rule, whose answers are kept where they are attention weights."""

    rule: Rule
    kept: list[Tensor] = field(default_factory=list)

    def __call__(self, call: Call) -> Any:
        """That rule's answer."""
        answer = self.rule(call)
        if isinstance(answer, Tensor) and answer.ndim >= 3 and answer.shape[-1] > 1:
            self.kept.append(answer)
        return answer


def relevance_rules(softmax: Rule) -> RuleTable:
    """Positive products in layers with weights; activations, softmax and norms pass on; sums are balanced."""
    winners = Excitation()
    return table(winners, winners).with_rules(softmax=softmax, add=Balanced(), **dict.fromkeys(NORMS, Pass()))


@method(
    "transformer-attribution",
    family="attention",
    needs="gradients, attention, tokens, functions",
    cost="2 forwards + 2 backwards, and the forwards of the rules",
    paper="Chefer et al. 2021, arXiv:2012.09838, eq. 8-14",
)
@dataclass(frozen=True, kw_only=True)
class TransformerAttribution(RolloutMethod):
    """`r_l = r_{l+1} + r_{l+1} A_l`, with `A = mean over heads of relu(dy/dA R)`, `R` the attention's relevance.

    `(N, *grid)`. Relevance is led back by the paper's rules: of layers with weights what excites takes part, each
    factor of a product takes half, the branches of a sum share by their totals.

    Args:
        start: `class`, the first token without a place; `mean`, all others alike; `auto`: what a last attention of few
            queries over all tokens takes from each (attention pooling), else the class token if there is one.
    """

    keep: ClassVar[float] = 1.0
    take: ClassVar[float] = 1.0
    signed: ClassVar[bool] = False

    def roll(self, job: Job) -> list[Attribution]:
        """A plain pass and one by rules for each input, each led back once for each target."""
        maps: list[list[Tensor]] = [[] for _ in job.targets]
        steps: list[Tensor] = []
        notes: list[str] = []
        span: Intervals = ()
        count = len(job.inputs)
        cost = Cost(2 * count, 2 * count * len(job.targets))
        for one in one_by_one(job):
            read = read_slopes(one)
            relevances, notes = self._relevances(one, read.weights)
            for k, slopes in enumerate(read.gradients):
                steps = [(g * r).relu().mean(1) for g, r in zip(slopes, relevances[k], strict=True)]
                values, span = self._map(one, steps)
                maps[k].append(values)
        return [relevance_of(torch.stack(m), [*notes, *self.said([w.shape for w in steps])], cost, span) for m in maps]

    def _relevances(self, one: Job, weights: list[Tensor]) -> tuple[list[list[Tensor]], list[str]]:
        """Relevance of each attention, as `weights`, for each target; the score has a relevance of 1."""
        kept = KeptAttention(Pass())
        with Capture(one.module, watch=one.watch, input_gradient=True) as capture:
            run = Propagation(relevance_rules(kept), capture.module)

            def score(output: Any, watched: Any) -> list[Tensor]:
                with run.paused():
                    return scored(one.targets)(output, watched)

            with run:
                _, scores = capture.scored(one.inputs, score)
            # Torch's multi-head attention that shows its weights computes them with the heads in the batch.
            fitting = [a for a in kept.kept if any(a.numel() == w.numel() for w in weights)]
            same = len(fitting) == len(weights) and all(
                a.numel() == w.numel() and torch.allclose(a.detach().reshape_as(w), w, atol=_SAME)
                for a, w in zip(fitting, weights, strict=True)
            )
            if not same:
                raise MethodError(
                    "The attentions of this network are not the same by rules (fused, or in a script), so their "
                    "relevance cannot be read: use attention-relevance."
                )
            found = []
            for s in scores:
                slopes = torch.autograd.grad(s.sum(), fitting, retain_graph=True, allow_unused=True)
                whole = carrier(s.detach()).sum()
                found.append(
                    [
                        torch.zeros_like(w) if g is None else (carrier(w) * g.reshape_as(w) / whole)
                        for g, w in zip(slopes, weights, strict=True)
                    ]
                )
        return found, run.said()
