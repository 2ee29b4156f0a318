"""The task of networks that embed pictures: vectors, of which two may be alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pellucid.errors import TargetError
from pellucid.explanation import Prediction
from pellucid.models.targets import Target, TopClass
from pellucid.models.task import Labels, Task, task_kind


@task_kind("embedding", "similarity")
@dataclass(frozen=True)
class EmbeddingTask(Task):
    """Vectors `(N, D)`; only beside another picture do they say anything."""

    name = "embedding"

    def answers(self, output: Any, count: int, labels: Labels, k: int = 5) -> list[list[Prediction]]:
        """None: a vector alone is no answer in words."""
        return [[] for _ in range(count)]

    def asked(self, target: Target) -> Target:
        """Raises TargetError where nothing is asked."""
        if type(target) is TopClass:
            raise TargetError(
                "The model answers an embedding, which has no top class: ask why a picture is like another, "
                "pair:OTHER.jpg, or liker to one than to another, rank:A.jpg>B.jpg."
            )
        return target
