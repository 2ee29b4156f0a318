"""The task of segmentation networks: regions, each of one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.explanation import Prediction
from pellucid.models.dense import dense_scores, find_dense, names_dense, winners
from pellucid.models.reading import Reading
from pellucid.models.sliding import SlidingWindow
from pellucid.models.targets import ClassTarget, Target, TopClass
from pellucid.models.targets.boxes import BoxTarget
from pellucid.models.targets.classes import check_named, label_of
from pellucid.models.targets.regions import RegionTarget
from pellucid.models.targets.versus import Between
from pellucid.models.task import Labels, Task, task_kind

_SHOWN = 20  # regions that a result names
_OF_MONAI = frozenset(
    (
        *("UNet", "BasicUNet", "BasicUNetPlusPlus", "AttentionUnet", "DynUNet", "FlexibleUNet", "VNet", "HighResNet"),
        *("SegResNet", "SegResNetVAE", "SegResNetDS", "UNETR", "SwinUNETR", "AHNet", "DiNTS", "MedNeXt", "DAF3D"),
    )
)


@task_kind("regions", "segmentation")
@dataclass(frozen=True)
class RegionTask(Task):
    """Scores of classes at places, `(N, C, h, w)` or `(N, C, a, b, c)`; a region is where a class scores highest.

    Attributes:
        part: which part of the output holds them, by name; empty where that is found.
    """

    part: str = ""
    name = "regions"
    by_frame = True

    def answers(self, output: Any, count: int, labels: Labels, k: int = 5) -> list[list[Prediction]]:
        """The classes by the share of the picture that they take, with their mean score there."""
        scores = dense_scores(output, self.part or None).detach()
        check_named(labels, scores.shape[1])
        won, rows = winners(scores), []
        for n in range(len(scores)):
            shares = torch.bincount(won[n].flatten()).double() / won[n].numel()
            order = shares.argsort(descending=True, stable=True)[:_SHOWN]
            rows.append([self._answer(scores[n], won[n], int(i), float(shares[i]), labels) for i in order if shares[i]])
        return rows

    def _answer(self, scores: Tensor, won: Tensor, index: int, share: float, labels: Labels) -> Prediction:
        column = scores[min(index, len(scores) - 1)]
        return Prediction(index, label_of(index, labels), share, float(column[won == index].mean()))

    def asked(self, target: Target) -> Target:
        """The top class is the largest region; all regions are read in the same part.

        Raises:
            TargetError: it is a box.
        """
        if isinstance(target, BoxTarget):
            raise TargetError("The model gives a class to each place, and no boxes: ask for region:LABEL.")
        if type(target) is TopClass:
            target = RegionTarget(rank=target.rank)
        if isinstance(target, Between):
            return target.each(self.asked)
        return target.read_in(self.part) if isinstance(target, RegionTarget) else target

    def check(self, target: Target, module: nn.Module, inputs: Tensor, output: Any) -> None:
        """A class alone is no region."""
        super().check(target, module, inputs, output)
        if isinstance(target, ClassTarget):
            raise TargetError(
                "The model gives a class to each place: ask for region:LABEL, all that it gives to that class, "
                "region:LABEL@x,y, one place in the picture's pixels (of a volume region:LABEL@i,j,k), or "
                "region:LABEL#1, its largest piece."
            )

    @classmethod
    def claims(cls, module: nn.Module) -> Task | None:
        """A segmentation network of torchvision, transformers or MONAI, or one that slides over volumes."""
        if isinstance(module, SlidingWindow):
            return cls()
        for kind in type(module).__mro__:
            if kind.__module__.startswith("torchvision.models.segmentation."):
                return cls()
            if kind.__module__.startswith("transformers.") and kind.__name__.endswith("ForSemanticSegmentation"):
                return cls()
            if kind.__module__.startswith("monai.networks.nets.") and kind.__name__ in _OF_MONAI:
                return cls()
        return cls() if _by_queries(module) else None

    def adapted(self, module: nn.Module) -> nn.Module:
        """Masks of queries put together; other networks as they are."""
        if not _by_queries(module):
            return module
        from pellucid.models.segmentation.queries import QuerySegmenter

        return QuerySegmenter(module, RegionTask())

    @classmethod
    def recognised(cls, output: Any, reading: Reading, count: int, labels: Labels) -> Task | None:
        """What libraries call so, or a tensor with a score for each label at each place."""
        dense = find_dense(output, reading.output)
        if dense is None or len(dense) != count:
            return None
        labelled = labels is not None and dense.shape[1] == len(labels) and dense[0, 0].numel() > 1
        return cls(reading.output or "") if names_dense(output) or labelled else None


def _by_queries(module: nn.Module) -> bool:
    """Whether it is a network of transformers that answers a mask for each query."""
    names = [k.__name__ for k in type(module).__mro__ if k.__module__.startswith("transformers.")]
    return any(n in ("Mask2FormerForUniversalSegmentation", "MaskFormerForInstanceSegmentation") for n in names)
