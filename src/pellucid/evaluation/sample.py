"""One input with its question, asked of masked versions of itself; and the maps that competitors draw of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.engine.masks import Masks, SegmentMasks
from pellucid.engine.memory import Memory
from pellucid.engine.perturb import MaskScorer, Scores
from pellucid.media.geometry import Geometry
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target
from pellucid.scoring.job import Job, prepare
from pellucid.scoring.masked import masked

SCORE, PROBABILITY, LEAD = range(3)
"""Columns of what is asked: the target's score, its probability, and by how much it is the model's answer."""


_SMALL = 500_000  # bytes of a batch up to which it is twice as large: what surrounds a pass then costs as much as it


@dataclass(eq=False)
class Sample:
    """One input, and what is asked about it.

    Attributes:
        model: the model explained.
        x: the input as the model takes it, `(1, C, *space)`.
        target: of one row, frozen on this input.
        name: what people call it.
        geometry: from the input to the original.
        mask: where the truth lies, bool over the original's own axes; None where it is not known.
        seed: of whatever is random.
        source: what opens it again, for the record: `source`, `name`, `sha256`.
        classes: how many classes the model tells apart; 0 where it tells none; None: that is not known yet.
    """

    model: VisionModel
    x: Tensor
    target: Target
    name: str = "input"
    geometry: Geometry | None = None
    mask: Tensor | None = None
    seed: int = 0
    source: dict[str, Any] = field(default_factory=dict)
    classes: int | None = None

    @property
    def space(self) -> tuple[int, ...]:
        """The input's size along its space axes."""
        return tuple(self.x.shape[2:])

    @property
    def over(self) -> Geometry:
        """The way to the original; of a tensor, which is its own original, none."""
        return self.geometry or Geometry.identity(self.space)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A map that is measured.

    Attributes:
        competitor: who drew it.
        values: over the model's input, `(*space)`.
        native: as it was drawn, `(*grid)`.
        signed: whether negative values speak against the target.
        geometry: of the native grid, to the original.
    """

    competitor: Any
    values: Tensor
    native: Tensor
    signed: bool
    geometry: Geometry

    def heat(self) -> NDArray[Any]:
        """Over the original's own axes; NaN where the model never looked."""
        found: NDArray[Any] = self.geometry.to_source(self.native[None])[0].cpu().numpy()
        return found


class Inquiry:
    """Scores of one sample behind masks, on any baseline; a context, since the model is borrowed while it is open.

    Attributes:
        sample: what is asked about.
        forwards: passes that masked inputs took so far.
        expected: passes that will be asked for altogether, as far as that is known beforehand.
        answered: what banks have answered that others put together, one for each candidate.
        known: scores of coalitions of segments that were asked for before, by baseline; those found are added.
        ahead: what was drawn for a bank already, in company of other samples, by the competitor's `id`.
    """

    def __init__(
        self,
        sample: Sample,
        expected: int = 0,
        known: dict[str, Memory] | None = None,
        ahead: Mapping[Any, Mapping[int, Any]] | None = None,
    ) -> None:
        self.sample, self.expected = sample, expected
        self.known, self.ahead = {} if known is None else known, ahead or {}
        self.answered: dict[Any, list[Any]] = {}
        self._scorers: dict[str, MaskScorer] = {}
        self._ends: dict[str, Tensor] = {}
        self._stack = ExitStack()
        self._job = _thrice(prepare(sample.model, sample.x, [sample.target]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._scorers.clear()

    @property
    def forwards(self) -> int:
        """Passes so far."""
        return sum(scorer.cost.forwards for scorer in self._scorers.values())

    def scorer(self, baseline: str) -> MaskScorer:
        """The scorer on a baseline, opened once."""
        if baseline not in self._scorers:
            opened = self._stack.enter_context(masked(self._job, baseline, self.sample.seed, _columns))
            opened.expected = self.expected
            if 2 * opened.batch * self.sample.x.nbytes <= _SMALL:
                opened.batch *= 2
            self._scorers[baseline] = opened
        return self._scorers[baseline]

    def ask(self, masks: Masks, baseline: str, label: str = "masked inputs") -> Tensor:
        """Scores `(M, 3)` on the CPU of the input where masks are 1, and the baseline elsewhere."""
        scorer = self.scorer(baseline)
        scorer.memory = self.known.setdefault(baseline, Memory(1)) if isinstance(masks, SegmentMasks) else None
        return scorer(masks, label)[0].cpu()

    def plain(self, baseline: str) -> Tensor:
        """Scores `(3,)` of the input as it is; asked once, through the scorer of this baseline."""
        if "" not in self._ends:
            self._ends[""] = self.scorer(baseline).plain()[0].cpu()
        return self._ends[""]

    def blank(self, baseline: str) -> Tensor:
        """Scores `(3,)` with all of the input hidden; asked once a baseline."""
        if baseline not in self._ends:
            self._ends[baseline] = self.scorer(baseline).blank()[0].cpu()
        return self._ends[baseline]


def _thrice(job: Job) -> Job:
    return replace(job, targets=job.targets * 3)


def _columns(targets: Sequence[Target]) -> Scores:
    """One target's score, probability and lead; the lead is 0 where it is no answer."""

    def score(output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        asked = targets[0].select(rows)
        found, lead = asked.score(output, watched), asked.lead(output, watched)
        return [found, asked.probability(output, watched), torch.zeros_like(found) if lead is None else lead]

    return score
