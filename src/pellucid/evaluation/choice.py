"""`auto`: of several maps of one picture, the one that says best what the model does.

All maps are tested on the same masked pictures, which costs no more than testing one; the p-values allow for the choice
(`pellucid.evaluation.chance.agreements`). Only the best is then followed through insertion and deletion; the next one,
where they speak against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pellucid.evaluation.chance import Agreement
from pellucid.evaluation.check import Explained, Session, dependence, judged
from pellucid.evaluation.verdict import SIGNIFICANT, diagnose

_FOLLOWED = 3  # maps at most whose curves are drawn
_NAMED = 3  # of those that it beat
ORDER = ("meaningless", "unproven", "not faithful", "partly faithful", "faithful")
TOP = len(ORDER) - 1

E = TypeVar("E", bound=Explained)


@dataclass(frozen=True)
class TestedMap:
    """A map that stood for election.

    Attributes:
        method: its name. layer: of which it is.
        agreement: with the masked pictures; the p-value allows for the choice among all. None for a map without values.
    """

    method: str
    layer: str | None
    agreement: Agreement | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        a = self.agreement
        return {
            "method": self.method,
            "layer": self.layer,
            "agreement": a and a.correlation,
            "p_value": a and a.p_value,
        }

    def said(self) -> str:
        """Name and agreement."""
        return f"{self.method} {self.agreement.correlation:.2f}" if self.agreement else self.method


def choose(candidates: Sequence[Sequence[E]]) -> list[E]:
    """For each target the map that is shown, measured; the first is the usual one, shown where nothing better is.

    Args:
        candidates: explanations of one picture by several methods, for each target a row, with their session.
    """
    session = candidates[0][0].session
    assert session is not None
    sound = [e for row in candidates for e in row if diagnose(e.attribution, signed=False) is None]
    before = session.passes
    session.expect(e.explained for e in sound if e.explained is not None)
    sanity = dependence(session, sound)
    best = [_best(row, session, sanity) for row in candidates]
    for e in best:
        e.record.run["chosen"]["passes"] = session.passes - before
    return best


def _best(candidates: Sequence[E], session: Session, sanity: dict[int, float | None]) -> E:
    """The one that is shown of those for one target."""
    usual, sound = candidates[0], [e for e in candidates if id(e) in sanity]
    found: dict[int, Agreement] = {}
    if sound and (target := sound[0].explained) is not None:
        with session.borrowed():
            tested = session.perturbed(target).agreements([e.map()[0] for e in sound])
        found = dict(zip(map(id, sound), tested, strict=True))
    ranked = sorted(sound, key=lambda e: _standing(found.get(id(e))))
    best: E | None = None
    for e in ranked[:_FOLLOWED]:
        if best is not None and (_rank(best) == TOP or found[id(e)].p_value > SIGNIFICANT):
            break
        e.quality = judged(e, session, sanity[id(e)], sound=True, agreement=found.get(id(e)))
        best = e if best is None or _rank(e) > _rank(best) else best
    if best is None or _rank(best) < TOP:
        # The usual map was not chosen by what was measured, so it may be held to its own p-value alone.
        before, usual.quality = usual.quality, None
        usual.quality = judged(usual, session, sanity.get(id(usual)), sound=id(usual) in sanity)
        if best is None or (best is not usual and _rank(usual) > _rank(best)):
            best = usual
        elif best is usual and before is not None and ORDER.index(before.verdict) >= _rank(usual):
            usual.quality = before
    best.chosen = True
    every = [*ranked, *(e for e in candidates if id(e) not in sanity)]
    tried = [TestedMap(e.method, e.record.run.get("layer"), found.get(id(e))) for e in every]
    best.record.run["chosen"] = {"among": [t.as_dict() for t in tried]}
    place = next(k for k, e in enumerate(every) if e is best)
    best.notes = [
        *best.notes,
        _told(_rank(best) == TOP, tried[place], tried[:place] + tried[place + 1 :], usual.method),
    ]
    return best


def _standing(agreement: Agreement | None) -> tuple[bool, float]:
    """What is believed comes first, then what agrees most."""
    return (agreement.p_value > SIGNIFICANT, -agreement.correlation) if agreement else (True, 0.0)


def _rank(e: Explained) -> int:
    assert e.quality is not None
    return ORDER.index(e.quality.verdict)


def _told(faithful: bool, best: TestedMap, others: Sequence[TestedMap], usual: str) -> str:
    """What it beat, or that nothing can be believed."""
    if not others:
        return "Chosen by auto: nothing else explains this model as cheaply."
    shown = dict.fromkeys([*others[:_NAMED], *[t for t in others if t.method == usual][:1]])
    beside = ", ".join(t.said() for t in shown)
    count, own = len(others) + 1, best.said()
    if faithful:
        return f"Chosen from {count} maps on the same masked pictures, by agreement: {own}, beside {beside}."
    return (
        f"None of {count} maps is faithful here, so do not rest on a place in this one, {own}, beside {beside}. "
        "A method of another kind, such as rise or occlusion, may do better."
    )
