"""The task of detectors: boxes, each with a class and a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.explanation import Prediction
from pellucid.models.detection.heads import HEADS
from pellucid.models.detections import Detections
from pellucid.models.parts import cornered, lists_boxes, speaks_of_boxes
from pellucid.models.preprocess import Preprocess
from pellucid.models.reading import Reading
from pellucid.models.targets import ClassTarget, Target, TopClass
from pellucid.models.targets.boxes import BoxTarget
from pellucid.models.targets.classes import check_named, label_of
from pellucid.models.targets.regions import RegionTarget
from pellucid.models.task import Labels, Task, task_kind

_SHOWN = 20  # boxes that a result names


@task_kind("boxes", "detection")
@dataclass(frozen=True)
class BoxTask(Task):
    """Boxes, each of one class: `Detections`, or boxes, labels and scores for each picture.

    Attributes:
        head: how a raw output is read, see `HEADS`; empty where it is `Detections` already.
    """

    head: str = ""
    name = "boxes"
    by_frame = True

    def __post_init__(self) -> None:
        if self.head:
            object.__setattr__(self, "head", HEADS.key(self.head))

    def answers(self, output: Any, count: int, labels: Labels, k: int = 5) -> list[list[Prediction]]:
        """The boxes that the detector ends with, on the model's input, the most certain first."""
        rows, detections = [], Detections.of(output)
        if detections.labels is None:
            check_named(labels, detections.classes.shape[-1])
        for found in detections.answered():
            each = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
            rows.append([Prediction(i, label_of(i, labels), s, s, tuple(at)) for i, s, at in list(each)[:_SHOWN]])
        return rows

    def asked(self, target: Target) -> Target:
        """The top class is the most certain box.

        Raises:
            TargetError: it is of regions.
        """
        if isinstance(target, RegionTarget):
            raise TargetError("The model answers boxes, and no regions: ask for box:0, or box:LABEL.")
        return BoxTarget(target.rank) if type(target) is TopClass else target

    def check(self, target: Target, module: nn.Module, inputs: Tensor, output: Any) -> None:
        """A class alone is no box."""
        super().check(target, module, inputs, output)
        if isinstance(target, ClassTarget):
            raise TargetError(
                "The model answers boxes, of which several may be of one class: ask for box:0, the most certain, "
                "box:LABEL, or box:LABEL@x0,y0,x1,y1 in the picture's pixels."
            )

    def adapted(self, module: nn.Module) -> nn.Module:
        """A detector of torchvision opened in front of the suppression; of others, the named head read."""
        if not self.head and self.claims(module) is None:
            return module
        if not self.head and _of_transformers(module):
            from pellucid.models.detection.queries import QueryDetector

            return QueryDetector(module, BoxTask())
        from pellucid.models.detection.adapters import HeadDetector, TorchvisionDetector  # brings torchvision

        task = BoxTask()  # what comes out are `Detections`, whatever head was read
        return HeadDetector(module, self.head, task) if self.head else TorchvisionDetector(module, task)

    def preprocessing(self, module: nn.Module, usual: Preprocess | None) -> Preprocess | None:
        """Pixels in [0, 1], brought to the size that the detector takes."""
        if _of_transformers(module):
            return usual
        if self.claims(module) is not None:
            from pellucid.models.detection.adapters import preprocessing

            return preprocessing(module)
        if not self.head:
            return usual
        head = HEADS.find(self.head)
        size = head.size if usual is None else usual.input_size
        fill = (114,) * 3 if head.fit == "contain" else ()
        return Preprocess(input_size=size, resize=size, fit=head.fit, fill=fill, mean=(0.0,) * 3, std=(1.0,) * 3)

    @classmethod
    def claims(cls, module: nn.Module) -> Task | None:
        """A detector of torchvision or transformers, or one made of it."""
        homes = (kind.__module__ for kind in type(module).__mro__)
        ours = any(home.startswith("torchvision.models.detection.") for home in homes)
        return cls() if ours or _of_transformers(module) else None

    @classmethod
    def recognised(cls, output: Any, reading: Reading, count: int, labels: Labels) -> Task | None:
        """Detections, or what says boxes, labels and scores, and whose boxes end behind where they begin.

        Four numbers whose order is another one are no edges: their size and place would be made up.
        """
        if not (isinstance(output, Detections) or speaks_of_boxes(output) or lists_boxes(output)):
            return None
        return cls() if cornered(Detections.of(output).boxes) else None


def _of_transformers(module: nn.Module) -> bool:
    kinds = type(module).__mro__
    return any(k.__module__.startswith("transformers.") and k.__name__.endswith("ForObjectDetection") for k in kinds)
