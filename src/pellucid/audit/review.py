"""The first page of a review: how sure the model is and how often right, what it confuses, what is odd in the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.columns import evidence_figures
from pellucid.audit.objects import on_object
from pellucid.audit.samples import SampleTable
from pellucid.numerics.directions import directions
from pellucid.numerics.proportions import calibration_error

_SAME, _OF_CONTRAST = 4.0, 0.15  # how far thumbnails of one picture may differ: in grey levels, of their contrast
_ALIKE = 0.98  # cosine of the embeddings of two files of one picture
_BLOCK = 1024
_DRAWS = 300
_SURE = 0.8  # from which on an answer is confident


@dataclass(frozen=True)
class Calibration:
    """How sure the model is beside how often it is right.

    Attributes:
        error, low, high: the expected calibration error, with its 95 % bootstrap interval.
        bins: of each bin of confidence its mean, the accuracy, the number of samples.
    """

    error: float
    low: float
    high: float
    bins: tuple[tuple[float, float, int], ...]

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Calibration | None:
        """As it was written down; None where there was none."""
        return None if stored is None else cls(**{**stored, "bins": tuple(tuple(b) for b in stored["bins"])})


@dataclass(frozen=True)
class Confusion:
    """One class that is taken for another: their numbers, and the samples."""

    truth: int
    answer: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Review:
    """What is worth a look.

    Attributes:
        accuracy: share of right answers among the samples whose class is known; NaN without any.
        calibration: None where too little is known, or nothing is a probability.
        confusions: the most frequent first.
        duplicates: pairs of samples that show one picture.
        contradicting: those pairs that are labelled differently.
        mislabelled: samples that are surely another class to the model (confident learning), the surest first.
        astray: confident and wrong, with the evidence at the border of the picture; where the object's place is known,
            with less of it on the object than an even spread would have.
        undoubted: classes whose labels the model cannot judge.
    """

    accuracy: float
    calibration: Calibration | None
    confusions: tuple[Confusion, ...]
    duplicates: tuple[tuple[int, int], ...]
    contradicting: tuple[tuple[int, int], ...]
    mislabelled: tuple[int, ...]
    astray: tuple[int, ...]
    undoubted: tuple[int, ...] = ()


def review(samples: SampleTable, *, bounded: bool, seed: int = 0) -> Review:
    """The review of a table; `bounded`: whether the model gives probabilities."""
    known, wrong = samples.known, samples.wrong
    pairs = duplicates(samples)
    apart = tuple((a, b) for a, b in pairs if known[a] and known[b] and samples.truth[a] != samples.truth[b])
    counts = Counter(zip(samples.truth[wrong].tolist(), samples.answers[wrong].tolist(), strict=True))
    confusions = tuple(
        Confusion(t, a, tuple(int(i) for i in np.flatnonzero((samples.truth == t) & (samples.answers == a))))
        for (t, a), _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    )
    share, size = on_object(samples)
    off = np.where(np.isfinite(share), share < size, evidence_figures(samples)[:, 0] > 0.5)
    stray = wrong & (samples.confidence >= _SURE) & off
    order = np.argsort(-samples.confidence, kind="stable")
    return Review(
        accuracy=float(1 - wrong[known].mean()) if known.any() else float("nan"),
        calibration=_calibration(samples, seed) if bounded and known.sum() >= 20 else None,
        confusions=confusions,
        duplicates=pairs,
        contradicting=apart,
        mislabelled=mislabelled(samples) if bounded else (),
        astray=tuple(int(i) for i in order if stray[i]) if bounded else (),
        undoubted=undoubted(samples) if bounded else (),
    )


def _calibration(samples: SampleTable, seed: int) -> Calibration:
    sure, right = samples.confidence[samples.known].astype(float), ~samples.wrong[samples.known]
    error, bins = calibration_error(sure, right)
    rng = np.random.default_rng(seed)
    draws = [calibration_error(sure[rows], right[rows])[0] for rows in rng.integers(0, len(sure), (_DRAWS, len(sure)))]
    bias = float(np.mean(draws)) - error  # resampling adds its own noise to an error that cannot be negative
    low, high = (max(0.0, float(q) - bias) for q in np.quantile(draws, [0.025, 0.975]))
    return Calibration(error, low, high, tuple(bins))


def duplicates(samples: SampleTable) -> tuple[tuple[int, int], ...]:
    """Pairs of samples that show one picture."""
    return one_picture(samples.embedding, samples.thumbs)


def one_picture(embedding: NDArray[np.float32], thumbs: NDArray[np.uint8]) -> tuple[tuple[int, int], ...]:
    """Pairs of which thumbnails `(N, h, w, 3)` and embeddings `(N, D)` agree: one picture, perhaps stored or scaled
    anew.
    """
    rows = directions(embedding - embedding.mean(0))
    thumbs = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    found: list[tuple[int, int]] = []
    for start in range(0, len(rows), _BLOCK):
        alike = rows[start : start + _BLOCK] @ rows.T
        for i, j in np.argwhere(alike > _ALIKE):
            a, b = start + int(i), int(j)
            if a < b and np.abs(thumbs[a] - thumbs[b]).mean() <= min(_SAME, _OF_CONTRAST * thumbs[a].std()):
                found.append((a, b))
    return tuple(found)


def mislabelled(samples: SampleTable) -> tuple[int, ...]:
    """Samples that the model holds for another class as surely as it holds that class's own (Northcutt et al. 2021).

    The bar of a class is its mean probability among the samples that are labelled so. Neither from nor to a class of
    `undoubted` is a label doubted.
    """
    known = np.flatnonzero(samples.known)
    if not len(known):
        return ()
    p, truth = samples.probabilities.astype(np.float64), samples.truth
    blind = undoubted(samples)
    bars = np.array([p[truth == k, k].mean() if (truth == k).any() else np.inf for k in range(p.shape[1])])
    bars[list(blind)] = np.inf
    over = np.where(p >= bars, p, -1)
    best: NDArray[np.int64] = over.argmax(1)
    picked = [int(i) for i in known if over[i, best[i]] >= 0 and best[i] != truth[i] and truth[i] not in blind]
    return tuple(sorted(picked, key=lambda i: (p[i, truth[i]] - p[i, best[i]], i)))


def undoubted(samples: SampleTable) -> tuple[int, ...]:
    """Classes whose labels the model cannot judge: on their own pictures it holds another class for likelier.

    On average, that is. Confident learning takes for granted that each class is its own pictures' likeliest.
    """
    p, truth = samples.probabilities.astype(np.float64), samples.truth
    return tuple(int(k) for k in np.unique(truth[samples.known]) if p[truth == k].mean(0).argmax() != k)
