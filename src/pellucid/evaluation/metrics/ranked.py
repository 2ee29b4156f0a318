"""Faithfulness read from rank curves."""

from __future__ import annotations

import math

import torch

from pellucid.evaluation.banks.curves import MoRFCurves, MoRFScores, RankCurves, RankedScores
from pellucid.evaluation.metrics.registry import metric
from pellucid.evaluation.sample import LEAD

PIXELS, CELLS = RankCurves(), MoRFCurves(unit="cells")
SUPERPIXELS = MoRFCurves("mean", unit="superpixels")
IMPUTED = RankCurves("noisy-linear", steps=10)  # the paper's tenths

_ONE_ORDER = "Areas of one order hang on what the baseline alone does to the score: compare methods by srg."


@metric("deletion", "faithfulness", "lower", PIXELS, paper="Petsiuk et al. 2018, arXiv:1806.07421",
        traps=_ONE_ORDER, usual=True)  # fmt: skip
def deletion(found: RankedScores) -> float:
    """Area under the probability as the most relevant pixels are taken away first."""
    return found.area(found.morf)


@metric("insertion", "faithfulness", "higher", PIXELS, paper="Petsiuk et al. 2018, arXiv:1806.07421",
        traps=_ONE_ORDER, usual=True)  # fmt: skip
def insertion(found: RankedScores) -> float:
    """Area under the probability as the most relevant pixels are shown first on the baseline."""
    return found.area(found.insertion)


@metric("lerf", "faithfulness", "higher", PIXELS, paper="Samek et al. 2017, arXiv:1509.06321", traps=_ONE_ORDER)
def lerf(found: RankedScores) -> float:
    """Area under the probability as the least relevant pixels are taken away first."""
    return found.area(found.lerf)


@metric("srg", "faithfulness", "higher", PIXELS, paper="Blücher et al. 2024, arXiv:2401.06654", usual=True)
def srg(found: RankedScores) -> float:
    """Area between the least-relevant-first and the most-relevant-first curve; 0 for a random order."""
    return found.area(found.lerf - found.morf)


@metric("aopc", "faithfulness", "higher", PIXELS, paper="Samek et al. 2017, arXiv:1509.06321", traps=_ONE_ORDER)
def aopc(found: RankedScores) -> float:
    """Mean fall of the probability over the steps, the untouched input among them."""
    return float((found.morf[0] - found.morf).mean())


@metric("pixel-flipping", "faithfulness", "lower", PIXELS, paper="Bach et al. 2015, doi:10.1371/journal.pone.0130140",
        traps="In the score's own units, so not to be averaged over models.")  # fmt: skip
def pixel_flipping(found: RankedScores) -> float:
    """Area under the raw score as the most relevant pixels are taken away first."""
    return found.area(found.scores)


@metric("monotonicity", "faithfulness", "higher", PIXELS, paper="Arya et al. 2019, arXiv:1909.03012",
        traps="One step down among many makes it 0.")  # fmt: skip
def monotonicity(found: RankedScores) -> float:
    """1 where the probability never falls as pixels are shown, the least relevant first; else 0."""
    shown = found.morf.flip(0)
    return float(bool((shown.diff() >= -1e-9 * shown.abs().max().clamp(min=1e-12)).all()))


@metric("minimal-deletion", "faithfulness", "lower", PIXELS, paper="Dabkowski & Gal 2017, arXiv:1705.07857",
        traps="In steps of the curve; 1 where the answer stays to the end.")  # fmt: skip
def minimal_deletion(found: RankedScores) -> float:
    """Smallest share of pixels, most relevant first, whose loss changes the answer."""
    return _first(found, found.most[:, LEAD] <= 0)


@metric("minimal-insertion", "faithfulness", "lower", PIXELS, paper="Dabkowski & Gal 2017, arXiv:1705.07857",
        traps="In steps of the curve; 0 where the bare baseline is answered the same.")  # fmt: skip
def minimal_insertion(found: RankedScores) -> float:
    """Smallest share of pixels, most relevant first, that restores the answer on the baseline."""
    return _first(found, found.least[:, LEAD].flip(0) > 0)


def _first(found: RankedScores, holds: torch.Tensor) -> float:
    if not found.decides:
        return math.nan
    return float(found.fractions[int(holds.int().argmax())]) if bool(holds.any()) else 1.0


