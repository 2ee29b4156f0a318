"""Detectors of transformers that answer a box for each of their queries: DETR and its family, YOLOS, RT-DETR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ModelError
from pellucid.models.adapters import Adapter
from pellucid.models.detections import Answered, Detections
from pellucid.models.task import Task

SHARED = ("detr", "yolos", "table-transformer", "maskformer")
"""Models whose classes share a softmax, the last being "no object"; of the others each class has a sigmoid."""
_THRESHOLD = 0.5  # the processors' own
_MOST = 100  # pairs of query and class that the others answer at most


class QueryDetector(Adapter):
    """A detector that answers `logits` and `pred_boxes` for its queries, which none suppresses afterwards."""

    def __init__(self, module: nn.Module, task: Task) -> None:
        super().__init__(module)
        self.task = task

    def forward(self, x: Tensor) -> Detections:
        """Detections of pictures `(N, 3, h, w)`, as the detector takes them."""
        answer = self.module(x)
        logits, shares = getattr(answer, "logits", None), getattr(answer, "pred_boxes", None)
        if logits is None or shares is None:
            raise ModelError(
                f"{type(self.module).__name__} answers no logits and pred_boxes: wrap a function that answers boxes, "
                "labels and scores."
            )
        centre, half = shares[..., :2], shares[..., 2:] / 2
        scale = torch.tensor([x.shape[-1], x.shape[-2]] * 2).to(shares)
        boxes = torch.cat([centre - half, centre + half], -1) * scale
        config: Any = self.module.config
        if config.model_type in SHARED:
            classes = logits.softmax(-1)[..., :-1]
            return Detections(boxes, classes, threshold=_THRESHOLD, overlap=1.0)
        classes = logits.sigmoid()
        return Detections(boxes, classes, ends=lambda: _pairs(boxes, classes), threshold=_THRESHOLD, overlap=1.0)


def _pairs(boxes: Tensor, classes: Tensor) -> list[Answered]:
    """The surest pairs of a query and a class: one query may answer several classes."""
    count = classes.shape[-1]
    best = classes.detach().flatten(1).topk(min(_MOST, classes[0].numel()), dim=1)
    found = []
    for n, (scores, at) in enumerate(zip(best.values, best.indices, strict=True)):
        sure = scores > _THRESHOLD
        queries, labels = at[sure] // count, at[sure] % count
        found.append(Answered(boxes[n, queries].detach(), labels, scores[sure]))
    return found
