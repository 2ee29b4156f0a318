"""Faithfulness read from subsets that no map has chosen, from groups of ranks, and from the map as a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.evaluation.banks.groups import GroupEffects, RankGroups, ShownAlone, SoftMask
from pellucid.evaluation.banks.subsets import RandomSubsets, SubsetEffects
from pellucid.evaluation.metrics.registry import metric
from pellucid.evaluation.sample import LEAD, PROBABILITY
from pellucid.numerics.ranks import pearson, rank_correlation

SUBSETS, GROUPS, MASK, HOLE = RandomSubsets(), RankGroups(), SoftMask(), SoftMask(inside=False)
SUPERPIXELS = RandomSubsets(unit="superpixels", count=40)
_SIZE = 0.25  # of the subsets that a correlation of one size is taken over
_SMALL = 1e-3  # of the largest effect or relevance: as good as none

_COARSE = "On a coarse grid of cells, by the map's sum over each."


@metric("faithfulness-correlation", "faithfulness", "higher", SUBSETS, paper="Bhatt et al. 2020, arXiv:2005.00631",
        traps=_COARSE, usual=True)  # fmt: skip
def faithfulness_correlation(found: SubsetEffects) -> float:
    """Correlation of the map's sum over random subsets of a quarter of the cells with the fall of the score."""
    rows = found.of_size(_SIZE)
    return float(pearson(found.predicted[rows], found.effects[rows]))


@metric("mu-fidelity", "faithfulness", "higher", SUBSETS, paper="Bhatt et al. 2020, arXiv:2005.00631; Fel et al. 2021",
        traps=_COARSE)  # fmt: skip
def mu_fidelity(found: SubsetEffects) -> float:
    """Rank correlation of the map's sum over random subsets of a quarter of the cells with the fall of the score."""
    rows = found.of_size(_SIZE)
    return float(rank_correlation(found.predicted[rows], found.effects[rows]))


@metric("sensitivity-n", "faithfulness", "higher", SUBSETS, paper="Ancona et al. 2018, arXiv:1711.06104", usual=True,
        traps=_COARSE)  # fmt: skip
def sensitivity_n(found: SubsetEffects) -> float:
    """Mean over subset sizes n of the correlation of the map's sums with the falls of the score, for each n alone."""
    return mean_over_sizes(found)


@metric("seg-sensitivity-n", "faithfulness", "higher", SUPERPIXELS, paper="Gevaert et al. 2024, arXiv:2202.12270")
def seg_sensitivity_n(found: SubsetEffects) -> float:
    """Sensitivity-n over superpixels in place of cells."""
    return mean_over_sizes(found)


def mean_over_sizes(found: SubsetEffects) -> float:
    """The mean over subset sizes of the correlation of predicted and measured falls, each size by itself."""
    rows = [found.sizes == size for size in found.kinds]
    return float(torch.stack([pearson(found.predicted[r], found.effects[r]) for r in rows]).mean())


@metric("single-deletion", "faithfulness", "higher", SUBSETS, paper="Hesse et al. 2024, IDSDS, arXiv:2407.11910",
        traps="The paper trains the model on such deletions; here it is the model as it is.", usual=True)  # fmt: skip
def single_deletion(found: SubsetEffects) -> float:
    """Rank correlation of each cell's relevance with the fall of the score when it alone is taken away."""
    return float(rank_correlation(found.relevance, found.alone))


@metric("monotonicity-correlation", "faithfulness", "higher", SUBSETS,
        paper="Nguyen & Martinez 2020, arXiv:2007.07584", traps="One baseline in place of drawn values.")  # fmt: skip
def monotonicity_correlation(found: SubsetEffects) -> float:
    """Rank correlation of each cell's absolute relevance with the squared change of the score without it."""
    return float(rank_correlation(found.relevance.abs(), found.alone.square()))


@metric("infidelity", "faithfulness", "lower", SUBSETS, paper="Yeh et al. 2019, arXiv:1901.09392",
        traps="In the score's units: only maps that add up to it compare. See infidelity-scaled.")  # fmt: skip
def infidelity(found: SubsetEffects) -> float:
    """Mean squared difference of the map's sum over a random subset and the fall of the score without it."""
    return float((found.predicted - found.effects).square().mean())


