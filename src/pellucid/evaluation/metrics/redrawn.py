"""Robustness and randomisation: what is read from maps drawn again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.evaluation.banks.altered import (
    CroppedInput,
    ItselfAndCurves,
    ItselfAndImputed,
    LaterClip,
    MapOfItself,
    MaskedMaps,
    ReversedClip,
    ShiftedScale,
)
from pellucid.evaluation.banks.patched import AdversarialPatch, PatchedMap
from pellucid.evaluation.banks.redrawn import (
    CascadedMaps,
    MovedInputs,
    MovedMaps,
    NearbyMaps,
    NoisyInputs,
    OtherClass,
    ShuffledWeights,
    TwoClasses,
    TwoMaps,
)
from pellucid.evaluation.metrics.alone import map_entropy
from pellucid.evaluation.metrics.ranked import road
from pellucid.evaluation.metrics.registry import metric
from pellucid.evaluation.sample import PROBABILITY
from pellucid.numerics.ranks import pearson, rank_correlation
from pellucid.numerics.statistics import spearman

NEARBY, MOVED, SHUFFLED, OTHER = NoisyInputs(), MovedInputs(), ShuffledWeights(), OtherClass()
SMOOTHED, ITSELF, SCALE, CROPPED = ShuffledWeights(draws=8), MaskedMaps(), ShiftedScale(), CroppedInput()
BACKWARDS, LATER = ReversedClip(), LaterClip()

_CONSTANT = "A map that never changes is the most robust of all: read it beside mprt."
_TINY = 1e-6


def _changes(found: NearbyMaps) -> Tensor:
    size = found.plain.norm()
    return (found.maps - found.plain).norm(dim=1) / size if float(size) > 0 else torch.full((1,), math.nan)


@metric("max-sensitivity", "robustness", "lower", NEARBY, paper="Yeh et al. 2019, arXiv:1901.09392", traps=_CONSTANT)
def max_sensitivity(found: NearbyMaps) -> float:
    """Largest relative change of the map over inputs nearby."""
    return float(_changes(found).max())


@metric("avg-sensitivity", "robustness", "lower", NEARBY, paper="Bhatt et al. 2020, arXiv:2005.00631", traps=_CONSTANT)
def avg_sensitivity(found: NearbyMaps) -> float:
    """Mean relative change of the map over inputs nearby."""
    return float(_changes(found).mean())


@metric("lipschitz", "robustness", "lower", NEARBY, paper="Alvarez-Melis & Jaakkola 2018, arXiv:1806.08049",
        traps=f"{_CONSTANT} In the map's own units.")  # fmt: skip
def lipschitz(found: NearbyMaps) -> float:
    """Largest change of the map over the change of the input, over inputs nearby."""
    change = (found.maps - found.plain).norm(dim=1)
    return float((change / (found.nearby - found.inputs).norm(dim=1).clamp(min=1e-12)).max())


def _relative(after: Tensor, before: Tensor) -> Tensor:
    """The norm of relative changes, place by place; where nothing was before, over the mean size."""
    floor = 1e-3 * before.abs().mean().clamp(min=1e-12)
    scale = torch.where(before.abs() > floor, before.abs(), floor)
    found: Tensor = ((after - before) / scale).norm(dim=1)
    return found


@metric("ris", "robustness", "lower", NEARBY, paper="Agarwal et al. 2022, arXiv:2203.06877", traps=_CONSTANT)
def ris(found: NearbyMaps) -> float:
    """Largest relative change of the map over the relative change of the input (relative input stability)."""
    change = _relative(found.nearby, found.inputs).clamp(min=_TINY)
    return float((_relative(found.maps, found.plain) / change).max())


@metric("ros", "robustness", "lower", NEARBY, paper="Agarwal et al. 2022, arXiv:2203.06877", traps=_CONSTANT)
def ros(found: NearbyMaps) -> float:
    """Largest relative change of the map over the change of the model's scores (relative output stability)."""
    change = (found.moved - found.outputs).norm(dim=1).clamp(min=_TINY)
    return float((_relative(found.maps, found.plain) / change).max())


