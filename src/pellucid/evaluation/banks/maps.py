"""The map alone, and beside the truth: nothing is asked of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pellucid.engine.baselines import is_baseline
from pellucid.errors import MediaError, MethodError
from pellucid.evaluation.banks.base import AnswerBank, refuse_stills
from pellucid.evaluation.sample import SCORE, Candidate, Inquiry


@dataclass(frozen=True, eq=False)
class MapValues:
    """A map `(*space)` over the input, in double precision."""

    values: Tensor


@dataclass(frozen=True)
class MapAlone(AnswerBank):
    """The map as it lies over the input."""

    name: ClassVar[str] = "the map"

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[MapValues]:
        """No forward."""
        return [MapValues(c.values.double()) for c in candidates]


@dataclass(frozen=True, eq=False)
class OneOfAll:
    """One method's coarse maps of all samples, the classes that they are of, and which of them is measured.

    Attributes:
        maps: `(N, P)`.
        classes: `(N,)`.
        at: the sample's row.
    """

    maps: NDArray[np.float64]
    classes: NDArray[np.int64]
    at: int


@dataclass(frozen=True)
class AllMaps(AnswerBank):
    """All maps of a method, as they are shown: put together when all samples are there."""

    name: ClassVar[str] = "all maps"
    across: ClassVar[bool] = True

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Of one sample, nothing yet."""
        return [None] * len(candidates)


@dataclass(frozen=True, eq=False)
class MapAndTruth:
    """A map over the original's axes, NaN where the model never looked, and where the truth lies; both flat."""

    heat: NDArray[Any]
    truth: NDArray[np.bool_]
    shape: tuple[int, ...]

    @property
    def empty(self) -> bool:
        """Whether the truth lies nowhere."""
        return not self.truth.any()


@dataclass(frozen=True)
class TruthMask(AnswerBank):
    """The map beside the sample's mask."""

    name: ClassVar[str] = "the truth"

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """No forward.

        Raises:
            MediaError: there is no mask, or it is of another size.
        """
        mask = inquiry.sample.mask
        if mask is None:
            raise MediaError(f"Nothing is known of where the truth lies in {inquiry.sample.name}: give masks.")
        found = []
        for c in candidates:
            heat = c.heat()
            if heat.shape != tuple(mask.shape):
                raise MediaError(
                    f"The mask of {inquiry.sample.name} has shape {tuple(mask.shape)}, and the original "
                    f"{heat.shape}: draw it on the original."
                )
            found.append(
                MapAndTruth(heat.ravel().astype(np.float64), mask.cpu().numpy().astype(bool).ravel(), heat.shape)
            )
        return found


@dataclass(frozen=True)
class TubeMask(TruthMask):
    """The map of a clip beside the mask of its evidence, frame by frame."""

    name: ClassVar[str] = "the truth in time"

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """No forward.

        Raises:
            MethodError: the input is no clip.
            MediaError: as `TruthMask`.
        """
        refuse_stills(inquiry)
        return super().answers(inquiry, candidates)


@dataclass(frozen=True, eq=False)
class MapAndScores:
    """The sum of a map, and the scores of the input and of the baseline."""

    total: float
    plain: float
    blank: float


@dataclass(frozen=True)
class BothEnds(AnswerBank):
    """The input as it is, and with all of it hidden behind the method's own baseline, where it names one."""

    name: ClassVar[str] = "both ends"
    ends: ClassVar[int] = 2

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Sums are of the map as it was drawn: a completed map adds up on its own grid."""
        found: list[Any] = []
        for c in candidates:
            baseline = c.competitor.baseline or self.baseline
            if not is_baseline(baseline):
                own = f"{c.competitor.name} hides things behind {baseline}, which is no one picture"
                found.append(MethodError(f"{own}, so there is no score that its map could add up to."))
                continue
            plain, blank = inquiry.plain(baseline)[SCORE], inquiry.blank(baseline)[SCORE]
            found.append(MapAndScores(float(c.native.double().sum()), float(plain), float(blank)))
        return found
