"""Banks: what a model is asked once for many metrics. See `pellucid.evaluation.banks.base`."""

from pellucid.evaluation.banks.base import AnswerBank
from pellucid.evaluation.banks.curves import MoRFCurves, MoRFScores, RankCurves, RankedScores
from pellucid.evaluation.banks.groups import GroupEffects, RankGroups, ShownAlone, SoftMask
from pellucid.evaluation.banks.maps import BothEnds, MapAlone, MapAndScores, MapAndTruth, MapValues, TruthMask, TubeMask
from pellucid.evaluation.banks.parts import BesideParts, PartSums, SceneOracle
from pellucid.evaluation.banks.redrawn import (
    CascadedMaps,
    MovedInputs,
    MovedMaps,
    NearbyMaps,
    NoisyInputs,
    OtherClass,
    ShuffledWeights,
    TwoClasses,
)
from pellucid.evaluation.banks.subsets import RandomSubsets, SubsetEffects

__all__ = [
    "AnswerBank",
    "BesideParts",
    "BothEnds",
    "CascadedMaps",
    "GroupEffects",
    "MapAlone",
    "MapAndScores",
    "MapAndTruth",
    "MapValues",
    "MoRFCurves",
    "MoRFScores",
    "MovedInputs",
    "MovedMaps",
    "NearbyMaps",
    "NoisyInputs",
    "OtherClass",
    "PartSums",
    "RandomSubsets",
    "RankCurves",
    "RankGroups",
    "RankedScores",
    "SceneOracle",
    "ShownAlone",
    "ShuffledWeights",
    "SoftMask",
    "SubsetEffects",
    "TruthMask",
    "TubeMask",
    "TwoClasses",
]
