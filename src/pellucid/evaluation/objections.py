"""What may still speak against a map that has passed the other tests: a gradient that lies, a map beside its place."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.evaluation.mirror import KEPT, reflection
from pellucid.evaluation.slope import HONEST
from pellucid.explanation import Explanation, Quality
from pellucid.heatmaps.base import Method, explain_all
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target

_CELLS = 9  # along the width of a grid, on which a displacement can be told


class SeenPicture(Protocol):
    """One picture as one model saw it: what is asked of `check`'s session here."""

    model: VisionModel
    x: Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        """Of cells."""

    def slope(self, target: Target) -> float | None:
        """See `pellucid.evaluation.slope`."""

    def probability(self, target: Target, x: Tensor) -> float:
        """Of one input."""


def objected(quality: Quality, e: Explanation, session: SeenPicture, target: Target, ran: Method | None) -> Quality:
    """The quality of a faithful map, in doubt where more speaks against it; others as they are.

    Costs three passes for a method that needs gradients, once for a target, and one pass and explanation for a mirror.

    Args:
        quality: from the other tests.
        e: the map.
        session: its picture as the model saw it.
        target: what it explains.
        ran: the method, in its quick version.
    """
    if quality.verdict != "faithful":
        return quality
    shown = quality.insertion.scores[-1] if quality.insertion else math.nan
    found = [text for text in (_lying(session, target, ran), _displaced(e, session, target, ran, shown)) if text]
    if not found:
        return quality
    line = f"partly faithful: {'; '.join([*found, quality.line.removeprefix('faithful: ')])}"
    return replace(quality, verdict="partly faithful", line=line)


def _lying(session: SeenPicture, target: Target, ran: Method | None) -> str | None:
    """Whether the score changes otherwise than the gradient says that the method reads."""
    if ran is None or "gradients" not in ran.required:
        return None
    found = session.slope(target)
    if found is None or abs(found - 1) <= HONEST:
        return None
    return (
        f"along its gradient the score changes {found:.2f} times as much as the gradient says, so part of the model is "
        "cut off from it"
    )


def _displaced(e: Explanation, session: SeenPicture, target: Target, ran: Method | None, shown: float) -> str | None:
    """Whether the map lies beside what it shows; `shown` is the score of the picture as it is."""
    grid = session.grid
    if ran is None or grid[-1] < _CELLS or target.marks():
        return None
    if not session.probability(target, session.x.flip(-1)) >= KEPT * shown > 0:
        return None
    with suppress(PellucidError):
        again = explain_all([ran], session.model, session.x.flip(-1), [target])[0][0].values.cpu()
        found = reflection(e.map()[0], replace(e, attribution=again).map()[0], grid)
        if found.displaced:
            return (
                f"the map of the mirrored picture lies {abs(found.apart)} of {grid[-1]} cells beside the mirrored map, "
                "so both lie beside what they show"
            )
    return None
