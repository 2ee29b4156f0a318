"""The score of masked inputs: targets fixed on the untouched inputs, one baseline, one seed, many masks.

`masked` opens the scorer that perturbation methods, players and evaluations share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.baselines import DROPPED, Baseline, open_baseline
from pellucid.engine.capture import Capture
from pellucid.engine.masks import SegmentMasks
from pellucid.engine.perturb import MaskScorer, Scorer, Scores
from pellucid.errors import MethodError
from pellucid.models.sliding import SlidingWindow
from pellucid.models.targets import Target
from pellucid.models.window_memory import remembering
from pellucid.numerics.games import UnfinishedError, Value
from pellucid.scoring.job import Job
from pellucid.scoring.tokens import token_scorer


def freeze(job: Job) -> tuple[Target, ...]:
    """The job's targets with whatever they take from the output fixed on the untouched inputs (one forward)."""
    with Capture(job.module, watch=job.watch) as capture:
        output = capture.forward(job.inputs)
        return tuple(t.freeze(output) for t in job.targets)


def score_of(targets: Sequence[Target]) -> Scores:
    """The scores of frozen targets, as a `Scorer` or `Tail` asks for them."""

    def score(output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        return [t.select(rows).score(output, watched) for t in targets]

    return score


def probability_of(targets: Sequence[Target]) -> Scores:
    """Like `score_of`, the targets' probabilities."""

    def score(output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        return [t.select(rows).probability(output, watched) for t in targets]

    return score


@contextmanager
def masked(
    job: Job,
    baseline: str | Tensor,
    seed: int = 0,
    scores: Callable[[Sequence[Target]], Scores] = score_of,
) -> Iterator[MaskScorer]:
    """The scorer of a job's inputs on a baseline, for all its targets at once.

    Raises:
        MethodError: an unknown baseline; or `dropped`, where tokens cannot be dropped soundly.
    """
    ground = None if is_dropped(baseline) else open_baseline(baseline, job.inputs, _seeded(seed))
    targets = freeze(job)
    with _remembered(job), _scorer(job, ground, scores(targets)) as scorer:
        scorer.memory = job.memory
        scorer.cost.forwards += len(job.inputs)  # the pass that fixed the targets
        yield scorer


def _remembered(job: Job) -> AbstractContextManager[object]:
    """Of a network that slides over volumes: windows that a mask does not change are not run again."""
    return remembering() if isinstance(job.module, SlidingWindow) else nullcontext()


def is_dropped(baseline: str | Tensor) -> bool:
    """Whether what is hidden is left out of a transformer, so that nothing stands in for it."""
    return isinstance(baseline, str) and baseline == DROPPED


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _scorer(job: Job, ground: Baseline | None, score: Scores) -> MaskScorer:
    count = len(job.targets)
    if ground is not None:
        return Scorer(job.module, job.inputs, ground, score, targets=count, watch=job.watch)
    dropping = token_scorer(job.module, job.inputs, score, targets=count, watch=job.watch)
    if dropping is None:
        raise MethodError(
            "The baseline 'dropped' takes tokens away, which is sound only on a plain vision transformer (and a score "
            "of its output), and this is none: choose a baseline that shows something, such as zero or blur."
        )
    return dropping


def segment_game(scorer: MaskScorer, labels: Tensor, label: str = "coalitions") -> Value:
    """The scores of one input as a game of its segments `(*space)`, numbered 0 to K - 1."""
    labels = labels.to(scorer.inputs.device)

    def value(coalitions: Tensor) -> Tensor:
        scores, failure = scorer.answered(SegmentMasks(coalitions.float().to(labels.device), labels), label)
        if failure is not None:
            raise UnfinishedError(failure, scores[0]) from failure
        return scores[0]

    return value


def broken_off(evaluations: int, why: str, *, what: str = "map", cure: str = "go on with `pl.more`") -> str:
    """The note under an answer from less than was asked for, since the model failed on the way."""
    return (
        f"The model failed, so the {what} rests on the {evaluations} masked inputs before ({why}): mend it, and {cure}."
    )
