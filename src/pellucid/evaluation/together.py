"""Maps of several samples drawn in one batch: a pass over sixteen small pictures takes hardly longer than over one.

Only methods whose work is fixed draw so: one that draws random numbers, or that stops when its map is good enough,
would draw another map of a sample in other company, and a run that goes on where it stopped would find other values.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import torch

from pellucid.engine import Cost
from pellucid.engine.batching import default_batch
from pellucid.errors import PellucidError
from pellucid.evaluation.banks.base import AnswerBank
from pellucid.evaluation.banks.redrawn import Question, RedrawingBank
from pellucid.evaluation.competitors import Competitor, Drawer, Drawing, drawing
from pellucid.evaluation.sample import Sample
from pellucid.heatmaps.base import Method, explain_all
from pellucid.models.targets import PerSample, Target
from pellucid.registry import settings_of

Ahead = dict[int, Drawing]
"""What was drawn of a sample in company, by the competitor's `id`."""


def in_company(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Samples in their order, those that follow each other and fit into one batch together."""
    group: list[Sample] = []
    for sample in samples:
        if group and not (len(group) < default_batch(sample.x) and _fit(group[0], sample)):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def _fit(one: Sample, other: Sample) -> bool:
    a, b = one.model, other.model
    alike = (one.x.shape, one.x.dtype, one.seed) == (other.x.shape, other.x.dtype, other.seed)
    return alike and a.module is b.module and a.reading == b.reading and joined([one.target, other.target]) is not None


def joined(targets: Sequence[Target]) -> Target | None:
    """Targets of one row each as one of all rows; None where their kind cannot be joined."""
    first = targets[0]
    if all(type(t) is PerSample and t.reading == first.reading for t in targets):  # type: ignore[attr-defined]
        rows = chain.from_iterable(t.indices for t in targets)  # type: ignore[attr-defined]
        return replace(first, indices=tuple(rows))  # type: ignore[type-var]
    same = type(first).select is Target.select and not first.layers
    return first if same and all(t == first for t in targets) else None


def is_fixed(method: Method) -> bool:
    """Whether the work of a method, and so its map of an input, does not depend on chance or on company."""
    return method.quick() is method and not {"seed", "tolerance"} & set(settings_of(method))


def redrawn_ahead(
    banks: Iterable[AnswerBank], competitors: Sequence[Competitor], samples: Sequence[Sample]
) -> list[dict[AnswerBank, Ahead]]:
    """The same of what banks ask about other inputs or classes, as far as several samples' fit into one batch."""
    found: list[dict[AnswerBank, Ahead]] = [{} for _ in samples]
    for bank in banks:
        if not isinstance(bank, RedrawingBank) or len(samples) < 2:
            continue
        with suppress(PellucidError):
            asked = [(own, s, q) for own, s in zip(found, samples, strict=True) if (q := bank.question(s)) is not None]
            many = default_batch(samples[0].x) // len(asked[0][2][0]) if asked else 0
            for start in range(0, len(asked) if many > 1 else 0, max(many, 1)):
                owns, some, questions = zip(*asked[start : start + many], strict=True)
                for own, ahead in zip(owns, drawn_ahead(competitors, some, questions), strict=True):
                    own[bank] = ahead
    return found


def drawn_ahead(
    competitors: Sequence[Competitor], samples: Sequence[Sample], questions: Sequence[Question] | None = None
) -> list[Ahead]:
    """Of each sample, the maps of methods whose work is fixed; the costs are equal shares of the batch's.

    Where a batch fails, nothing of it is here: each sample is then asked alone, and says what is wrong.

    Args:
        competitors: of whom others than such methods are passed over.
        samples: that fit together.
        questions: as many inputs of each sample as of the others; None: its own question.
    """
    asked = [(s.x, s.target) for s in samples] if questions is None else questions
    found: list[Ahead] = [{} for _ in samples]
    groups: dict[Any, list[Drawer]] = {}
    for c in competitors:
        if isinstance(c, Drawer) and is_fixed(c.method):
            groups.setdefault(c.method.pass_key(), []).append(c)
    target = joined([t for _, t in asked]) if len(samples) > 1 else None
    if target is None or not groups:
        return found
    x = torch.cat([x for x, _ in asked])
    for group in groups.values():
        with suppress(PellucidError):
            for own, drawn in zip(found, _drawn(group, samples, x, target), strict=True):
                own.update(drawn)
    return found


def _drawn(group: Sequence[Drawer], samples: Sequence[Sample], x: torch.Tensor, target: Target) -> list[Ahead]:
    count, each = len(samples), len(x) // len(samples)
    began = time.process_time()
    rows = explain_all([d.method for d in group], samples[0].model, x, [target])
    seconds = (time.process_time() - began) / count
    found: list[Ahead] = [{} for _ in samples]
    for d, (whole,) in zip(group, rows, strict=True):
        cost = Cost(whole.cost.forwards // count, whole.cost.backwards // count, whole.cost.ran)
        every = drawing(d.method, whole, samples[0], seconds)
        maps = every.maps()
        for k, s in enumerate(samples):
            own = slice(k * each, (k + 1) * each)
            one = replace(every, native=every.native[own], geometry=whole.over(s.over), cost=cost, spread=maps[own])
            found[k][id(d)] = one
    return found
