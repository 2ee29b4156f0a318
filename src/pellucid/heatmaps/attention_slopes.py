"""One input's attentions and what each score would gain by more of them: what all methods on attention begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import Capture
from pellucid.engine.attention import reading_attention
from pellucid.engine.batching import adaptive_batches, default_batch
from pellucid.errors import MethodError
from pellucid.models.targets import Target
from pellucid.scoring.job import Job

NO_GRADIENT = (
    "No gradient leads from the score to any attention of this network (it is detached, or behind the score): use "
    "attention-rollout or occlusion."
)
NO_ATTENTION = (
    "The model runs no attention that can be read (a softmax or scaled dot-product attention over four axes): use "
    "grad-cam or occlusion."
)


@dataclass(frozen=True)
class Slopes:
    """What was read of one input.

    Attributes:
        weights: `(side by side, heads, queries, keys)` of each attention, in the order of execution, detached.
        gradients: of each target's score to each of them, of the same shapes; zero where none leads there.
    """

    weights: list[Tensor]
    gradients: list[list[Tensor]]


def one_by_one(job: Job) -> Iterator[Job]:
    """The job of each input by itself."""
    for n in range(len(job.inputs)):
        row = torch.tensor([n])
        yield replace(
            job, inputs=job.inputs[n : n + 1].detach(), targets=tuple(t.select(row) for t in job.targets), memory=None
        )


def of_several(weights: Sequence[Tensor]) -> list[Tensor]:
    """Attentions over more than one token: over a single one there is nothing to weigh."""
    return [w for w in weights if w.shape[-1] > 1]


def of_several_sizes(sizes: Sequence[Sequence[int]]) -> dict[int, Sequence[int]]:
    """The same of the sizes of attentions, by their numbers in the order of execution."""
    return {k: size for k, size in enumerate(sizes) if size[-1] > 1}


def scored(targets: Sequence[Target]) -> Callable[[Any, Mapping[str, Tensor]], list[Tensor]]:
    """The scores of targets, as a `Capture` asks for them."""
    return lambda output, watched: [t.score(output, watched) for t in targets]


def read_slopes(one: Job) -> Slopes:
    """One forward pass of one input, and a backward pass for each target.

    Raises:
        MethodError: there is no attention, or no gradient leads to any.
    """
    with Capture(one.module, watch=one.watch, input_gradient=True) as capture:
        with reading_attention() as found:
            _, scores = capture.scored(one.inputs, scored(one.targets))
        weights = of_several(found.weights)
        if not weights:
            raise MethodError(NO_ATTENTION)
        gradients = []
        for s in scores:
            slopes = torch.autograd.grad(s.sum(), weights, retain_graph=True, allow_unused=True)
            if all(g is None for g in slopes):
                raise MethodError(NO_GRADIENT)
            gradients.append([torch.zeros_like(w) if g is None else g for g, w in zip(slopes, weights, strict=True)])
    return Slopes([w.detach() for w in weights], gradients)


def mean_last_slopes(one: Job, steps: int) -> list[Tensor]:
    """For each target, the gradient of its score to the last attention, averaged on the way from a zero input to it.

    The mean is taken at the midpoints of equal steps; targets must be frozen.

    Returns:
        One tensor `(heads, queries, keys)` for each target.
    """
    places = (torch.arange(steps) + 0.5) / steps
    totals: list[Tensor | None] = [None] * len(one.targets)

    def run(start: int, stop: int) -> None:
        fractions = places[start:stop].to(one.inputs).reshape(-1, *[1] * (one.inputs.ndim - 1))
        row = torch.zeros(stop - start, dtype=torch.long)
        targets = [t.select(row) for t in one.targets]
        with Capture(one.module, watch=one.watch, input_gradient=True, edited=True) as capture:
            with reading_attention() as found:
                _, scores = capture.scored(one.inputs * fractions, scored(targets))
            weights = of_several(found.weights)
            if not weights:
                raise MethodError(NO_ATTENTION)
            last = weights[-1]
            if len(last) != stop - start:
                raise MethodError(
                    "The last attention of this network is not over all tokens of one input: use grad-cam or occlusion."
                )
            slopes = [torch.autograd.grad(s.sum(), last, retain_graph=True, allow_unused=True)[0] for s in scores]
        if any(g is None for g in slopes):
            raise MethodError(NO_GRADIENT)
        for k, g in enumerate(slopes):
            old = totals[k]
            totals[k] = g.sum(0) / steps if old is None else old + g.sum(0) / steps

    adaptive_batches(run, steps, min(steps, default_batch(one.inputs)))
    return [t for t in totals if t is not None]
