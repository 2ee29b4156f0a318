"""Pellucid explains computer vision models, and measures whether its explanations can be trusted.

    import pellucid as pl
    model = pl.load("efficientnet-lite0")
    e = pl.explain(model, "sample:cat", method="grad-cam")
    e.heatmap(); e.check(); e.save("out/")

Importing the package loads nothing heavy: each name is fetched from its room when it is first used.
"""

import random
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pellucid._version import __version__
from pellucid.errors import (
    LayerError,
    MediaError,
    MethodError,
    ModelError,
    PellucidError,
    StorageError,
    TargetError,
)

if TYPE_CHECKING:
    from pellucid.engine.runtimes.asked import runtime
    from pellucid.media import Clip, Geometry, Picture, Plan, Volume, read_clip, read_image, read_volume
    from pellucid.models.blackbox import to_onnx
    from pellucid.models.clips import ClipPreprocess
    from pellucid.models.layers import layers
    from pellucid.models.model import VisionModel
    from pellucid.models.preprocess import Preprocess
    from pellucid.models.sliding import SlidingWindow
    from pellucid.models.sources import load, per_frame, per_slice, wrap
    from pellucid.models.targets import Class, Contrast, PerSample, Step, Target, TopClass, Unit
    from pellucid.models.unscripted import Unscripted
    from pellucid.models.volume_preprocess import VolumePreprocess
    from pellucid.results import Concepts, Heatmap, Heatmaps, Importance, VideoHeatmap, VolumeHeatmap
    from pellucid.results.activations import Activations
    from pellucid.results.atlas import AtlasSheet
    from pellucid.results.audit import Audit
    from pellucid.results.box_audit import BoxAudit
    from pellucid.results.comparison import Comparison
    from pellucid.results.distilled import Distilled
    from pellucid.results.features import FeatureImage, FeatureImages
    from pellucid.results.film import Film
    from pellucid.results.region_audit import RegionAudit
    from pellucid.results.repair import Repair
    from pellucid.results.scoreboard import Scoreboard
    from pellucid.results.stages import Stages
    from pellucid.results.tcav import ConceptTests
    from pellucid.verbs.activations import activations
    from pellucid.verbs.advise import advise
    from pellucid.verbs.atlas import atlas
    from pellucid.verbs.audit import audit
    from pellucid.verbs.audit_boxes import audit_boxes
    from pellucid.verbs.audit_regions import audit_regions
    from pellucid.verbs.compare import compare
    from pellucid.verbs.concepts import concepts
    from pellucid.verbs.distill import distill
    from pellucid.verbs.evaluate import evaluate
    from pellucid.verbs.explain import explain
    from pellucid.verbs.film import explain_film
    from pellucid.verbs.guarantee import guaranteed
    from pellucid.verbs.importance import importance
    from pellucid.verbs.more import more
    from pellucid.verbs.repair import repair
    from pellucid.verbs.stages import stages
    from pellucid.verbs.tcav import tcav
    from pellucid.verbs.verify import Verification, read, verify
    from pellucid.verbs.visualize import visualize

