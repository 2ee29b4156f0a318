"""Groups of samples that are alike, proposed as slices: by the error-aware mixture and by spotlights.

What a group is may depend on truth and picture, never on the answer: its errors are tested on samples that had no part
in the search, and a group that was told who errs would prove itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.columns import evidence_figures, scaled
from pellucid.audit.mixture import GROUPS, ErrorMixture, principal
from pellucid.audit.samples import SampleTable
from pellucid.audit.spotlight import spotlights

LEAST = 100  # samples of a half from which on groups are looked for
_EACH, _MIXED, _LIT = 20, 8, 3  # samples a group on average; groups of a mixture, spotlights that are proposed
_AXES = 16  # of the embedding, beside the figures of picture and map

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ProposedSlice:
    """What may be a slice.

    Attributes:
        kind: `conjunction`, `mixture` or `spotlight`.
        score: `(N,)`, how surely each sample belongs to it; from 1/2 on it does.
        literals: numbers of the columns, of a conjunction.
    """

    kind: str
    score: Floats
    literals: tuple[int, ...] = ()

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Who belongs to it, `(N,)`."""
        found: NDArray[np.bool_] = self.score >= 0.5
        return found


@dataclass(frozen=True, eq=False)
class Likeness:
    """In what samples can be alike: the embedding; and figures of picture and map beside it.

    Attributes:
        spaces: `(N, D)` each.
        truth: `(N,)`.
        said: `(N, K)`, the answer as a distribution.
    """

    spaces: tuple[Floats, ...]
    truth: Rows
    said: Floats

    @classmethod
    def of(cls, samples: SampleTable) -> Likeness:
        """That of a table."""
        figures = scaled(np.concatenate([samples.properties, evidence_figures(samples)], 1))
        axes = scaled(principal(scaled(samples.embedding), _AXES))
        spaces = principal(samples.embedding), principal(np.concatenate([figures, axes], 1))
        return cls(spaces, samples.truth, distributions(samples))

    def propose(self, search: Rows) -> Iterator[ProposedSlice]:
        """Groups found on the samples `search`, over all."""
        if len(search) < LEAST:
            return
        truth, said, known = self.truth[search], self.said[search], self.truth >= 0
        losses = -np.log(np.clip(said[np.arange(len(search)), truth], 1e-9, 1))
        for rows in self.spaces:
            mixed = ErrorMixture.fitted(rows[search], truth, said, min(GROUPS, len(search) // _EACH))
            belongs = mixed.belongs(rows, self.truth) * known[:, None]
            for g in np.argsort(-mixed.faults, kind="stable")[:_MIXED]:
                yield ProposedSlice("mixture", belongs[:, g])
            for light in spotlights(rows[search], losses, _LIT):
                yield ProposedSlice("spotlight", light.lights(rows) * known)


def distributions(samples: SampleTable) -> Floats:
    """The probabilities where they are a distribution over the classes; else all on the answer, `(N, K)`."""
    p = samples.probabilities.astype(np.float64)
    if len(p) and p.min() >= 0 and np.abs(p.sum(1) - 1).max() < 1e-3:
        return p
    return np.eye(p.shape[1])[samples.answers]
