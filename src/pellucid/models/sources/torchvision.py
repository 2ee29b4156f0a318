"""torchvision's models, of pictures and of clips."""

from __future__ import annotations

import difflib
from typing import Any

import torch

from pellucid.errors import ModelError
from pellucid.media import Plan
from pellucid.models.clips import ClipPreprocess
from pellucid.models.detection.task import BoxTask
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import libraries
from pellucid.models.sources.hub import unreachable
from pellucid.models.sources.imagenet import imagenet_preprocess
from pellucid.models.sources.registry import Built, source

VIDEO: dict[str, Plan] = {
    "r3d_18": Plan("rate", 16, 15),
    "mc3_18": Plan("rate", 16, 15),
    "r2plus1d_18": Plan("rate", 16, 15),
    "s3d": Plan("rate", 128, 15),
    "mvit_v1_b": Plan("rate", 16, 7.5),
    "mvit_v2_s": Plan("rate", 16, 7.5),
    "swin3d_t": Plan("rate", 32, 15),
    "swin3d_s": Plan("rate", 32, 15),
    "swin3d_b": Plan("rate", 32, 15),
}
"""torchvision's video models -> the frames that their published weights were measured with."""


def _names() -> list[str]:
    models = libraries.torchvision().models
    return [
        n
        for home in (models, models.video, models.detection, models.segmentation)
        for n in models.list_models(module=home)
    ]


@source("torchvision", "torchvision's classifiers, detectors and segmenters; weights from its own server", _names)
def build(name: str, classes: int | None, pretrained: bool) -> Built:
    """An architecture of torchvision, with the preprocessing that its weights were measured with."""
    torchvision = libraries.torchvision()
    name, _, tag = name.partition(":")
    if name not in _names():
        near = difflib.get_close_matches(name, _names(), n=4)
        hint = (
            f"did you mean {', '.join(f'torchvision:{n}' for n in near)}?" if near else "`pellucid models` lists them."
        )
        raise ModelError(f"torchvision has no classifier, detector or segmenter {name!r}; {hint}")
    published = torchvision.models.get_model_weights(name)
    if tag and tag not in published.__members__:
        raise ModelError(f"torchvision:{name} has no weights {tag!r}; it has {', '.join(published.__members__)}.")
    weights = published[tag] if tag else published.DEFAULT
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    try:
        with torch.random.fork_rng(devices=[]):
            inner = (torchvision.models.detection, torchvision.models.segmentation)
            if any(name in torchvision.models.list_models(module=home) for home in inner):
                options["weights_backbone"] = None  # those of the whole hold it
            module = torchvision.models.get_model(name, weights=weights if pretrained else None, **options)
    except OSError as error:
        raise ModelError(unreachable(f"torchvision:{name}")) from error
    preset, labels = weights.transforms(), list(weights.meta["categories"])
    if type(preset).__name__ == "VideoClassification":
        return module, ClipPreprocess.from_torchvision(preset, VIDEO.get(name, Plan("rate", 16, 15))), labels
    if type(preset).__name__ == "ObjectDetection":
        return module, BoxTask().preprocessing(module, None) or imagenet_preprocess((224, 224), 3), labels
    return module, Preprocess.from_torchvision(preset), labels
