"""A unit's picture as a result: what was made, what nature offers, and how far the first may be believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pellucid.explanation import Record
from pellucid.features.exemplars import UnitExemplars
from pellucid.features.natural import Choice, Standing
from pellucid.media import Geometry, Picture

SURE = 0.75  # share of forced choices from which on a picture counts as telling
STURDY = 0.5  # share of the activation that random views must keep


@dataclass(frozen=True)
class FeatureQuality:
    """How far a synthetic picture may be believed.

    Attributes:
        verdict: `agrees` (with natural pictures), `weak`, `fragile`, `unlike` (natural ones), `unproven`, `dead`.
        line: the figures, and what they mean, in plain words.
        standing: the unit's answer among its answers to natural pictures.
        choice: whether the picture tells exciting natural pictures from others.
        figures: further measured figures by name (see `features.figures`).
    """

    verdict: str
    line: str
    standing: Standing | None = None
    choice: Choice | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "verdict": self.verdict,
            "line": self.line,
            "standing": self.standing and self.standing.as_dict(),
            "choice": self.choice and self.choice.as_dict(),
            "figures": dict(self.figures),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureQuality:
        """The inverse of `as_dict`, through JSON or not."""
        standing, choice = values.get("standing"), values.get("choice")
        return cls(
            values["verdict"],
            values["line"],
            Standing(**_numbers(standing)) if standing else None,
            Choice(**_numbers(choice)) if choice else None,
            _numbers(values["figures"]),
        )


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in values.items()}


@dataclass(frozen=True)
class Given:
    """The user's own picture, and the way from the model's input to it."""

    picture: Picture
    geometry: Geometry


@dataclass
class UnitPicture:
    """What a unit has learned.

    Attributes:
        objective: what was sought, in words.
        spec: the text that `parse_objective` reads back, or None.
        layer: the unit's layer; None for scores of the output.
        channel: the unit's channel; None where it is no single one.
        pictures: `(V, C, *space)`, display values in [0, 1]; several where diversity was asked for.
        alphas: `(V, *space)` in [0, 1], how much each place matters, or None.
        reached: the objective on the first picture as it is.
        history: the objective's mean over the views, one value a step.
        quality: how far the pictures may be believed.
        natural: exemplars, or None where none were asked for.
        fires: the unit's map on the user's own picture, `(*grid)`, or None.
        given: that picture, while in memory; not stored.
        notes: what a reader must know.
        facts: measured figures of the synthesis.
    """

    objective: str
    spec: str | None
    layer: str | None
    channel: int | None
    pictures: Tensor
    alphas: Tensor | None
    reached: float
    history: list[float]
    quality: FeatureQuality
    record: Record
    natural: UnitExemplars | None = None
    fires: Tensor | None = None
    given: Given | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


def judge(
    standing: Standing | None,
    choice: Choice | None,
    figures: Mapping[str, float],
    *,
    never_fired: bool = False,
    not_finite: bool = False,
) -> FeatureQuality:
    """The verdict and its sentence.

    Args:
        standing, choice: against natural pictures, where there are any.
        figures: see `figures`.
        never_fired: no gradient was ever found.
        not_finite: the synthesis ended in NaN.
    """
    parts = []
    if standing is not None:
        parts.append(_stands(standing))
    robust = figures.get("robust", math.nan)
    parts += _told(figures)
    if choice is not None:
        parts.append(_chooses(choice))
    verdict, meaning = _verdict(standing, choice, robust, never_fired or not_finite)
    if never_fired:
        meaning = "the unit never fired and no gradient leads to it: the picture is noise"
    elif not_finite:
        meaning = "the model answered with NaN or infinity: the picture means nothing"
    figures_told = "; ".join(parts)
    return FeatureQuality(verdict, f"{figures_told}: {meaning}." if parts else f"{meaning}.", standing, choice, figures)


_FIGURES: dict[str, Callable[[float], str]] = {
    "robust": lambda v: f"random views keep {max(0.0, v):.0%}",
    "rank": lambda v: _rank(int(v)),
    "path": lambda v: f"processed like natural ones {v:.2f} of 1",
    "fine": lambda v: f"{v:.0%} fine detail",
    "seeds": lambda v: f"seeds agree {v:.2f}",
    "still": lambda v: f"standing still {v:.0%}",
}


def _told(figures: Mapping[str, float]) -> list[str]:
    return [tell(figures[name]) for name, tell in _FIGURES.items() if math.isfinite(figures.get(name, math.nan))]


def _stands(s: Standing) -> str:
    if s.percentile < 100:
        return f"excites the unit more than {s.percentile:.0f} % of {s.count} natural pictures"
    if math.isfinite(s.ratio):
        return f"{s.ratio:.2g} x the strongest of {s.count} natural pictures"
    return f"beyond the strongest of {s.count} natural pictures"


def _chooses(c: Choice) -> str:
    known = f", {c.exemplars:.0%} from exemplars" if math.isfinite(c.exemplars) else ""
    return f"forced choice {c.synthetic:.0%} right from it{known}"


def _verdict(standing: Standing | None, choice: Choice | None, robust: float, broken: bool) -> tuple[str, str]:
    if broken:
        return "dead", ""
    if standing is not None and standing.percentile < 100:
        return "weak", "natural pictures excite the unit more, so believe the exemplars"
    if robust < STURDY:
        return "fragile", "small changes undo it, so it is closer to an adversarial pattern than to a feature"
    if choice is None or standing is None:
        return "unproven", "nothing natural to compare with, so take it as a hint"
    if choice.synthetic < SURE:
        if not choice.exemplars >= SURE:
            return "unlike", "neither it nor the exemplars tell what the unit wants, which may mean several things"
        return "unlike", "it does not resemble what excites the unit in nature, so believe the exemplars"
    return "agrees", "it agrees with the natural exemplars"


def _rank(n: int) -> str:
    endings = {1: f"{n}st of its layer", 2: f"{n}nd of its layer", 3: f"{n}rd of its layer"}
    other = f"{n}th of its layer"
    return other if 10 <= n % 100 <= 20 else endings.get(n % 10, other)
