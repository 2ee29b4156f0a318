"""Task: what kind of answer a model gives, as a value.

It puts the answers into words (`Prediction`), says what is explained where nobody asks, and how a question fits. A task
is declared (`pl.wrap(..., task="labels")`), said by the module (an attribute `task`), or found by what is answered. A
kind of task is a class in a file of its own, entered by `@task_kind`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from pellucid.engine import unwrap
from pellucid.errors import ModelError, TargetError
from pellucid.explanation import Prediction
from pellucid.models.parts import advised
from pellucid.models.preprocess import Preprocess
from pellucid.models.reading import Reading
from pellucid.models.targets import AnomalyTarget, Class, ClassTarget, Function, Target
from pellucid.models.targets.classes import label_of
from pellucid.registry import Registry

Labels = Sequence[str] | None


class Task(ABC):
    """What kind of answer a model gives. Subclasses are frozen dataclasses."""

    name: ClassVar[str]
    of_scores: ClassVar[bool] = False  # whether the answer is a row of numbers, which a `Reading` reads
    by_frame: ClassVar[bool] = False  # whether a clip is explained frame by frame, since the answer says where

    @abstractmethod
    def answers(self, output: Any, count: int, labels: Labels, k: int = 5) -> list[list[Prediction]]:
        """The first `k` answers to each of `count` inputs, the most certain first."""

    def asked(self, target: Target) -> Target:
        """A target as it is meant of such a model: the top class of a detector is its most certain box."""
        return target

    def check(self, target: Target, module: nn.Module, inputs: Tensor, output: Any) -> None:
        """Refuse a bound target that cannot be asked of this output.

        Raises:
            TargetError: with the cure.
        """
        if isinstance(target, Function):
            target(output)  # what is wrong with it is said before anything is spent

    def adapted(self, module: nn.Module) -> nn.Module:
        """A network made to answer in the way that this task reads."""
        return module

    def preprocessing(self, module: nn.Module, usual: Preprocess | None) -> Preprocess | None:
        """What such a network wants to see, where nobody said; `usual` is what its source says, if it has one."""
        return usual

    @classmethod
    def claims(cls, module: nn.Module) -> Task | None:
        """The task of a network whose class says it; None of any other."""
        return None

    @classmethod
    def recognised(cls, output: Any, reading: Reading, count: int, labels: Labels) -> Task | None:
        """The task that an output for `count` inputs speaks of; None where it may be another."""
        return None


@dataclass(frozen=True)
class Scores(Task):
    """A row of numbers for each input: `classes` of which one is true, `labels` of which several are, or `values`.

    Attributes:
        reading: what the numbers mean.
        declared: which of the three, where somebody said so.
    """

    reading: Reading = field(default_factory=Reading)
    declared: str = ""
    of_scores: ClassVar[bool] = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """`classes`, `labels` or `values`."""
        if self.declared:
            return self.declared
        kinds = {"none": "values", "sigmoid": "classes" if self.reading.pair else "labels"}
        return kinds.get(self.reading.scores or "", "classes")

    def settled(self, reading: Reading) -> Reading:
        """A recognised reading, where what is declared decides what was in doubt or looked otherwise."""
        if self.declared == "values":
            return replace(reading, scores="none", pair=False, doubt=False)
        if self.declared == "labels" and reading.scores != "probabilities":
            return replace(reading, scores="sigmoid", pair=False, doubt=False)
        if self.declared == "classes" and reading.doubt:
            return replace(reading, scores="sigmoid" if reading.doubt in ("number", "size") else "softmax", doubt=False)
        return reading

    def asked(self, target: Target) -> Target:
        """What other models call an anomaly is a class here, if it is anything."""
        return Class("anomaly") if target == AnomalyTarget() else target

    def answers(self, output: Any, count: int, labels: Labels, k: int = 5) -> list[list[Prediction]]:
        """The top-k classes of each input; empty where there are no class scores."""
        scores = self.reading.found(output, count)
        if scores is None:
            return [[] for _ in range(count)]
        top = scores.topk(min(k, scores.shape[1]), dim=1)
        shares = self.reading.probabilities(scores).gather(1, top.indices)
        shares = shares if self.reading.bounded else torch.full_like(shares, math.nan)
        rows = zip(top.indices.tolist(), shares.tolist(), top.values.tolist(), strict=True)
        return [[Prediction(i, label_of(i, labels), p, y) for i, p, y in zip(*row, strict=True)] for row in rows]

    def check(self, target: Target, module: nn.Module, inputs: Tensor, output: Any) -> None:
        """A class needs a row of class scores for each input."""
        super().check(target, module, inputs, output)
        if not isinstance(target, ClassTarget):
            return
        if getattr(unwrap(module), "num_classes", None) == 0:
            raise TargetError(
                "The model was made without classes (num_classes=0), so its output is an embedding: explain a "
                f"function of it, such as target={advised(output)}."
            )
        rows = self.reading.tensor(output)
        if (len(rows) if rows.ndim else 1) != len(inputs):
            raise TargetError(
                f"The model answers shape {tuple(rows.shape)} to {len(inputs)} input{'s' * (len(inputs) > 1)}: let "
                "it return a row of class scores for each, (N, classes), without squeezing the batch away."
            )


_SCORES = {
    "classes": ("softmax", "sigmoid", "probabilities"),
    "labels": ("sigmoid", "probabilities"),
    "values": ("none",),
}

T = TypeVar("T", bound=type[Task])
TASKS: Registry[Callable[..., Task]] = Registry(
    "task",
    {name: partial(Scores, declared=name) for name in ("classes", "labels", "values")},
    error=ModelError,
)
"""What makes a declared task, by name."""

KINDS: list[type[Task]] = []
"""The kinds that know their output by its shape, the latest first."""


def task_kind(*names: str) -> Callable[[T], T]:
    """Enter a kind of task under the names by which it is declared."""

    def enter(kind: T) -> T:
        for name in names:
            TASKS[name] = kind
        KINDS.insert(0, kind)
        return kind

    return enter


def declared_task(name: str | None, scores: str | None = None) -> Task | None:
    """The task that a user names; None for none.

    Args:
        scores: what was declared of the scores.

    Raises:
        ModelError: there is no such task, or its scores are no such.
    """
    if name is None:
        return None
    word, _, head = name.partition(":")
    make = TASKS.find(word)
    if head and make not in KINDS:
        raise ModelError(f"The task {word!r} has no heads: leave out {head!r}.")
    task = make(head) if head else make()
    if isinstance(task, Scores) and scores is not None and scores not in _SCORES[task.declared]:
        meant = " or ".join(map(repr, _SCORES[task.declared]))
        raise ModelError(f"The scores of the task {name!r} are {meant}, not {scores!r}: leave one of them out.")
    return task


def task_of(module: nn.Module) -> Task | None:
    """The task that a module states itself, if it does."""
    stated = getattr(unwrap(module), "task", None)
    return stated if isinstance(stated, Task) else None


def claimed_task(module: nn.Module) -> Task | None:
    """The task of a network by its class, if that says it."""
    return next((task for kind in KINDS if (task := kind.claims(unwrap(module))) is not None), None)


def recognised_task(output: Any, reading: Reading, count: int, labels: Labels) -> Task | None:
    """The task that an output speaks of, other than a row of scores for each of `count` inputs."""
    found = (kind.recognised(output, reading, count, labels) for kind in KINDS)
    return next((task for task in found if task is not None), None)
