"""The loop: sample by sample, every competitor's map is drawn once, every bank asked once, every metric read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from pellucid.errors import MethodError, PellucidError, UnsteadyError
from pellucid.evaluation.banks.base import AnswerBank
from pellucid.evaluation.banks.curves import RankCurves, RankedScores
from pellucid.evaluation.banks.maps import OneOfAll
from pellucid.evaluation.competitors import Competitor, Drawing, class_of, draw_all
from pellucid.evaluation.metrics.registry import Metric
from pellucid.evaluation.sample import Candidate, Inquiry, Sample
from pellucid.evaluation.saved_samples import SavedSample, SavedSamples
from pellucid.evaluation.schedule import Schedule
from pellucid.evaluation.together import Ahead, drawn_ahead, in_company, redrawn_ahead
from pellucid.progress import task

Array = NDArray[np.float64]
SHOWN = 32  # cells of a shown map along its longest axis


@dataclass
class MethodRow:
    """One competitor on one sample.

    Attributes:
        values: of each metric, by name; NaN where there is none.
        forwards: passes that its map took; backwards likewise.
        backwards: see `forwards`.
        seconds: of processor time that its map took.
        curves: probabilities `(2, S + 1)`, most and least relevant first; empty where no such curves were asked for.
        shown: its map, coarse, for the page.
        said: what went wrong, one sentence each.
    """

    values: dict[str, float] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0
    seconds: float = math.nan
    curves: list[list[float]] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class MeasuredSample:
    """All competitors on one sample.

    Attributes:
        sample: which one.
        rows: one a competitor.
        shape: of the shown maps.
        forwards: passes that masked inputs took.
    """

    sample: Sample
    rows: list[MethodRow]
    shape: tuple[int, ...]
    forwards: int


def measure(
    samples: Iterable[Sample], schedule: Schedule, saved: SavedSamples | None = None, count: int | None = None
) -> Iterator[MeasuredSample]:
    """Sample by sample.

    Args:
        samples: which may be opened as they are needed.
        schedule: what is asked of whom.
        saved: where finished rows are kept and found again.
        count: of the samples, if it is known.

    Raises:
        UnsteadyError: the model answers the same input differently.
    """
    with task("evaluation", count) as advance:
        for group in in_company(samples):
            kept = [None if saved is None else saved.of(sample, schedule) for sample in group]
            done = [_finished(schedule, one) for one in kept]
            asked = [c for k, c in enumerate(schedule.competitors) if any(k not in rows for rows in done)]
            drawn = drawn_ahead(asked, group)
            redrawn = redrawn_ahead(schedule.banks, asked, group)
            for sample, one, rows, own, others in zip(group, kept, done, drawn, redrawn, strict=True):
                yield _measured(sample, schedule, one, rows, own, others)
                advance(1)


def _finished(schedule: Schedule, saved: SavedSample | None) -> dict[int, MethodRow]:
    """Rows that are kept, by the competitor's number."""
    if saved is None:
        return {}
    numbered = enumerate(schedule.competitors)
    return {k: MethodRow(**values) for k, c in numbered if (values := saved.row(c)) is not None}


def _measured(
    sample: Sample,
    schedule: Schedule,
    saved: SavedSample | None,
    rows: dict[int, MethodRow],
    ahead: Ahead,
    redrawn: dict[AnswerBank, Ahead],
) -> MeasuredSample:
    competitors = schedule.competitors
    todo = [k for k in range(len(competitors)) if k not in rows]
    shape = shown_shape(sample.space)
    forwards = 0
    if todo:
        known = {} if saved is None else saved.memories
        fresh = {k: MethodRow(dict.fromkeys((m.name for m in schedule.metrics), math.nan)) for k in todo}
        drawn = draw_all([competitors[k] for k in todo], sample.model, sample.x, sample.target, sample, ahead)
        candidates = _candidates(todo, drawn, fresh, competitors, shape)
        with Inquiry(sample, schedule.forwards(sample.space, len(todo)), known, redrawn) as inquiry:
            banks = schedule.banks
            put_together = {read for bank in banks for read in bank.reads}
            for bank, metrics in banks.items():
                if candidates:
                    answers = _read(bank, metrics, inquiry, candidates, fresh)
                    inquiry.answered |= {bank: answers} if bank in put_together else {}
            forwards = inquiry.forwards
        rows |= fresh
        if saved is not None:
            saved.save({competitors[k]: row for k, row in fresh.items()})
    return MeasuredSample(sample, [rows[k] for k in range(len(competitors))], shape, forwards)


