"""What a detector answers to a batch: its raw candidates, before any is suppressed, and the boxes it ends with.

Boxes are `(x0, y0, x1, y1)`, edges in pixels of the model's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.errors import ModelError, TargetError
from pellucid.models.parts import BOXES, described, lists_boxes, speaks_of_boxes

_LIKELIEST = 64  # candidates whose classes are read first
MOST = 300  # boxes a picture that are kept of a detector which answers a list


@dataclass(frozen=True, eq=False)
class Answered:
    """The boxes of one picture as the detector answers them, the most certain first.

    Attributes:
        boxes: `(M, 4)`. labels: `(M,)` whole numbers. scores: `(M,)`.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


@dataclass(frozen=True, eq=False)
class Detections:
    """A detector's answer to N pictures.

    Attributes:
        boxes: of the candidates `(N, K, 4)`, or `(N, K, C, 4)` where each class has a box of its own.
        classes: `(N, K, C)`, how likely a candidate is of each class; of lists `(N, K)`, the score of `labels`.
        objectness: `(N, K)`, how likely it is any object; None where the head has no such number.
        labels: `(N, K)`, the one class of each candidate, where only that is known.
        powers: the score of a class is `objectness^a classes^b`.
        fixed: whether candidate k is the same place of the network in every picture of this size.
        ends: makes the boxes that are answered; by default a threshold and the suppression of lesser neighbours.
        threshold, overlap: of the default `ends`.
    """

    boxes: Tensor
    classes: Tensor
    objectness: Tensor | None = None
    labels: Tensor | None = None
    powers: tuple[float, float] = (1.0, 1.0)
    fixed: bool = True
    ends: Callable[[], list[Answered]] | None = field(default=None, repr=False)
    threshold: float = 0.3
    overlap: float = 0.45
    structured: ClassVar[bool] = True  # its tensors are no class scores

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Picture by picture `{boxes, labels, scores}`, as torchvision's detectors answer, for functions of those."""
        return ({"boxes": a.boxes, "labels": a.labels, "scores": a.scores} for a in self.answered())

    @classmethod
    def of(cls, output: Any) -> Detections:
        """An output as detections: as it is, or made of `{boxes, labels, scores}`, one a picture or padded together.

        Raises:
            TargetError: it is no answer of a detector.
        """
        if isinstance(output, cls):
            return output
        if lists_boxes(output):
            output = padded(output)
        if not speaks_of_boxes(output):
            raise TargetError(
                f"The model answers {described(output)}, and no boxes: let it answer a list with "
                "{'boxes': (M, 4), 'labels': (M,), 'scores': (M,)} for each picture, or name how its numbers are read, "
                "such as task='boxes:yolox'."
            )
        boxes, labels, scores = (output[key] for key in BOXES)
        return cls(boxes.float(), scores.float(), labels=labels.long(), fixed=False, threshold=0.0)

    def chance(self, labels: Tensor) -> Tensor:
        """How likely each candidate is of a class, one a picture `(N,)`, whatever its objectness: `(N, K)`."""
        if self.labels is not None:
            return torch.where(self.labels == labels[:, None], self.classes, 0.0)
        if int(labels.max()) >= self.classes.shape[-1] or int(labels.min()) < 0:
            raise TargetError(
                f"Class {int(labels.max())} is out of range: the detector has {self.classes.shape[-1]} classes."
            )
        wanted = labels[:, None, None].expand(-1, self.classes.shape[1], 1)
        chance: Tensor = self.classes.gather(2, wanted)[..., 0]
        return chance

    def confidence(self, labels: Tensor) -> Tensor:
        """The detector's score of each candidate for a class, one a picture `(N,)`: `(N, K)`."""
        chance = self.chance(labels)
        if self.objectness is None:
            return chance
        a, b = self.powers
        return _power(self.objectness, a) * _power(chance, b)

    def being(self) -> Tensor:
        """How likely each candidate is any object, `(N, K)`: its objectness; without one, its most likely class."""
        if self.objectness is not None:
            return self.objectness
        return self.classes if self.labels is not None else self.classes.amax(-1)

    def placed(self, labels: Tensor) -> Tensor:
        """The candidates' boxes `(N, K, 4)` for a class, one a picture `(N,)`."""
        if self.boxes.ndim == 3:
            return self.boxes
        chosen: Tensor = self.boxes[torch.arange(len(self), device=labels.device), :, labels]
        return chosen

    def alike(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Cosine of each candidate's classes and those of a box asked for, `(N, C)` with `labels` `(N,)`: `(N, K)`."""
        if self.labels is not None:
            return (self.labels == labels[:, None]).float()
        vectors = vectors.to(self.classes)
        lengths = self._lengths * vectors.norm(dim=-1)[:, None]
        products = torch.einsum("nkc,nc->nk", self.classes, vectors)
        cosines: Tensor = products / lengths.clamp(min=1e-12)
        return cosines

    def most_alike(self, near: Tensor, vectors: Tensor, labels: Tensor) -> Tensor:
        """The greatest product of overlap `near` `(N, K)`, likeness (see `alike`) and objectness: `(N,)`.

        A cosine is 1 at most, so where the candidates of the greatest products without it hold one that no other can
        reach, the classes of the others need not be read.
        """
        bound = near * self.being()
        if self.labels is None and bound.shape[1] > _LIKELIEST:
            top = bound.topk(_LIKELIEST, dim=1)
            rows = torch.arange(len(self), device=bound.device)[:, None]
            some = replace(self, classes=self.classes[rows, top.indices])
            best = (top.values * some.alike(vectors, labels)).amax(1)
            if bool((best >= top.values[:, -1]).all()):
                return best
        return (bound * self.alike(vectors, labels)).amax(1)

    @cached_property
    def _lengths(self) -> Tensor:
        """Of each candidate's classes `(N, K)`, once for all boxes that are asked for."""
        lengths: Tensor = self.classes.norm(dim=-1)
        return lengths

    def answered(self) -> list[Answered]:
        """The boxes that the detector ends with, picture by picture."""
        if self.ends is not None:
            return self.ends()
        return [self._ended(n) for n in range(len(self))]

    def _ended(self, n: int) -> Answered:
        boxes = self.boxes[n].detach()
        if self.labels is not None:
            scores, labels = self.classes[n].detach(), self.labels[n]
            order = scores.argsort(descending=True, stable=True)
            order = order[scores[order] > self.threshold]
            return Answered(boxes[order], labels[order], scores[order])
        a, b = self.powers
        best, labels = self.classes[n].detach().max(-1)
        scores = best if self.objectness is None else _power(self.objectness[n].detach(), a) * _power(best, b)
        likely = (scores > self.threshold).nonzero()[:, 0]
        boxes, labels, scores = boxes[likely], labels[likely], scores[likely]
        from torchvision.ops import batched_nms

        kept = batched_nms(boxes, scores, labels, self.overlap)
        return Answered(boxes[kept], labels[kept], scores[kept])


def _power(values: Tensor, exponent: float) -> Tensor:
    return values if exponent == 1 else values.clamp(min=1e-12) ** exponent


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes `(..., 4)` that broadcast; 0 where both are empty."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    a, b = ((each[..., 2:] - each[..., :2]).clamp(min=0).prod(-1) for each in (boxes, others))
    return common / (a + b - common).clamp(min=1e-12)


def padded(output: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Boxes, labels and scores of each picture, the best first, filled up to `MOST` with boxes of score 0.

    Raises:
        ModelError: their numbers do not agree, or are not finite.
    """
    rows: dict[str, list[Tensor]] = {key: [] for key in BOXES}
    for n, each in enumerate(output):
        if not set(BOXES) <= set(each):
            raise ModelError(f"A detector answers boxes, labels and scores for each picture; {n} has {sorted(each)}.")
        boxes, labels, scores = (torch.as_tensor(each[key]) for key in BOXES)
        boxes, scores = boxes.reshape(-1, 4).float(), scores.reshape(-1).float()
        if not len(boxes) == labels.numel() == len(scores):
            raise ModelError(
                f"The detector answered {len(boxes)} boxes, {labels.numel()} labels and {len(scores)} scores to "
                f"picture {n}: give one of each for every box."
            )
        if not boxes.isfinite().all() or not scores.isfinite().all():
            raise ModelError(f"The detector answered NaN or infinity to picture {n}: check its preprocessing.")
        best = scores.argsort(descending=True, stable=True)[:MOST]
        for key, value, filling in (
            ("boxes", boxes, 0.0),
            ("labels", labels.reshape(-1).long(), -1),
            ("scores", scores, 0.0),
        ):
            whole = value.new_full((MOST, *value.shape[1:]), filling)
            whole[: len(best)] = value[best]
            rows[key].append(whole)
    return {key: torch.stack(values) for key, values in rows.items()}
