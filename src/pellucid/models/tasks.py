"""The tasks that come with the package, and what finds one."""

from pellucid.models.detection.task import Boxes
from pellucid.models.task import TASKS, Scores, Task, claimed_task, declared_task, recognised_task, task_of

__all__ = ["TASKS", "Boxes", "Scores", "Task", "claimed_task", "declared_task", "recognised_task", "task_of"]
