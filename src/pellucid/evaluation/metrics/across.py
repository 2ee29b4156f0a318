"""Read from all samples together: are inputs that are explained alike answered alike?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pellucid.evaluation.banks.maps import AllMaps, OneOfAll
from pellucid.evaluation.metrics.registry import metric

ALL = AllMaps()
_ALIKE = 0.6  # correlation from which on two maps are alike

_PAPER = "Dasgupta et al. 2022, arXiv:2202.00734"
_FEW = "Hangs on the samples that there are: of one class it is 1. Of maps on 32 cells at most."


@metric("sufficiency", "robustness", "higher", ALL, paper=_PAPER, traps=_FEW)
def sufficiency(found: OneOfAll) -> float:
    """Share of the other samples whose maps correlate with this one by 0.6 and more that are of its class."""
    centred = found.maps - found.maps.mean(1, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, size, out=np.zeros_like(centred), where=size > 0)
    return _of_its_class(found, unit @ unit[found.at] >= _ALIKE)


@metric("consistency", "robustness", "higher", ALL, paper=_PAPER, traps=_FEW)
def consistency(found: OneOfAll) -> float:
    """Share of the other samples with their greatest relevance in the same cell that are of its class."""
    peaks = found.maps.argmax(1)
    return _of_its_class(found, peaks == peaks[found.at])


def _of_its_class(found: OneOfAll, alike: NDArray[np.bool_]) -> float:
    """NaN where no other sample is alike."""
    others = alike & (np.arange(len(alike)) != found.at)
    return float((found.classes[others] == found.classes[found.at]).mean()) if others.any() else math.nan
