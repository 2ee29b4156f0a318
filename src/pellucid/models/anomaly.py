"""The task of detectors of anomalies: how odd a picture is, and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from pellucid.errors import TargetError
from pellucid.explanation import Prediction
from pellucid.models.reading import Reading
from pellucid.models.targets import ClassTarget, Target, TopClass
from pellucid.models.targets.anomaly import AnomalyTarget, map_of, score_of
from pellucid.models.task import Labels, Task, task_kind


@task_kind("anomaly")
@dataclass(frozen=True)
class AnomalyTask(Task):
    """A score for each picture, and perhaps a map; the larger the odder."""

    name = "anomaly"

    def answers(self, output: Any, count: int, labels: Labels, k: int = 5) -> list[list[Prediction]]:
        """The one answer; it has a probability where all scores lie between 0 and 1."""
        scores = AnomalyTarget()(output).detach().float()
        bounded = bool(((scores >= 0) & (scores <= 1)).all())
        name = labels[-1] if labels else "anomaly"
        return [[Prediction(0, name, s if bounded else math.nan, s)] for s in scores.tolist()]

    def asked(self, target: Target) -> Target:
        """The top answer is the anomaly itself."""
        return AnomalyTarget() if type(target) is TopClass else target

    def check(self, target: Target, module: nn.Module, inputs: Any, output: Any) -> None:
        """There are no classes."""
        super().check(target, module, inputs, output)
        if isinstance(target, ClassTarget):
            raise TargetError("The model says how odd a picture is, and no class: ask for anomaly, or anomaly@x,y.")

    @classmethod
    def recognised(cls, output: Any, reading: Reading, count: int, labels: Labels) -> Task | None:
        """A map that is called one of anomalies, beside a score."""
        said = map_of(output) is not None and score_of(output) is not None
        return cls() if said and not hasattr(output, "to_tuple") else None
