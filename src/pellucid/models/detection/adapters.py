"""Networks that detect, made to answer `Detections`: raw candidates beside the boxes that they end with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

from pellucid.engine.names import renamed
from pellucid.models.adapters import Adapter
from pellucid.models.detection.heads import HEADS
from pellucid.models.detections import Answered, Detections
from pellucid.models.preprocess import Preprocess
from pellucid.models.task import Task


class HeadDetector(Adapter):
    """A network or black box whose raw output a head reads. Inputs are RGB in [0, 1].

    Args:
        module: the network.
        head: its head's name, see `HEADS`.
        task: what it then states to answer.
    """

    def __init__(self, module: nn.Module, head: str, task: Task) -> None:
        super().__init__(module)
        self.head = HEADS.key(head)
        self.task = task

    def forward(self, x: Tensor) -> Detections:
        """Detections of pictures `(N, 3, h, w)`."""
        shown = HEADS[self.head].shown
        given = x.flip(1) if shown.startswith("bgr") else x
        if shown.endswith("255"):
            given = given * 255 if given is x else given.mul_(255)
        return HEADS[self.head].read(self.module(renamed(given, x, shown)), (x.shape[-2], x.shape[-1]))


class TorchvisionDetector(Adapter):
    """A detector of torchvision: its own forward, opened between the heads and the suppression.

    Class c of `Detections.classes` is label c of its answers; where label 0 is the background, it is never likely.

    Args:
        module: the detector.
        task: what it then states to answer.
    """

    def __init__(self, module: nn.Module, task: Task) -> None:
        super().__init__(module)
        self.task = task

    def forward(self, x: Tensor) -> Detections:
        """Detections of pictures `(N, 3, h, w)` in [0, 1], as the detector takes them."""
        net: Any = self.module
        size = (x.shape[-2], x.shape[-1])
        images, _ = net.transform(list(x.unbind(0)))
        features = net.backbone(images.tensors)
        features = {"0": features} if isinstance(features, Tensor) else features
        if isinstance(net, GeneralizedRCNN):
            return _two_stages(net, images, features, size)
        return _one_stage(net, images, list(features.values()), size)


def _one_stage(net: Any, images: Any, features: list[Tensor], size: tuple[int, int]) -> Detections:
    heads = net.head(features)
    anchors = net.anchor_generator(images, features)
    decode = net.box_coder.decode if isinstance(net, FCOS) else net.box_coder.decode_single
    decoded = [decode(rows, at) for rows, at in zip(heads["bbox_regression"], anchors, strict=True)]
    boxes = torch.stack([clip_boxes_to_image(b, s) for b, s in zip(decoded, images.image_sizes, strict=True)])
    logits = heads["cls_logits"]
    classes = _foreground(logits.softmax(-1)) if isinstance(net, SSD) else logits.sigmoid()
    objectness = heads["bbox_ctrness"].sigmoid()[..., 0] if isinstance(net, FCOS) else None

    def ends() -> list[Answered]:
        own, at = heads, anchors
        if not isinstance(net, SSD):
            cells = [f.shape[2] * f.shape[3] for f in features]
            levels = [n * (logits.shape[1] // sum(cells)) for n in cells]
            own = {key: list(torch.split(value, levels, 1)) for key, value in heads.items()}
            at = [list(torch.split(each, levels)) for each in anchors]
        found = net.postprocess_detections(own, at, images.image_sizes)
        return _in_order(net.transform.postprocess(found, images.image_sizes, [size] * len(found)))

    powers = (0.5, 0.5) if objectness is not None else (1.0, 1.0)
    return Detections(
        _back(boxes, images.image_sizes[0], size),
        classes,
        objectness,
        powers=powers,
        ends=ends,
        threshold=net.score_thresh,
        overlap=net.nms_thresh,
    )


def _two_stages(net: Any, images: Any, features: Mapping[str, Tensor], size: tuple[int, int]) -> Detections:
    proposals, _ = net.rpn(images, features, None)
    heads = net.roi_heads
    logits, regression = heads.box_predictor(
        heads.box_head(heads.box_roi_pool(features, proposals, images.image_sizes))
    )
    counts = [len(p) for p in proposals]
    classes = torch.split(_foreground(logits.softmax(-1)), counts)
    # The proposals carry no gradient, so one through the sides would leave out how they came about.
    decoded = torch.split(heads.box_coder.decode(regression.detach(), proposals), counts)
    boxes = [clip_boxes_to_image(b, s) for b, s in zip(decoded, images.image_sizes, strict=True)]

    def ends() -> list[Answered]:
        own = heads.postprocess_detections(logits, regression, proposals, images.image_sizes)
        found = [dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*own, strict=True)]
        return _in_order(net.transform.postprocess(found, images.image_sizes, [size] * len(found)))

    return Detections(
        _back(_filled(boxes), images.image_sizes[0], size),
        _filled(classes),
        fixed=False,
        ends=ends,
        threshold=heads.score_thresh,
        overlap=heads.nms_thresh,
    )


def _foreground(classes: Tensor) -> Tensor:
    """Probabilities `(..., C)` of which the first is that of the background, which is no class to be asked for."""
    return torch.cat([torch.zeros_like(classes[..., :1]), classes[..., 1:]], -1)


def _filled(rows: Any) -> Tensor:
    """Rows of several lengths as one tensor, filled up with zeros."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _back(boxes: Tensor, resized: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Boxes of the network's resized picture, on the input."""
    (h, w), (rows, columns) = resized, size
    return boxes * torch.tensor([columns / w, rows / h] * 2).to(boxes)


def _in_order(found: list[dict[str, Tensor]]) -> list[Answered]:
    ordered = []
    for each in found:
        best = each["scores"].argsort(descending=True, stable=True)
        ordered.append(Answered(each["boxes"][best], each["labels"][best], each["scores"][best]))
    return ordered


def preprocessing(module: nn.Module) -> Preprocess:
    """What a detector of torchvision was trained with: pixels in [0, 1], of the size that it would resize to itself."""
    own: Any = module.module if isinstance(module, Adapter) else module
    transform = own.transform
    mean, std = (0.0,) * 3, (1.0,) * 3
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        return Preprocess(input_size=(height, width), resize=(height, width), crop=False, mean=mean, std=std)
    short = max(transform.min_size)
    return Preprocess(input_size=(short, short), resize=short, crop=False, mean=mean, std=std)
