"""Where a score jumps on a path: halving an interval halves a slope, but not a jump."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 0.01  # of the path: what is nearer to an end is said to be at it
_STEEPEST = 4  # intervals to look into
_WIDTH = 2e-6  # of the path, to which they are halved: single precision tells no closer points apart


@dataclass(frozen=True)
class Jump:
    """What the steepest intervals of a path keep when they are halved to almost nothing.

    Attributes:
        size: change of the score over all jumps found, from the start of the path to its end.
        place: of the largest, in [0, 1].
        last: place of the last.
    """

    size: float
    place: float
    last: float

    @property
    def at_start(self) -> bool:
        """Whether no point of the path but the first lies before it, as far as single precision tells points apart."""
        return self.last == 0

    @property
    def said(self) -> str:
        """Its place in words."""
        if self.last < NEAR:
            return "close to the baseline"
        return "right at the input" if self.place > 1 - NEAR else f"{self.place:.0%} of the way from the baseline"


def jump(scores: Tensor, score: Callable[[Tensor], Tensor], least: float) -> Jump | None:
    """The jumps of at least `least` in a score along [0, 1], looked for in the steepest intervals; None without any.

    Args:
        scores: `(S + 1,)`, at even knots, both ends among them.
        score: the scores `(M,)` at places `(M,)`; asked some 14 times, for 4 at the most.
        least: size, above 0, that the change over an interval must keep.
    """
    if not least > 0:
        return None
    scores = scores.double()
    sizes = scores.diff()
    chosen = sizes.abs().topk(min(_STEEPEST, len(sizes))).indices
    chosen = chosen[sizes[chosen].abs() >= least]
    width = 1 / len(sizes)
    left, low, high = chosen.double() * width, scores[chosen], scores[chosen + 1]
    while width > _WIDTH and len(left):
        width /= 2
        middle = score(left + width).double()
        later = (high - middle).abs() > (middle - low).abs()
        left = left + width * later
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        kept = (high - low).abs() >= least
        left, low, high = left[kept], low[kept], high[kept]
    if not len(left):
        return None
    steps = high - low
    return Jump(float(steps.sum()), float(left[steps.abs().argmax()]), float(left.max()))
