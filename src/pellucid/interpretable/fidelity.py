"""How far a readable model may be believed: measured on held-out pictures, beside what costs nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.interpretable.base import log_probabilities
from pellucid.interpretable.numerics import Array
from pellucid.numerics.statistics import bootstrap_mean


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval over held-out pictures."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @classmethod
    def of(cls, rows: NDArray[Any], seed: int = 0) -> Interval:
        """The mean of one figure a picture."""
        mean, low, high = bootstrap_mean(rows, seed=seed)
        return cls(float(mean), float(low), float(high))


@dataclass
class Fidelity:
    """The fidelity card.

    Attributes:
        agreement: share of pictures on which the top class is the teacher's.
        r2: of the teacher's log-probabilities, centred in each picture (floor 0.001): 1 says all, 0 no more than the
            mean picture.
        divergence: mean KL divergence of the answer from the teacher's, in nats.
        accuracy: share of pictures whose top class is the true one; None where the truth is not known.
        teacher_accuracy: the teacher's.
        complexity: how much there is to read, and `unit`, what is counted.
        stability: agreement between this model and ones fitted to resampled training pictures.
        baselines: agreement of models that know nothing: `majority class`, `random concepts`.
        count: held-out pictures.
        wrong: numbers of the held-out pictures on which model and teacher disagree.
        notes: what a reader must know.
        taught: whether there was a teacher; otherwise `agreement` is with the truth.
    """

    agreement: Interval
    r2: Interval
    divergence: Interval
    complexity: int
    unit: str
    count: int
    accuracy: Interval | None = None
    teacher_accuracy: Interval | None = None
    stability: float | None = None
    baselines: dict[str, Interval] = field(default_factory=dict)
    wrong: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    taught: bool = True

    @property
    def line(self) -> str:
        """The card in one sentence."""
        rivals = ", ".join(f"{name} {b.value:.0%}" for name, b in self.baselines.items())
        a = self.agreement
        share, low, high = (f"{v:.0%}" for v in (a.value, a.low, a.high))
        if self.taught:
            text = f"agrees with the teacher on {share} [{low}, {high}] of {self.count} held-out pictures"
        else:
            text = f"right on {share} [{low}, {high}] of {self.count} held-out pictures"
        text += f" ({rivals})" if rivals else ""
        if self.accuracy and self.teacher_accuracy:
            both = f"right on {self.accuracy.value:.0%}, the teacher on {self.teacher_accuracy.value:.0%}"
            text = "; ".join((text, both))
        return f"{text}; {self.complexity} {self.unit}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fidelity:
        """The inverse of `as_dict`."""
        nan = float("nan")

        def interval(value: dict[str, float | None] | None) -> Interval | None:
            return None if value is None else Interval(**{k: nan if v is None else v for k, v in value.items()})

        read = {k: interval(values[k]) for k in ("agreement", "r2", "divergence", "accuracy", "teacher_accuracy")}
        read["baselines"] = {k: interval(v) for k, v in values["baselines"].items()}  # type: ignore[assignment]
        return cls(**{**values, **read})


def centred_logs(probabilities: Array) -> Array:
    """Log-probabilities with each row's mean taken off: logits up to what softmax ignores."""
    logs = log_probabilities(probabilities)
    centred: Array = logs - logs.mean(1, keepdims=True)
    return centred


def measure(
    student: Array,
    teacher: Array,
    *,
    complexity: int,
    unit: str,
    truth: NDArray[np.int64] | None = None,
    taught: bool = True,
    seed: int = 0,
) -> Fidelity:
    """The card of probabilities `(N, K)` against a teacher's `(N, K)`, both of the same classes.

    Args:
        student: of the readable model, on held-out pictures.
        teacher: what it was taught from.
        complexity, unit: how much there is to read.
        truth: `(N,)` true columns, if known; -1 for a class that the columns do not have.
        taught: whether there is a teacher; otherwise `teacher` is the truth itself, as certain answers.
        seed: of the bootstrap.
    """
    top, best = student.argmax(1), teacher.argmax(1)
    a, b = centred_logs(student), centred_logs(teacher)
    error, spread = ((a - b) ** 2).sum(1), ((b - b.mean(0)) ** 2).sum(1)
    divergence = (teacher * (log_probabilities(teacher) - log_probabilities(student))).sum(1)
    return Fidelity(
        agreement=Interval.of(top == best, seed),
        r2=_ratio(error, spread, seed),
        divergence=Interval.of(divergence, seed),
        complexity=complexity,
        unit=unit,
        count=len(student),
        accuracy=None if truth is None else Interval.of(top == truth, seed),
        teacher_accuracy=None if truth is None or not taught else Interval.of(best == truth, seed),
        wrong=[int(i) for i in np.flatnonzero(top != best)],
        taught=taught,
    )


def _ratio(error: Array, spread: Array, seed: int, draws: int = 1000) -> Interval:
    """`1 - sum(error) / sum(spread)` with its bootstrap interval over pictures."""
    n = len(error)
    picks = np.random.default_rng(seed).integers(0, n, (draws, n))
    values = 1 - error[picks].sum(1) / np.maximum(spread[picks].sum(1), 1e-12)
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(1 - error.sum() / max(spread.sum(), 1e-12)), float(low), float(high))
