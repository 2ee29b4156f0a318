"""Beside wrong answers the pictures most like them, and those whose lesson pulls towards the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.groups import distributions
from pellucid.audit.review import one_picture
from pellucid.audit.samples import SampleTable
from pellucid.numerics.directions import directions

MOST, SHOWN = 6, 3  # wrong answers; pictures beside each

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Beside:
    """A picture beside another: what opens it, its label, how alike it is or how strongly it pulls."""

    source: str
    label: str
    value: float


@dataclass(frozen=True)
class Case:
    """One wrong answer.

    Attributes:
        row: of the table.
        alike: the nearest pictures in the layer that the maps use (cosine about the mean), the nearest first.
        pulls: labelled pictures whose lesson raises this one's loss the most (see `influences`), the strongest first.
    """

    row: int
    alike: tuple[Beside, ...]
    pulls: tuple[Beside, ...]

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Case:
        """As it was written down."""
        return cls(stored["row"], *(tuple(Beside(**b) for b in stored[name]) for name in ("alike", "pulls")))


def likeness(rows: NDArray[np.floating], pool: NDArray[np.floating]) -> Floats:
    """Cosines `(Q, N)` of embeddings `(Q, D)` with those of a pool `(N, D)`, about the pool's mean."""
    here, there = (directions(values.astype(np.float64) - pool.mean(0)) for values in (rows, pool))
    found: Floats = here @ there.T
    return found


def influences(one: SampleTable, rows: Sequence[int], pool: SampleTable) -> Floats:
    """By how much a step along each pool picture's gradient lowers the loss of each row, `(len(rows), N)`.

    TracIn (Pruthi et al. 2020) of one checkpoint at the last layer, its step left out: the dot product of both
    gradients of the cross-entropy, (p - y)(p' - y') (h h' + 1), if the last layer is linear, has a bias and reads the
    embedding h.
    Negative: the lesson of that picture speaks against this one's label. Pictures without a label have no lesson: 0.
    """
    some = np.asarray(rows, np.int64)
    first, second = _residuals(one)[some], _residuals(pool)
    inner = one.embedding[some].astype(np.float64) @ pool.embedding.astype(np.float64).T + 1
    found: Floats = (first @ second.T) * inner
    return found


def _residuals(samples: SampleTable) -> Floats:
    """What the answer's distribution has too much of each class, `(N, K)`; 0 where the label is not known."""
    y = np.eye(samples.scores.shape[1])[np.maximum(samples.truth, 0)]
    return np.where(samples.known[:, None], distributions(samples) - y, 0.0)


def cases(samples: SampleTable, pool: SampleTable, sources: Sequence[str], labels: Sequence[str]) -> list[Case]:
    """The surest wrong answers, each beside pictures of a pool; itself is not among them.

    Args:
        samples: the table.
        pool: of pictures that the model learned from; or the table itself.
        sources: what opens each picture of the pool.
        labels: of the classes.
    """
    wrong = np.flatnonzero(samples.wrong)
    rows = wrong[np.argsort(-samples.confidence[wrong], kind="stable")][:MOST]
    if not len(rows):
        return []
    near, pull = likeness(samples.embedding[rows], pool.embedding), -influences(samples, rows.tolist(), pool)
    if pool is samples:
        near[np.arange(len(rows)), rows] = pull[np.arange(len(rows)), rows] = -np.inf

    def beside(values: Floats, least: float) -> tuple[Beside, ...]:
        order = [int(j) for j in np.argsort(-values, kind="stable")[:SHOWN] if values[j] > least]
        return tuple(
            Beside(sources[j], labels[int(pool.truth[j])] if pool.truth[j] >= 0 else "", float(values[j]))
            for j in order
        )

    return [Case(int(i), beside(n, -1.5), beside(p, 0.0)) for i, n, p in zip(rows, near, pull, strict=True)]


def leaked(samples: SampleTable, training: SampleTable) -> tuple[int, ...]:
    """Samples that are also among the training pictures: one picture, perhaps stored or scaled anew."""
    count = len(samples)
    both = one_picture(
        np.concatenate([samples.embedding, training.embedding]), np.concatenate([samples.thumbs, training.thumbs])
    )
    return tuple(sorted({a for a, b in both if a < count <= b}))