@metric("rrs", "robustness", "lower", NEARBY, paper="Agarwal et al. 2022, arXiv:2203.06877", traps=_CONSTANT)
def rrs(found: NearbyMaps) -> float:
    """Largest relative change of the map over that of the features behind it (relative representation stability)."""
    assert found.inside is not None
    features = found.inside()
    change = _relative(features[1:], features[0]).clamp(min=_TINY)
    return float((_relative(found.maps, found.plain) / change).max())


@metric("continuity", "robustness", "lower", MOVED, paper="Montavon et al. 2018, doi:10.1016/j.dsp.2017.10.011",
        traps=f"{_CONSTANT} Of one shift. In the map's own units.")  # fmt: skip
def continuity(found: MovedMaps) -> float:
    """Change of the map, shifted back, over the change of the input when it is shifted."""
    one, other = found.shifted
    return float((one - other).norm()) / found.distance if found.distance > 0 else math.nan


@metric("input-invariance", "robustness", "lower", SCALE, paper="Kindermans et al. 2019, arXiv:1711.00867",
        traps="A method with a baseline of its own answers another question on another scale.")  # fmt: skip
def input_invariance(found: TwoMaps) -> float:
    """Relative change of the map when a constant is added to the input and taken away again by the model."""
    size = found.plain.norm()
    return float((found.other - found.plain).norm() / size) if float(size) > 0 else math.nan


@metric("reversal-equivariance", "robustness", "higher", BACKWARDS, clips=True,
        paper="Crabbé & van der Schaar 2023, arXiv:2304.06715, of time",
        traps="Only of models that answer a clip played backwards alike.")  # fmt: skip
def reversal_equivariance(found: TwoMaps) -> float:
    """Correlation of the map with that of the clip played backwards, played forwards again."""
    return float(pearson(found.plain, found.other))


@metric("frame-shift-equivariance", "robustness", "higher", LATER, clips=True,
        paper="Crabbé & van der Schaar 2023, arXiv:2304.06715, of time",
        traps="The model itself need not answer a later clip alike.")  # fmt: skip
def frame_shift_equivariance(found: TwoMaps) -> float:
    """Correlation of the map with that of the clip one frame later, moved back, without the frame that is gone."""
    return float(pearson(found.plain, found.other))


@metric("coherency", "robustness", "higher", ITSELF, paper="Poppi et al. 2021, arXiv:2104.10252",
        traps=_CONSTANT)  # fmt: skip
def coherency(found: MapOfItself) -> float:
    """Correlation of the map with that of the input seen through it, from 0 (opposite) to 1 (the same)."""
    return float((pearson(found.again.double().flatten(), found.mask.double().flatten()) + 1) / 2)


@metric("adcc", "faithfulness", "higher", ITSELF, paper="Poppi et al. 2021, arXiv:2104.10252",
        traps="A third of it says how small a map is, and a third whether it repeats itself.")  # fmt: skip
def adcc(found: MapOfItself) -> float:
    """Harmonic mean of coherency, of 1 less the map's mean size, and of 1 less the average drop; 0 where one is 0."""
    plain, shown = float(found.plain[PROBABILITY]), float(found.shown[PROBABILITY])
    if plain <= 0:
        return math.nan
    return _harmonic(coherency(found), 1 - float(found.mask.double().mean()), 1 - max(0.0, plain - shown) / plain)


def _harmonic(*parts: float) -> float:
    """The harmonic mean; 0 where a part is 0 or less, NaN where one is not known."""
    if any(math.isnan(p) for p in parts):
        return math.nan
    return len(parts) / sum(1 / p for p in parts) if all(p > 0 for p in parts) else 0.0


@metric("arcc", "robustness", "higher", ItselfAndImputed(), paper="arXiv:2605.14641, as pytorch-grad-cam has it",
        traps="A third of it says how small a map is, and a third whether it repeats itself.")  # fmt: skip
