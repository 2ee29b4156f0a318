"""Pictures unlike the others of their set, far away in the embedding or blurred, and whether the errors lie there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, median_abs_deviation, norm

from pellucid.audit.samples import PROPERTIES, SampleTable
from pellucid.language import chance
from pellucid.numerics.directions import directions
from pellucid.numerics.proportions import difference
from pellucid.numerics.statistics import adjusted

LEAST = 50  # pictures from which on it is told what is usual
_NEAREST, _BLOCK = 10, 1024
_CHANCE = 0.05  # of one picture or more beyond the bound, were the logarithms normal

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OddPictures:
    """Pictures beyond what is usual in the set.

    Attributes:
        kind: `far` or `blurred`.
        members: numbers of the samples, the oddest first.
        count: of these how many have a known class.
        error, others: share of wrong answers among them and among the rest; NaN where no class is known.
        gap, low, high: their difference with its 95 % interval.
        p: of no more errors than elsewhere (Fisher, one-sided; Holm over both kinds).
    """

    kind: str
    members: tuple[int, ...]
    count: int = 0
    error: float = float("nan")
    others: float = float("nan")
    gap: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    p: float = 1.0

    @property
    def line(self) -> str:
        """It in words."""
        many = len(self.members)
        if self.kind == "far":
            return f"Pictures unlike all others, far from their nearest in the embedding: {many}"
        return f"Pictures that are blurred beside the others: {many}"

    @property
    def errors(self) -> str:
        """Whether the errors lie there, in words; empty where no class is known."""
        if not self.count:
            return ""
        said = (
            f"Of these {self.error:.0%} are answered wrongly, of the rest {self.others:.0%} "
            f"({self.gap:+.0%} [{self.low:+.0%}, {self.high:+.0%}], {chance(self.p)})"
        )
        return said if self.p <= _CHANCE else f"{said}: no more than by chance"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> OddPictures:
        """As it was written down."""
        told = {name: float("nan") if value is None else value for name, value in stored.items()}
        return cls(**told | {"members": tuple(stored["members"])})


def odd_pictures(samples: SampleTable, pool: SampleTable | None = None) -> list[OddPictures]:
    """What is far from the others, and what is blurred beside them; kinds without a picture aside.

    What is usual is told by the median and the median deviation of the logarithm, and the bound is where one picture in
    the whole set would lie with a chance of 0.05. Far: the distance to the tenth nearest (Sun et al. 2022), itself left
    out. Blurred: the Laplacian's standard deviation at 64 pixels a side, relative to that of the picture.

    Args:
        samples: the table.
        pool: of pictures that the model learned from: distances are to these then, and what is usual is theirs.
    """
    if len(samples if pool is None else pool) < LEAST:
        return []
    if pool is None:
        far = usual = nearest(samples.embedding)
    else:
        far, usual = nearest(samples.embedding, pool.embedding), nearest(pool.embedding)
    contrast, sharp = (samples.properties[:, PROPERTIES.index(n)].astype(np.float64) for n in ("contrast", "sharpness"))
    blur = np.where(contrast > 0, contrast / np.maximum(sharp, 1e-6), np.nan)
    found = [_tested("far", _beyond(far, usual), far, samples), _tested("blurred", _beyond(blur, blur), blur, samples)]
    p = adjusted([f.p for f in found], "holm")
    return [replace(f, p=float(q)) for f, q in zip(found, p, strict=True) if f.members]


def nearest(rows: NDArray[np.floating], pool: NDArray[np.floating] | None = None) -> Floats:
    """The distance of each row `(N, D)` to its tenth nearest among the pool's `(M, D)`, on the unit sphere, `(N,)`.

    Without a pool, among the other rows; of fewer than ten to the last.
    """
    sphere, others = _unit(rows), _unit(rows if pool is None else pool)
    k = min(_NEAREST, len(others) - (pool is None))
    found = []
    for start in range(0, len(sphere), _BLOCK):
        cosine = sphere[start : start + _BLOCK] @ others.T
        if pool is None:
            here = np.arange(len(cosine))
            cosine[here, start + here] = -np.inf
        found.append(np.sqrt(np.maximum(2 - 2 * np.partition(cosine, -k, 1)[:, -k], 0)))
    return np.concatenate(found)


def _unit(rows: NDArray[np.floating]) -> Floats:
    return directions(np.nan_to_num(rows.astype(np.float64), posinf=0, neginf=0))


def _beyond(values: Floats, usual: Floats) -> NDArray[np.bool_]:
    """Which values are larger than any of as many usual ones should be, `(N,)`."""
    logs = np.log(np.maximum(usual[np.isfinite(usual)], 1e-9))
    spread = float(median_abs_deviation(logs, scale="normal")) if len(logs) else 0.0
    if spread == 0:
        return np.zeros(len(values), bool)
    bound = np.median(logs) + norm.isf(_CHANCE / len(values)) * spread
    found: NDArray[np.bool_] = np.isfinite(values) & (np.log(np.maximum(np.nan_to_num(values), 1e-9)) > bound)
    return found


def _tested(kind: str, inside: NDArray[np.bool_], values: Floats, samples: SampleTable) -> OddPictures:
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    members = tuple(int(i) for i in order if inside[i])
    wrong, known = samples.wrong, samples.known
    size, count = int((inside & known).sum()), int(known.sum())
    if not 0 < size < count:
        return OddPictures(kind, members)
    bad, total = int((inside & wrong).sum()), int(wrong.sum())
    gap, low, high = difference(bad, size, total - bad, count - size)
    p = float(hypergeom.sf(bad - 1, count, total, size))
    return OddPictures(kind, members, size, bad / size, (total - bad) / (count - size), gap, low, high, p)
