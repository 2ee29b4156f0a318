"""Targets of models that answer at every step of time: one scalar of one step of a sequence of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.models.reading import Reading
from pellucid.models.targets.base import Labels, as_target, target
from pellucid.models.targets.classes import ClassTarget, TopClass


@target("step", form="step:T[:CLASS]")
@dataclass(frozen=True)
class Step(ClassTarget):
    """What `target` says at one step of a sequence of scores `(N, T, classes)`.

    Args:
        step: number of the step; negative ones count from the end.
        target: of the scores `(N, classes)` of that step: anything `as_target` takes; the top class by default.

    Raises:
        TargetError: the model does not answer a sequence, or not so long a one.
    """

    step: int
    target: Any = field(default_factory=TopClass)

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", as_target(self.target))
        if isinstance(self.target, Step) or self.target.layers:
            raise TargetError("The target of a step is one of its scores: a class, a label, a>b or the top class.")

    def _at(self, output: Any) -> Tensor:
        scores = self.reading.tensor(output)
        if scores.ndim != 3:
            raise TargetError(
                f"The model's output has shape {tuple(scores.shape)}, not (N, T, classes), so it has no steps: name "
                "the class alone."
            )
        if not -scores.shape[1] <= self.step < scores.shape[1]:
            raise TargetError(f"Step {self.step} is out of range: the model answers {scores.shape[1]} steps.")
        return scores[:, self.step]

    @property
    def files(self) -> tuple[str, ...]:
        """What its target opens."""
        found: tuple[str, ...] = self.target.files
        return found

    def read_by(self, reading: Reading) -> Step:
        """The step's target, read so; the part with the scores is found here."""
        if self.reading.settled:
            return self
        return replace(self, reading=reading, target=self.target.read_by(replace(reading, output=None)))

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Step:
        """The step's target with names resolved."""
        return replace(self, target=self.target.bind(module, inputs, labels))

    def freeze(self, output: Any) -> Step:
        """The step's target fixed to what the output says at that step."""
        return replace(self, target=self.target.freeze(self._at(output)))

    def select(self, rows: Tensor) -> Step:
        """The step's target for these rows."""
        return replace(self, target=self.target.select(rows))

    def __call__(self, output: Any) -> Tensor:
        """The target's score at the step."""
        score: Tensor = self.target(self._at(output))
        return score

    def probability(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """The target's probability at the step."""
        bounded: Tensor = self.target.probability(self._at(output), {})
        return bounded

    def name(self, labels: Labels) -> str:
        """`run at step 3`."""
        return f"{self.target.name(labels)} at step {self.step}"

    def spec(self) -> str | None:
        """`step:T:TARGET`."""
        inner = self.target.spec()
        return None if inner is None else f"step:{self.step}:{inner}"

    @classmethod
    def read(cls, text: str) -> Step | None:
        """`step:T` or `step:T:TARGET`."""
        word, *parts = text.split(":", 2)
        if word != "step" or not parts:
            return None
        at, *target = parts
        if not at.removeprefix("-").isdecimal():
            raise TargetError(f"{text!r} is no step: write step:T, or step:T:CLASS.")
        return cls(int(at), as_target(target[0]) if target else TopClass())
