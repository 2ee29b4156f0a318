"""Targets: what score is explained, one kind a file. `@target` enters a kind; `as_target` reads whatever names one."""

from pellucid.models.targets.anomaly import AnomalyTarget
from pellucid.models.targets.base import (
    TARGETS,
    Labels,
    Target,
    TargetLike,
    as_target,
    parse_target,
    split_targets,
    target,
)
from pellucid.models.targets.boxes import BoxTarget
from pellucid.models.targets.classes import (
    Class,
    ClassTarget,
    Contrast,
    LabelTarget,
    PerSample,
    ScoresTarget,
    TopClass,
    ValueTarget,
    resolve_class,
)
from pellucid.models.targets.function import Function
from pellucid.models.targets.pairs import PairTarget, RankTarget
from pellucid.models.targets.regions import RegionTarget
from pellucid.models.targets.steps import Step
from pellucid.models.targets.units import Unit
from pellucid.models.targets.versus import Between

__all__ = [
    "TARGETS",
    "AnomalyTarget",
    "Between",
    "BoxTarget",
    "Class",
    "ClassTarget",
    "Contrast",
    "Function",
    "LabelTarget",
    "Labels",
    "PairTarget",
    "PerSample",
    "RankTarget",
    "RegionTarget",
    "ScoresTarget",
    "Step",
    "Target",
    "TargetLike",
    "TopClass",
    "Unit",
    "ValueTarget",
    "as_target",
    "parse_target",
    "resolve_class",
    "split_targets",
    "target",
]

TARGETS.extend("pellucid.targets")