@metric("infidelity-scaled", "faithfulness", "lower", SUBSETS, paper="Yeh et al. 2019, arXiv:1901.09392", usual=True)
def infidelity_scaled(found: SubsetEffects) -> float:
    """Infidelity with the map scaled as suits it best, over that of a map of zeros: 0 to 1."""
    power, size = found.predicted.square().mean(), found.effects.square().mean()
    if size <= 0:
        return math.nan
    scale = (found.predicted * found.effects).mean() / power if power > 0 else torch.zeros(())
    return float((scale * found.predicted - found.effects).square().mean() / size)


@metric("non-sensitivity", "axioms", "lower", SUBSETS, paper="Nguyen & Martinez 2020, arXiv:2007.07584",
        traps="Zero is a thousandth of the largest value.")  # fmt: skip
def non_sensitivity(found: SubsetEffects) -> float:
    """Share of cells without relevance that the score depends on, or with relevance that it does not depend on."""
    return float((_none(found.relevance) ^ _none(found.alone)).double().mean())


def _none(values: Tensor) -> Tensor:
    return values.abs() <= _SMALL * values.abs().max()


@metric(
    "faithfulness-estimate", "faithfulness", "higher", GROUPS, paper="Alvarez-Melis & Jaakkola 2018, arXiv:1806.07538"
)
def faithfulness_estimate(found: GroupEffects) -> float:
    """Correlation of the relevance of each tenth of the map's order with the fall of the score without it alone."""
    return float(pearson(found.relevance, found.effects))


@metric("saco", "faithfulness", "higher", GROUPS, paper="Wu et al. 2024, arXiv:2404.01415")
def saco(found: GroupEffects) -> float:
    """Over pairs of tenths, the difference of relevance, counted against the map where effects disagree; in [-1, 1]."""
    s, effect = found.relevance, found.effects
    i, j = torch.triu_indices(len(s), len(s), 1)
    weight = torch.where(effect[i] >= effect[j], s[i] - s[j], s[j] - s[i])
    total = float(weight.abs().sum())
    return float(weight.sum()) / total if total > 0 else 0.0


_DARK = "What shines through a smooth mask is no picture that the model was trained on."


@metric("average-drop", "faithfulness", "lower", MASK, paper="Chattopadhay et al. 2018, arXiv:1710.11063", traps=_DARK)
def average_drop(found: ShownAlone) -> float:
    """Share of the probability that is lost where only what the map holds is shown; 0 where it rises."""
    plain, shown = float(found.plain[PROBABILITY]), float(found.shown[PROBABILITY])
    return max(0.0, plain - shown) / plain if plain > 0 else math.nan


@metric("increase", "faithfulness", "higher", MASK, paper="Chattopadhay et al. 2018, arXiv:1710.11063", traps=_DARK)
def increase(found: ShownAlone) -> float:
    """1 where the probability rises when only what the map holds is shown; else 0."""
    return float(found.shown[PROBABILITY] > found.plain[PROBABILITY])


@metric(
    "average-gain", "faithfulness", "higher", MASK, paper="Zhang et al. 2024, Opti-CAM, arXiv:2301.07002", traps=_DARK
)
def average_gain(found: ShownAlone) -> float:
    """Share of the missing probability that is won where only what the map holds is shown; 0 where it falls."""
    plain, shown = float(found.plain[PROBABILITY]), float(found.shown[PROBABILITY])
    return max(0.0, shown - plain) / (1 - plain) if plain < 1 else math.nan


@metric("answer-kept", "faithfulness", "higher", MASK, paper="Hesse et al. 2023, FunnyBirds, arXiv:2308.06248",
        traps=_DARK)  # fmt: skip
def answer_kept(found: ShownAlone) -> float:
    """1 where the answer stays when only what the map holds is shown (preservation check); else 0."""
    return float(found.shown[LEAD] > 0) if float(found.plain[LEAD]) != 0 else math.nan


@metric("answer-lost", "faithfulness", "higher", HOLE, paper="Hesse et al. 2023, FunnyBirds, arXiv:2308.06248",
        traps=_DARK)  # fmt: skip
def answer_lost(found: ShownAlone) -> float:
    """1 where the answer is lost when what the map holds is hidden (deletion check); else 0."""
    return float(found.shown[LEAD] <= 0) if float(found.plain[LEAD]) != 0 else math.nan
