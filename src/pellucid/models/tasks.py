"""The tasks that come with the package, and what finds one."""

from pellucid.models.anomaly import AnomalyTask
from pellucid.models.detection.task import BoxTask
from pellucid.models.embedding import EmbeddingTask
from pellucid.models.segmentation.task import RegionTask
from pellucid.models.task import TASKS, Scores, Task, claimed_task, declared_task, recognised_task, task_of

__all__ = [
    "TASKS",
    "AnomalyTask",
    "BoxTask",
    "EmbeddingTask",
    "RegionTask",
    "Scores",
    "Task",
    "claimed_task",
    "declared_task",
    "recognised_task",
    "task_of",
]