@metric("pgi", "faithfulness", "higher", PIXELS, paper="Agarwal et al. 2022, OpenXAI, arXiv:2206.11104",
        traps="The prediction gap on the baseline in place of noise.")  # fmt: skip
def pgi(found: RankedScores) -> float:
    """Mean change of the probability when the top share alone is hidden, over shares up to one half."""
    half = found.fractions <= 0.5
    return float((found.morf[0] - found.morf)[half][1:].abs().mean())


@metric("pgu", "faithfulness", "lower", PIXELS, paper="Agarwal et al. 2022, OpenXAI, arXiv:2206.11104",
        traps="The prediction gap on the baseline in place of noise.")  # fmt: skip
def pgu(found: RankedScores) -> float:
    """Mean change of the probability when all but the top share is hidden, over shares up to one half."""
    half = found.fractions <= 0.5
    return float((found.lerf[0] - found.insertion)[half][1:].abs().mean())


@metric("selectivity", "faithfulness", "lower", CELLS, paper="Montavon et al. 2018, doi:10.1016/j.dsp.2017.10.011",
        traps=_ONE_ORDER)  # fmt: skip
def selectivity(found: MoRFScores) -> float:
    """Area under the probability as whole cells are taken away, by their mean relevance."""
    return found.area(found.morf)


@metric("region-perturbation", "faithfulness", "higher", CELLS, paper="Samek et al. 2017, arXiv:1509.06321",
        traps=_ONE_ORDER)  # fmt: skip
def region_perturbation(found: MoRFScores) -> float:
    """Mean fall of the probability as whole cells are taken away, by their mean relevance (AOPC of regions)."""
    return float((found.morf[0] - found.morf).mean())


@metric("irof", "faithfulness", "higher", SUPERPIXELS, paper="Rieger & Hansen 2020, arXiv:2003.08747",
        traps=_ONE_ORDER, usual=True)  # fmt: skip
def irof(found: MoRFScores) -> float:
    """Area over the probability's share that is left as superpixels give way to the mean colour, by mean relevance."""
    first = float(found.morf[0])
    return 1 - found.area(found.morf) / first if first > 0 else math.nan


@metric("road", "faithfulness", "higher", IMPUTED, paper="Rong et al. 2022, arXiv:2202.00449", usual=True,
        traps="A smooth map's holes stay visible as blurs after linear imputation.")  # fmt: skip
def road(found: RankedScores) -> float:
    """Half the area between both orders' shares of kept answers, hidden pixels imputed from their neighbours."""
    if not found.decides:
        return math.nan
    kept = [(side[:, LEAD] > 0).double() for side in (found.least, found.most)]
    return found.area(kept[0] - kept[1]) / 2


@metric("road-morf", "faithfulness", "lower", IMPUTED, paper="Rong et al. 2022, arXiv:2202.00449",
        traps="A smooth map's holes stay visible as blurs after linear imputation.")  # fmt: skip
def road_morf(found: RankedScores) -> float:
    """Share of steps at which the answer is kept, most relevant first, hidden pixels imputed from their neighbours."""
    return found.area((found.most[:, LEAD] > 0).double()) if found.decides else math.nan


_SIZE = "How much a picture says is the size of its deflated differences, in place of that of a WebP file."


@metric("sic", "faithfulness", "higher", PIXELS, paper="Kapishnikov et al. 2019, XRAI, arXiv:1906.02825", traps=_SIZE)
def sic(found: RankedScores) -> float:
    """Area under the probability over how much the picture says, as the most relevant pixels are shown."""
    return _over_size(found, found.insertion)


@metric("aic", "faithfulness", "higher", PIXELS, paper="Kapishnikov et al. 2019, XRAI, arXiv:1906.02825", traps=_SIZE)
def aic(found: RankedScores) -> float:
    """Area under whether the answer is the same, over how much the picture says, as the most relevant is shown."""
    return _over_size(found, (found.least[:, LEAD].flip(0) > 0).double()) if found.decides else math.nan


def _over_size(found: RankedScores, values: torch.Tensor) -> float:
    """Both from 0, of the baseline, to 1, of the input, and never falling; NaN where the baseline is no less."""
    assert found.told is not None
    sizes = found.told()
    if not (values[-1] > values[0] and sizes[-1] > sizes[0]):
        return math.nan
    share, size = (((v - v[0]) / (v[-1] - v[0])).clamp(0, 1).cummax(0).values for v in (values, sizes))
    return float(torch.trapezoid(share, size))
