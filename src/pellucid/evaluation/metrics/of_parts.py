"""What a map says of the parts of a scene, beside what they truly add: drawn again without them, not hidden."""

from __future__ import annotations

import math

from torch import Tensor

from pellucid.evaluation.banks.parts import (
    BesideParts,
    ContrastedScenes,
    PartSums,
    RivalClasses,
    RivalMaps,
    SceneContrasts,
)
from pellucid.evaluation.metrics.registry import metric
from pellucid.numerics.ranks import pearson, rank_correlation

PARTS, WITHOUT, CONTRASTS, RIVALS = BesideParts(), BesideParts(alone=True), ContrastedScenes(), RivalClasses()
_BAM = "Yang & Kim 2019, BAM, arXiv:1907.09701"
_STILL = 0.1  # of the map's size: a change up to which it counts as the same
_FUNNY = "Hesse et al. 2023, FunnyBirds, arXiv:2308.06248"
_NOTHING = 1e-6  # of the greatest value: as good as none


@metric("part-correlation", "localisation", "higher", PARTS, paper=_FUNNY,
        traps="Sums over parts: where in a part the relevance lies does not matter.")  # fmt: skip
def part_correlation(found: PartSums) -> float:
    """Correlation of the map's sums over the parts with the parts' exact Shapley values."""
    return float(pearson(found.sums, found.true))


@metric("part-rank-correlation", "localisation", "higher", PARTS, paper=_FUNNY,
        traps="Of few parts: it takes few values on one scene.")  # fmt: skip
def part_rank_correlation(found: PartSums) -> float:
    """Rank correlation of the map's sums over the parts with the parts' exact Shapley values."""
    return float(rank_correlation(found.sums, found.true))


@metric("part-single-deletion", "localisation", "higher", WITHOUT, paper=f"{_FUNNY} (single deletion)",
        traps="Of two parts that stand in for each other neither is missed alone.")  # fmt: skip
def part_single_deletion(found: PartSums) -> float:
    """Rank correlation of the map's sums over the parts with the falls of the score when each is drawn without."""
    return float(rank_correlation(found.sums, found.true))


@metric("part-distraction", "localisation", "lower", PARTS, paper=f"{_FUNNY} (distractibility)",
        traps="Of the parts alone: relevance on the ground is not in it.")  # fmt: skip
def part_distraction(found: PartSums) -> float:
    """Share of the absolute relevance of all parts that lies on parts which provably add nothing."""
    size, idle = found.sums.abs(), found.true.abs() <= _NOTHING * found.true.abs().max()
    return float(size[idle].sum() / size.sum()) if float(size.sum()) > 0 else math.nan


@metric("target-sensitivity", "localisation", "higher", RIVALS, paper=f"{_FUNNY} (target sensitivity)",
        traps="A map that knows no class is right for one of the two. Of a network of its own.")  # fmt: skip
def target_sensitivity(found: RivalMaps) -> float:
    """Share of two classes whose map holds more on the parts that class rests on than on those of the other."""
    sums = found.maps @ found.places.double().T
    return float((sums.diag() > sums.flip(1).diag()).double().mean())


@metric("model-contrast", "localisation", "higher", CONTRASTS, paper=f"{_BAM} (model contrast score)",
        traps="The twin is another network: a map may differ for reasons of its own.")  # fmt: skip
def model_contrast(found: SceneContrasts) -> float:
    """A part's share of the map for a network that heeds it, less its share for a twin that never looks at it."""
    return _share(found.plain, found.contested) - _share(found.twin, found.contested)


def _share(heat: Tensor, where: Tensor) -> float:
    size = heat.abs()
    return float(size[where].sum() / size.sum()) if float(size.sum()) > 0 else math.nan


@metric("input-dependence", "localisation", "higher", CONTRASTS, paper=f"{_BAM} (input dependence rate)",
        traps="A constant map has it.")  # fmt: skip
def input_dependence(found: SceneContrasts) -> float:
    """1 where a part that says nothing makes its place no more relevant than it was without the part; else 0."""
    now, before = (float(heat.abs()[found.useless].mean()) for heat in (found.plain, found.without))
    return float(now <= before * (1 + 1e-6))


@metric("input-independence", "localisation", "higher", CONTRASTS, paper=f"{_BAM} (input independence rate)",
        traps="A constant map has it. A change up to a tenth of the map's size counts as none.")  # fmt: skip
def input_independence(found: SceneContrasts) -> float:
    """1 where a part that says nothing leaves the map as it was without the part; else 0."""
    size = float(found.plain.norm())
    return float(float((found.plain - found.without).norm()) <= _STILL * size) if size > 0 else math.nan