def arcc(found: ItselfAndCurves) -> float:
    """As adcc, with twice road, from 0 to 1, in the place of 1 less the average drop."""
    size = float(found.itself.mask.double().mean())
    return _harmonic(coherency(found.itself), 1 - size, min(1.0, 2 * road(found.curves)))


@metric("flip-equivariance", "robustness", "higher", MOVED, paper="Crabbé & van der Schaar 2023, arXiv:2304.06715",
        traps="The model itself need not answer a mirror image alike.")  # fmt: skip
def flip_equivariance(found: MovedMaps) -> float:
    """Correlation of the map with that of the mirror image, mirrored back."""
    return float(pearson(*found.flipped))


@metric("shift-equivariance", "robustness", "higher", MOVED, paper="Crabbé & van der Schaar 2023, arXiv:2304.06715",
        traps="The model itself need not answer a shifted input alike.")  # fmt: skip
def shift_equivariance(found: MovedMaps) -> float:
    """Correlation of the map with that of the shifted input, shifted back, without the rim."""
    return float(pearson(*found.shifted))


@metric("crop-equivariance", "robustness", "higher", CROPPED, paper="Crabbé & van der Schaar 2023, arXiv:2304.06715",
        traps="The model itself need not answer a crop alike: what it lost may have mattered.")  # fmt: skip
def crop_equivariance(found: TwoMaps) -> float:
    """Correlation of the middle of the map with the map of the middle of the input, shown at full size."""
    return float(pearson(found.plain, found.other))


@metric("mprt", "randomisation", "lower", SHUFFLED, paper="Adebayo et al. 2018, arXiv:1810.03292",
        traps="Maps of the shuffled model may be noise for reasons of their own.")  # fmt: skip
def mprt(found: CascadedMaps) -> float:
    """Mean absolute rank correlation of the map with those of the model as weights are shuffled, last ones first."""
    return sum(abs(spearman(found.plain, m)) for m in found.stages) / len(found.stages)


@metric("mprt-last", "randomisation", "lower", SHUFFLED, paper="Adebayo et al. 2018, arXiv:1810.03292")
def mprt_last(found: CascadedMaps) -> float:
    """Absolute rank correlation of the map with that of the model with all weights shuffled."""
    return abs(spearman(found.plain, found.stages[-1]))


@metric("smprt", "randomisation", "lower", SMOOTHED, paper="Hedström et al. 2024, arXiv:2401.06465",
        traps="Of maps averaged over noise, as SmoothGrad's are.")  # fmt: skip
def smprt(found: CascadedMaps) -> float:
    """As mprt, of maps averaged over noisy inputs, so that shattered gradients do not pass for a change."""
    return mprt(found)


@metric("emprt", "randomisation", "higher", SHUFFLED, paper="Hedström et al. 2024, arXiv:2401.06465")
def emprt(found: CascadedMaps) -> float:
    """By how much the map's entropy rises, relatively, when all weights are shuffled (efficient MPRT)."""
    before = map_entropy(found.plain)
    return (map_entropy(found.stages[-1]) - before) / before if before > 0 else math.nan


@metric("random-logit", "randomisation", "lower", OTHER, paper="Sixt et al. 2020, arXiv:1912.09818",
        traps="Classes that look alike may rest on the same places.")  # fmt: skip
def random_logit(found: TwoClasses) -> float:
    """Rank correlation of the map with that for another class, drawn at random."""
    return float(rank_correlation(found.plain, found.other))


@metric("impact-coverage", "faithfulness", "higher", AdversarialPatch(), paper="Lin et al. 2019, arXiv:1910.07387",
        traps="The patch is made for this model and looks like nothing; of a class drawn at random.")  # fmt: skip
def impact_coverage(found: PatchedMap) -> float:
    """Overlap of a patch that decides the answer with as many greatest values of the map of that answer."""
    inside, heat = found.patch, found.values
    count = int(inside.sum())
    edge = heat.sort(descending=True).values[count - 1]
    above, level = heat > edge, heat == edge
    hits = float(inside[above].sum()) + (count - int(above.sum())) * float(inside[level].double().mean())
    return hits / (2 * count - hits)
