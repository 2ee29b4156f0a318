"""What is read from the map alone: how little of the input it needs, and whether it adds up."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pellucid.evaluation.banks.maps import BothEnds, MapAlone, MapAndScores, MapValues
from pellucid.evaluation.metrics.registry import metric
from pellucid.numerics.spanning import spanning_length

MAP, ENDS = MapAlone(), BothEnds()
_NO_MERIT = "A virtue only of a map that is faithful: one bright pixel is the best of all."


@metric("sparseness", "complexity", "higher", MAP, paper="Chalasani et al. 2020, arXiv:1810.06583", traps=_NO_MERIT,
        usual=True)  # fmt: skip
def sparseness(found: MapValues) -> float:
    """Gini index of the absolute relevance: 0 for a flat map, 1 - 1/n for one pixel."""
    values = found.values.abs().flatten().sort().values
    n, total = len(values), float(values.sum())
    if total <= 0:
        return math.nan
    return float(((2 * torch.arange(1, n + 1, dtype=torch.float64) - n - 1) * values).sum()) / (n * total)


@metric("entropy", "complexity", "lower", MAP, paper="Bhatt et al. 2020, arXiv:2005.00631 (complexity)", usual=True,
        traps=f"{_NO_MERIT} Elsewhere the entropy of a histogram of values has the same name, complexity.")  # fmt: skip
def entropy(found: MapValues) -> float:
    """Entropy, in nats, of the absolute relevance as shares of its sum: ln n for a flat map, 0 for one pixel."""
    return map_entropy(found.values)


def map_entropy(values: Tensor) -> float:
    """Entropy of absolute values as shares of their sum, in nats; NaN of a map of zeros."""
    size = values.double().abs().flatten()
    total = size.sum()
    if total <= 0:
        return math.nan
    shares = size / total
    return float(-torch.special.xlogy(shares, shares).sum())


@metric("histogram-entropy", "complexity", "lower", MAP, paper="pnpxai and torchxai, as complexity",
        traps=_NO_MERIT)  # fmt: skip
def histogram_entropy(found: MapValues) -> float:
    """Entropy, in nats, of a histogram of the values with ten bins: another quantity than entropy."""
    values = found.values.flatten()
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return 0.0
    counts = torch.histc(values, 10, low, high)
    shares = counts / counts.sum()
    return float(-torch.special.xlogy(shares, shares).sum())


@metric("effective-complexity", "complexity", "lower", MAP, paper="Nguyen & Martinez 2020, arXiv:2007.07584",
        traps=_NO_MERIT)  # fmt: skip
def effective_complexity(found: MapValues) -> float:
    """Share of the pixels whose absolute relevance is above a hundredth of the largest."""
    size = found.values.abs()
    return float((size > 0.01 * size.max()).double().mean()) if float(size.max()) > 0 else math.nan


@metric("mst-c", "complexity", "higher", MAP, paper="Mesgari et al. 2026, arXiv:2603.29491",
        traps=f"{_NO_MERIT} Of the fifth of greatest absolute values, however small they are.")  # fmt: skip
def mst_c(found: MapValues) -> float:
    """Compactness of the top fifth of places: their number over the length of their spanning tree and their spread."""
    size = found.values.abs().numpy()
    if not size.max() > 0:
        return math.nan
    places = np.argwhere(size >= np.percentile(size, 80)).astype(np.float64)
    if len(places) < 2:
        return math.nan
    diagonal = float(np.linalg.norm(size.shape))
    length, volume = spanning_length(places)
    spread = volume ** (1 / size.ndim) if volume > 0 else diagonal
    return 100 * diagonal / spread * len(places) / length


@metric("completeness-gap", "axioms", "lower", ENDS, paper="Sundararajan et al. 2017, arXiv:1703.01365", usual=True,
        traps="Only maps in the score's units can add up to it, against the baseline they were made with.")  # fmt: skip
def completeness_gap(found: MapAndScores) -> float:
    """How far the map's sum is from the score less that of the baseline, over the size of that difference."""
    difference = found.plain - found.blank
    return abs(found.total - difference) / abs(difference) if difference else math.nan
