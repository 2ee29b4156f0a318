"""ONNX files, through onnxruntime."""

from __future__ import annotations

from pellucid.errors import ModelError
from pellucid.models.blackbox import onnx_box
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources.imagenet import imagenet_preprocess
from pellucid.models.sources.registry import Built, source


@source("onnx", "an ONNX file, through onnxruntime (extra `onnx`): onnx:FILE")
def build(name: str, classes: int | None, pretrained: bool) -> Built:
    """A file as a black box, with the preprocessing and labels written into it."""
    if not pretrained:
        raise ModelError("An ONNX file holds its own weights: leave out --weights and --random-weights.")
    box, meta = onnx_box(name)
    if meta.preprocess is not None:
        return box, Preprocess.from_dict(meta.preprocess), meta.labels
    channels, *size = meta.shape if len(meta.shape) == 3 else (3, 224, 224)
    if channels not in (1, 3):
        raise ModelError(f"{name} takes inputs of shape {meta.shape}, not pictures (channels, height, width).")
    height, width = (s or 224 for s in size)
    return box, imagenet_preprocess((height, width), channels), meta.labels