_HOMES = {
    "pellucid.engine.runtimes.asked": ("runtime",),
    "pellucid.media": ("Clip", "Geometry", "Picture", "Plan", "Volume", "read_clip", "read_image", "read_volume"),
    "pellucid.models.clips": ("ClipPreprocess",),
    "pellucid.models.layers": ("layers",),
    "pellucid.models.model": ("VisionModel",),
    "pellucid.models.volume_preprocess": ("VolumePreprocess",),
    "pellucid.models.sliding": ("SlidingWindow",),
    "pellucid.models.unscripted": ("Unscripted",),
    "pellucid.models.preprocess": ("Preprocess",),
    "pellucid.models.blackbox": ("to_onnx",),
    "pellucid.models.sources": ("load", "per_frame", "per_slice", "wrap"),
    "pellucid.models.targets": ("Class", "Contrast", "PerSample", "Step", "Target", "TopClass", "Unit"),
    "pellucid.verbs.distill": ("distill",),
    "pellucid.results": ("Concepts", "Heatmap", "Heatmaps", "Importance", "VideoHeatmap", "VolumeHeatmap"),
    "pellucid.results.activations": ("Activations",),
    "pellucid.results.atlas": ("AtlasSheet",),
    "pellucid.results.audit": ("Audit",),
    "pellucid.results.box_audit": ("BoxAudit",),
    "pellucid.verbs.audit_boxes": ("audit_boxes",),
    "pellucid.results.region_audit": ("RegionAudit",),
    "pellucid.verbs.audit_regions": ("audit_regions",),
    "pellucid.results.comparison": ("Comparison",),
    "pellucid.verbs.compare": ("compare",),
    "pellucid.results.features": ("FeatureImage", "FeatureImages"),
    "pellucid.results.tcav": ("ConceptTests",),
    "pellucid.verbs.activations": ("activations",),
    "pellucid.verbs.advise": ("advise",),
    "pellucid.verbs.atlas": ("atlas",),
    "pellucid.results.scoreboard": ("Scoreboard",),
    "pellucid.results.stages": ("Stages",),
    "pellucid.verbs.evaluate": ("evaluate",),
    "pellucid.verbs.explain": ("explain",),
    "pellucid.verbs.film": ("explain_film",),
    "pellucid.results.film": ("Film",),
    "pellucid.verbs.guarantee": ("guaranteed",),
    "pellucid.results.distilled": ("Distilled",),
    "pellucid.verbs.more": ("more",),
    "pellucid.verbs.repair": ("repair",),
    "pellucid.verbs.stages": ("stages",),
    "pellucid.results.repair": ("Repair",),
    "pellucid.verbs.tcav": ("tcav",),
    "pellucid.verbs.verify": ("Verification", "read", "verify"),
    "pellucid.verbs.visualize": ("visualize",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_ROOMS = (
    "audit",
    "concepts",
    "engine",
    "errors",
    "evaluation",
    "explanation",
    "features",
    "heatmaps",
    "importance",
    "interpretable",
    "media",
    "models",
    "render",
    "results",
    "storage",
    "testing",
)

__all__ = [
    "Activations",
    "AtlasSheet",
    "Audit",
    "BoxAudit",
    "Class",
    "Clip",
    "ClipPreprocess",
    "Comparison",
    "ConceptTests",
    "Concepts",
    "Contrast",
    "Distilled",
    "FeatureImage",
    "FeatureImages",
    "Film",
    "Geometry",
    "Heatmap",
    "Heatmaps",
    "Importance",
    "LayerError",
    "MediaError",
    "MethodError",
    "ModelError",
    "PellucidError",
    "PerSample",
    "Picture",
    "Plan",
    "Preprocess",
    "RegionAudit",
    "Repair",
    "Scoreboard",
    "SlidingWindow",
    "Stages",
    "Step",
    "StorageError",
    "Target",
    "TargetError",
    "TopClass",
    "Unit",
    "Unscripted",
    "Verification",
    "VideoHeatmap",
    "VisionModel",
    "Volume",
    "VolumeHeatmap",
    "VolumePreprocess",
    "__version__",
    "activations",
    "advise",
    "atlas",
    "audit",
    "audit_boxes",
    "audit_regions",
    "compare",
    "concepts",
    "distill",
    "evaluate",
    "explain",
    "explain_film",
    "guaranteed",
    "importance",
    "layers",
    "load",
    "more",
    "per_frame",
    "per_slice",
    "read",
    "read_clip",
    "read_image",
    "read_volume",
    "repair",
    "runtime",
    "stages",
    "tcav",
    "to_onnx",
    "verify",
    "visualize",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return _imported(f"pellucid.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    value = getattr(_imported(_HOME[name]), name)
    globals()[name] = value
    return value


def _imported(module: str) -> ModuleType:
    """The module; some libraries draw from the caller's random numbers when they are first imported."""
    state = random.getstate()
    try:
        return import_module(module)
    finally:
        random.setstate(state)


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
