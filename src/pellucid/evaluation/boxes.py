"""Maps of boxes and regions beside the truth: figures of one map, and their means over many with intervals.

A map is `(H, W)` over the original picture, NaN where the model never looked, which counts as no evidence. A place is a
box `(x0, y0, x1, y1)`, edges in pixels, or a mask `(H, W)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import DataError
from pellucid.evaluation.check import Explained
from pellucid.evaluation.faithfulness import cell_ranking
from pellucid.numerics.statistics import bootstrap_mean

Place = Sequence[float] | NDArray[np.bool_] | Tensor


def places_of(place: Place, size: tuple[int, int]) -> Tensor:
    """A box or a mask as the pixels whose centres lie in it, bool `(H, W)`; of a box the nearest pixel at least.

    Raises:
        DataError: a mask of another size, or a box that is none.
    """
    height, width = size
    if isinstance(place, np.ndarray | Tensor) and place.ndim == 2:
        mask = torch.as_tensor(place).bool()
        if tuple(mask.shape) != size:
            raise DataError(
                f"The mask is {mask.shape[1]} x {mask.shape[0]}, and the map {width} x {height}: give one of its size."
            )
        return mask
    if len(place) != 4:
        raise DataError(f"A place is a box x0,y0,x1,y1 or a mask (H, W), not {place!r}.")
    x0, y0, x1, y1 = (float(v) for v in place)
    rows, columns = _within(y0, y1, height), _within(x0, x1, width)
    return rows[:, None] & columns[None]


def _within(start: float, stop: float, count: int) -> Tensor:
    centres = torch.arange(count) + 0.5
    inside = (centres >= start) & (centres < stop)
    if not inside.any():
        inside[min(max(int((start + stop) / 2), 0), count - 1)] = True
    return inside


def pointing(values: Tensor, place: Place) -> float:
    """The pointing game (Zhang et al. 2016): 1 where the map's peak lies in the place, else 0.

    Of several equal peaks it is the share of them that lie inside, so that a map without a peak gains nothing by
    where its first pixel lies. A map without evidence points nowhere: 0.
    """
    known = torch.nan_to_num(values, -math.inf, -math.inf, -math.inf)
    peak = known.max()
    if not peak > 0:
        return 0.0
    peaks = known == peak
    return float((peaks & places_of(place, _size(values))).sum() / peaks.sum())


def energy_inside(values: Tensor, place: Place) -> float:
    """The energy-based pointing game (Wang et al. 2020): the share of positive evidence in the place; NaN if none."""
    positive = torch.nan_to_num(values.double(), 0.0, 0.0, 0.0).clamp(min=0)
    total = float(positive.sum())
    return float(positive[places_of(place, _size(values))].sum()) / total if total > 0 else math.nan


def mask_overlap(values: Tensor, place: Place) -> float:
    """Intersection over union of the place and as many of the map's strongest pixels as the place has.

    No threshold is chosen, so that maps of any scale can be compared. Pixels that tie at the last rank count in part.
    """
    inside = places_of(place, _size(values)).flatten()
    known = torch.nan_to_num(values, -math.inf, -math.inf, -math.inf).flatten()
    count = int(inside.sum())
    if count == 0:
        return 0.0
    last = known.sort(descending=True).values[count - 1]
    above, tied = known > last, known == last
    common = float((above & inside).sum()) + float((tied & inside).sum()) / float(tied.sum()) * (
        count - int(above.sum())
    )
    return common / (2 * count - common)


def leaked(values: Tensor, place: Place, others: Sequence[Place]) -> float:
    """The object discrimination index of ODAM (Zhao and Chan 2023): of the positive evidence on all objects of the
    class, the share on others than the one explained, 0 being best; NaN where there is no other, or no evidence on any.

    Where places overlap, what lies on the one explained counts as its own.
    """
    if not others:
        return math.nan
    positive = torch.nan_to_num(values.double(), 0.0, 0.0, 0.0).clamp(min=0)
    own = places_of(place, _size(values))
    beside = torch.stack([places_of(other, _size(values)) for other in others]).any(0) & ~own
    mine, theirs = float(positive[own].sum()), float(positive[beside].sum())
    return theirs / (mine + theirs) if mine + theirs > 0 else math.nan


def box_figures(e: Explained, place: Place, others: Sequence[Place] = ()) -> dict[str, float]:
    """`pointing`, `energy`, `mask_iou` and `leaked` of an explanation of a picture.

    Args:
        place: where the object truly is, in the original picture's pixels.
        others: where others of its class are.
    """
    values = e.geometry.to_source(e.map())[0]
    return {
        "pointing": pointing(values, place),
        "energy": energy_inside(values, place),
        "mask_iou": mask_overlap(values, place),
        "leaked": leaked(values, place, others),
    }


def instance_curves(e: Explained) -> dict[str, float]:
    """Areas under `insertion` and `deletion` of the instance's own score, on the picture's blur; of an explanation in
    memory. They cost 32 passes of the model, which all explanations of one box share with `check`.

    Raises:
        DataError: it was read from disk, or has no map.
    """
    if e.session is None or e.explained is None or e.kind != "map":
        raise DataError("Insertion and deletion need the model: explain the picture again, by a method with a map.")
    perturbed = e.session.perturbed(e.explained)
    insertion, deletion = perturbed.curves(cell_ranking(e.map()[0], perturbed.grid))
    return {"insertion": insertion.auc, "deletion": deletion.auc}


def mean_figures(rows: Sequence[Mapping[str, float]], seed: int = 0) -> dict[str, tuple[float, float, float, int]]:
    """Of many maps: each figure's mean, both ends of its 95 % interval, and of how many maps it is.

    The interval is a bootstrap over the maps; figures that are NaN (nothing to leak to) are left out. Maps of one
    picture are not independent: where pictures hold many boxes, give each picture's means.
    """
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = np.array([row[name] for row in rows if name in row and not math.isnan(row[name])])
        if len(values):
            mean, low, high = bootstrap_mean(values[:, None], seed=seed)
            found[name] = (float(mean[0]), float(low[0]), float(high[0]), len(values))
    return found


def _size(values: Tensor) -> tuple[int, int]:
    return values.shape[-2], values.shape[-1]
