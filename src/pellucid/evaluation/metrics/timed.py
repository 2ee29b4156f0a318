"""Of clips: does the map say WHEN? Whole frames in its order, and the map's curve over time beside the true frames.

What a frame is worth is the sum of the map over it, in rank curves and subsets; beside the truth, of positive values.
Where and when at once is what the other metrics say of a clip: their pixels, cells and masks are of space and time.
"""

from __future__ import annotations

import numpy as np

from pellucid.evaluation.banks.curves import RankCurves, RankedScores
from pellucid.evaluation.banks.maps import MapAndTruth, TubeMask
from pellucid.evaluation.banks.parts import PartSums
from pellucid.evaluation.banks.subsets import FrameCoalitions, RandomSubsets, SubsetEffects
from pellucid.evaluation.metrics.located import mask_auc, mask_iou, relevance_mass
from pellucid.evaluation.metrics.masked import mean_over_sizes
from pellucid.evaluation.metrics.registry import metric
from pellucid.numerics.ranks import pearson

FRAMES, SOME, TUBE, STRETCHES = RankCurves(unit="frames"), RandomSubsets(unit="frames"), TubeMask(), FrameCoalitions()
SLACK = 1  # frames by which a peak may miss: the difference of two frames has no frame of its own

_STEP = "Li et al. 2021, arXiv:2005.00375"
_STILL = "Says nothing where the model would know each frame by itself: any frame then does."
_FRAME = "A map whose steps are as long as the evidence cannot say more."


@metric("temporal-deletion", "faithfulness", "lower", FRAMES, paper=_STEP, clips=True,
        traps=f"{_STILL} Compare methods by temporal-srg.")  # fmt: skip
def temporal_deletion(found: RankedScores) -> float:
    """Area under the probability as the most relevant frames are taken away first."""
    return found.area(found.morf)


@metric("temporal-insertion", "faithfulness", "higher", FRAMES, paper=_STEP, clips=True,
        traps=f"{_STILL} Compare methods by temporal-srg.")  # fmt: skip
def temporal_insertion(found: RankedScores) -> float:
    """Area under the probability as the most relevant frames are shown first on the baseline."""
    return found.area(found.insertion)


@metric("temporal-srg", "faithfulness", "higher", FRAMES, clips=True, usual=True, traps=_STILL,
        paper="Blücher et al. 2024, arXiv:2401.06654, of frames")  # fmt: skip
def temporal_srg(found: RankedScores) -> float:
    """Area between both orders of frames, the least and the most relevant first; 0 for a random order."""
    return found.area(found.lerf - found.morf)


@metric("temporal-sensitivity-n", "faithfulness", "higher", SOME, clips=True, usual=True, traps=_STILL,
        paper="Ancona et al. 2018, arXiv:1711.06104, of frames")  # fmt: skip
def temporal_sensitivity_n(found: SubsetEffects) -> float:
    """Mean over subset sizes of the correlation of the map's sums over frames with the falls of the score."""
    return mean_over_sizes(found)


@metric("temporal-shapley", "faithfulness", "higher", STRETCHES, clips=True, traps=_STILL,
        paper="Shapley 1953, of stretches of time")  # fmt: skip
def temporal_shapley(found: PartSums) -> float:
    """Correlation of the map's sums over at most six stretches of time with their exact Shapley values."""
    return float(pearson(found.sums, found.true))


@metric("temporal-pointing", "localisation", "higher", TUBE, paper=_STEP, clips=True, usual=True, traps=_FRAME)
def temporal_pointing(found: MapAndTruth) -> float:
    """1 where the frame of greatest relevance holds evidence or is next to one that does; of equal ones, the share."""
    frames = over_time(found)
    true = np.flatnonzero(frames.truth)
    peaks = np.flatnonzero(frames.heat == frames.heat.max())
    return float((np.abs(peaks[:, None] - true).min(1) <= SLACK).mean()) if len(true) else 0.0


@metric("temporal-mass", "localisation", "higher", TUBE, paper=f"{_STEP}; Arras et al. 2022, arXiv:2003.07258",
        clips=True, usual=True, traps=_FRAME)  # fmt: skip
def temporal_mass(found: MapAndTruth) -> float:
    """Share of the positive relevance that lies in frames with evidence."""
    return relevance_mass(over_time(found))


@metric("temporal-auc", "localisation", "higher", TUBE, paper="Fawcett 2006, doi:10.1016/j.patrec.2005.10.010",
        clips=True, usual=True, traps=_FRAME)  # fmt: skip
def temporal_auc(found: MapAndTruth) -> float:
    """The chance that a frame with evidence has more relevance than one without."""
    return mask_auc(over_time(found))


@metric("temporal-iou", "localisation", "higher", TUBE, paper="Choe et al. 2020, arXiv:2001.07437, of frames",
        clips=True, traps=_FRAME)  # fmt: skip
def temporal_iou(found: MapAndTruth) -> float:
    """Largest overlap of the frames with evidence with those whose relevance is above any threshold."""
    return mask_iou(over_time(found))


def over_time(found: MapAndTruth) -> MapAndTruth:
    """The positive relevance of each frame, and whether it holds evidence; frames that were not seen are left out."""
    heat = found.heat.reshape(found.shape[0], -1)
    truth = found.truth.reshape(found.shape[0], -1)
    seen = np.isfinite(heat).any(1)
    worth = np.nansum(heat.clip(0), 1)[seen]
    return MapAndTruth(worth, np.asarray(truth.any(1))[seen], worth.shape)
