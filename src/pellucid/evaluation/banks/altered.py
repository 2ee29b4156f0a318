"""Maps drawn once more: of what the map itself holds, of a shifted scale, of a crop, of a clip in another order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pellucid.engine import unwrap
from pellucid.engine.masks import GridMasks
from pellucid.evaluation.banks.base import AnswerBank, refuse_stills
from pellucid.evaluation.banks.curves import RankCurves, RankedScores
from pellucid.evaluation.banks.groups import soft_masks
from pellucid.evaluation.banks.redrawn import Question, RedrawingBank, RemodellingBank, TwoMaps
from pellucid.evaluation.competitors import Competitor, Drawer, Drawing, draw_all
from pellucid.evaluation.sample import Candidate, Inquiry, Sample


@dataclass(frozen=True, eq=False)
class MapOfItself:
    """A map `(*space)` as a mask, beside the map of the input seen through it; and what that does to the answer.

    Attributes:
        mask: the map, negative values as 0, the largest as 1.
        again: the map of the input times the mask.
        plain: scores `(3,)` of the input.
        shown: those of the input times the mask.
    """

    mask: Tensor
    again: Tensor
    plain: Tensor
    shown: Tensor


@dataclass(frozen=True)
class MaskedMaps(RedrawingBank):
    """The map of the input as it shines through its map."""

    name: ClassVar[str] = "the map of what the map holds"
    ends: ClassVar[int] = 1

    baseline: str = "zero"

    def own(self, space: Sequence[int]) -> int:
        """The masked input."""
        return 1

    def redrawn(self) -> int:
        """One."""
        return 1

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Each competitor sees an input of its own."""
        sample = inquiry.sample
        masks = soft_masks(torch.stack([c.values for c in candidates]))
        drawn = [
            draw_all([c.competitor], sample.model, sample.x * m.to(sample.x), sample.target, sample)[0]
            for c, m in zip(candidates, masks, strict=True)
        ]
        plain = inquiry.plain(self.baseline)
        shown = inquiry.ask(GridMasks(masks.cpu(), sample.space), self.baseline, "maps as masks")
        return [
            d if isinstance(d, Exception) else MapOfItself(m, soft_masks(d.maps())[0], plain, row)
            for d, m, row in zip(drawn, masks, shown, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class ItselfAndCurves:
    """A map beside the map of what it holds, and what is left of the scores as its places are imputed."""

    itself: MapOfItself
    curves: RankedScores


@dataclass(frozen=True)
class ItselfAndImputed(AnswerBank):
    """What two other banks answer, put together: nothing is asked besides."""

    name: ClassVar[str] = "the map of what the map holds, and rank curves"
    reads: ClassVar[tuple[AnswerBank, ...]] = (MaskedMaps(), RankCurves("noisy-linear", steps=10))

    baseline: str = "zero"

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Where one of them failed, its failure."""
        pairs = zip(*(inquiry.answered[bank] for bank in self.reads), strict=True)
        return [next((a for a in pair if isinstance(a, Exception)), None) or ItselfAndCurves(*pair) for pair in pairs]


class _Shifted(nn.Module):
    """The same function of inputs on another scale."""

    def __init__(self, inner: nn.Module, by: float) -> None:
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, x: Tensor) -> Any:
        """What the model answers to `x - by`."""
        return self.inner(x - self.by)


@dataclass(frozen=True)
class ShiftedScale(RemodellingBank):
    """The input plus a constant, of a model that takes the constant away again: the same question in other numbers.

    Attributes:
        shift: the constant, over the input's standard deviation.
    """

    name: ClassVar[str] = "a shifted scale"

    shift: float = 1.0

    def redrawn(self) -> int:
        """One, after one that says which layer is explained."""
        return 2

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Methods explain the layer that they explained."""
        sample = inquiry.sample
        by = self.shift * float(sample.x.std())
        whose = [c.competitor for c in candidates]
        first = draw_all(whose, sample.model, sample.x, sample.target, sample)
        moved = [_inside(c, d) for c, d in zip(whose, first, strict=True)]
        twin = _Shifted(unwrap(sample.model.module), by).train(sample.model.module.training)
        later = draw_all(moved, twin, sample.x + by, sample.target, sample)
        return [
            next((d for d in (a, b) if isinstance(d, Exception)), None) or _pair(a, b)
            for a, b in zip(first, later, strict=True)
        ]


def _inside(competitor: Competitor, drawn: Drawing | Exception) -> Competitor:
    if not isinstance(competitor, Drawer) or isinstance(drawn, Exception) or drawn.layer is None:
        return competitor
    return dataclasses.replace(competitor, method=competitor.method.at(f"inner.{drawn.layer}"))


def _pair(a: Any, b: Any) -> TwoMaps:
    return TwoMaps(a.maps()[0].double().flatten(), b.maps()[0].double().flatten())


@dataclass(frozen=True)
class CroppedInput(RedrawingBank):
    """The middle of the input, as large as the whole; of clips in every frame.

    Attributes:
        share: of the input along each axis that is left, about.
    """

    name: ClassVar[str] = "a crop"

    share: float = 7 / 8

    def redrawn(self) -> int:
        """One."""
        return 1

    def question(self, sample: Sample) -> Question:
        """The crop."""
        return self.middle(sample.x, frames=sample.model.medium.moving), sample.target

    def middle(self, values: Tensor, *, frames: bool) -> Tensor:
        """The middle of values `(N, C, *space)`, at their own size."""
        part, space = values, tuple(values.shape[2:])
        for axis in range(2 + frames, values.ndim):
            rim = max(1, round((1 - self.share) / 2 * values.shape[axis]))
            part = part.narrow(axis, rim, max(1, values.shape[axis] - 2 * rim))
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
        return interpolate(part, size=space, mode=mode, align_corners=False)

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """The map is cropped as the input was."""
        sample = inquiry.sample
        frames = sample.model.medium.moving
        drawn = self.drawn(inquiry, candidates, self.question(sample))
        return [
            d
            if isinstance(d, Exception)
            else TwoMaps(
                self.middle(c.values[None, None].double(), frames=frames).flatten(), d.maps()[0].double().flatten()
            )
            for c, d in zip(candidates, drawn, strict=True)
        ]


@dataclass(frozen=True)
class LaterClip(RedrawingBank):
    """The clip one frame later: the first frame is shown twice, the last one is gone."""

    name: ClassVar[str] = "the clip a frame later"

    def redrawn(self) -> int:
        """One."""
        return 1

    def question(self, sample: Sample) -> Question:
        """The same of the later clip."""
        return torch.cat([sample.x[:, :, :1], sample.x[:, :, :-1]], 2), sample.target

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """The map is moved back; the frame that is gone is left out."""
        refuse_stills(inquiry)
        drawn = self.drawn(inquiry, candidates, self.question(inquiry.sample))
        return [
            d
            if isinstance(d, Exception)
            else TwoMaps(c.values[:-1].double().flatten(), d.maps()[0, 1:].double().flatten())
            for c, d in zip(candidates, drawn, strict=True)
        ]


@dataclass(frozen=True)
class ReversedClip(RedrawingBank):
    """The clip played backwards."""

    name: ClassVar[str] = "the clip backwards"

    def redrawn(self) -> int:
        """One."""
        return 1

    def question(self, sample: Sample) -> Question:
        """The same of the reversed clip."""
        return sample.x.flip(2), sample.target

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """The map is played forwards again."""
        refuse_stills(inquiry)
        drawn = self.drawn(inquiry, candidates, self.question(inquiry.sample))
        return [
            d
            if isinstance(d, Exception)
            else TwoMaps(c.values.double().flatten(), d.maps()[0].flip(0).double().flatten())
            for c, d in zip(candidates, drawn, strict=True)
        ]