def _candidates(
    todo: Sequence[int],
    drawn: Sequence[Drawing | Exception],
    rows: dict[int, MethodRow],
    competitors: Sequence[Competitor],
    shape: tuple[int, ...],
) -> dict[int, Candidate]:
    """The maps that can be measured; of the others it is said why not."""
    found: dict[int, Candidate] = {}
    for k, drawing in zip(todo, drawn, strict=True):
        if isinstance(drawing, Drawing) and not drawing.native.isfinite().all():
            drawing = MethodError(f"The map of {competitors[k].name} holds NaN or infinity, so it is not measured.")  # noqa: PLW2901
        if isinstance(drawing, Exception):
            rows[k].said.append(str(drawing))
            continue
        found[k] = drawing.candidates(competitors[k])[0]
        rows[k].forwards, rows[k].backwards = drawing.cost.forwards, drawing.cost.backwards
        rows[k].seconds = drawing.seconds
        rows[k].shown = _pooled(found[k].values, shape).flatten().tolist()
    return found


def _read(
    bank: AnswerBank,
    metrics: Sequence[Metric],
    inquiry: Inquiry,
    candidates: dict[int, Candidate],
    rows: dict[int, MethodRow],
) -> list[Any]:
    """One bank's answers, and what its metrics read from them; a failure is said, and the rest goes on."""
    try:
        answers = bank.answers(inquiry, list(candidates.values()))
    except UnsteadyError:
        raise
    except PellucidError as error:
        answers = [error] * len(candidates)
    for k, answer in zip(candidates, answers, strict=True):
        if isinstance(answer, Exception):
            rows[k].said += [f"{', '.join(m.name for m in metrics)}: {answer}"] if metrics else []
            continue
        if isinstance(bank, RankCurves) and isinstance(answer, RankedScores) and bank.unit == "pixels":
            rows[k].curves = rows[k].curves or [answer.morf.tolist(), answer.lerf.tolist()]
        for m in metrics if answer is not None else ():
            rows[k].values[m.name] = float(m.measure(answer))
    return answers


def shown_shape(space: Sequence[int]) -> tuple[int, ...]:
    """The size of a shown map."""
    return tuple(max(1, min(n, round(SHOWN * n / max(space)))) for n in space)


def _pooled(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    pool = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}[len(shape)]
    found: Tensor = pool(values[None, None].float(), shape)[0, 0]  # type: ignore[arg-type]
    return found


def read_across(measured: Sequence[MeasuredSample], metrics: Sequence[Metric]) -> None:
    """Fill in what is read from all samples together: of those that a method has a map of, all of one size."""
    numbers = [class_of(m.sample.target) for m in measured]
    known = [
        n for n, number in enumerate(numbers) if isinstance(number, int) and measured[n].shape == measured[0].shape
    ]
    read = [m for m in metrics if m.bank.across]
    for column in _by_competitor(measured) if read else ():
        able = [n for n in known if column[n].shown]
        maps = np.array([column[n].shown for n in able], np.float64)
        classes = np.array([numbers[n] for n in able], np.int64)
        for at, n in enumerate(able):
            column[n].values |= {m.name: m.measure(OneOfAll(maps, classes, at)) for m in read}


def values_of(measured: Sequence[MeasuredSample], metrics: Sequence[Metric]) -> Array:
    """`(competitors, metrics, samples)`."""
    return np.array(
        [
            [[row.values.get(m.name, math.nan) for row in column] for m in metrics]
            for column in _by_competitor(measured)
        ],
        np.float64,
    )


def _by_competitor(measured: Sequence[MeasuredSample]) -> list[tuple[MethodRow, ...]]:
    return list(zip(*(m.rows for m in measured), strict=True))
