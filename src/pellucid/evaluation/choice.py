"""`auto`: of several maps of one picture, the one that says best what the model does.

All maps are tested on the same masked pictures, which costs no more than testing one; the p-values allow for the choice
(`pellucid.evaluation.chance.Trial`). Only the best is then followed through insertion and deletion and compared with
those of shuffled weights; the next one, where they speak against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pellucid.evaluation.chance import Agreement
from pellucid.evaluation.check import Explained, Session, dependence, judged
from pellucid.evaluation.sanity import shuffled_once
from pellucid.evaluation.verdict import SIGNIFICANT, diagnose

_FOLLOWED = 3  # maps at most whose curves are drawn
_NAMED = 3  # of those that it beat
ORDER = ("meaningless", "unproven", "not faithful", "partly faithful", "faithful")
TOP = len(ORDER) - 1
LEAST = ORDER.index("partly faithful")  # that is believed at all

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
    """For each target the map that is shown, measured; the first with values is shown where nothing better is.

    Args:
        candidates: explanations of one picture by several methods, for each target a row, with their session.
    """
    session = candidates[0][0].session
    assert session is not None
    before = session.passes
    sound = [[e for e in row if diagnose(e.attribution, signed=False) is None] for row in candidates]
    session.expect(e.explained for row in sound for e in row if e.explained is not None)
    with shuffled_once():
        best = [_best(row, own, session) for row, own in zip(candidates, sound, strict=True)]
    for e in best:
        e.record.run["chosen"]["passes"] = session.passes - before
    return best


def leaves_doubt(e: Explained) -> bool:
    """Whether what was chosen was measured, and may not be believed wholly."""
    return e.explained is not None and e.quality is not None and e.quality.verdict not in ("faithful", "unproven")


def better_of(best: E, further: E) -> E:
    """What was chosen among maps, none of them faithful, or one more, if it is believed more.

    It is a second look at the same masked pictures, so its p-value counts twice (Bonferroni).
    """
    session = further.session
    assert session is not None
    before, tried = session.passes, best.record.run["chosen"]
    if further.explained is None or diagnose(further.attribution, signed=False) is not None:
        return best
    with session.borrowed():
        found = session.perturbed(further.explained).agreement(further.map()[0])
    counted = replace(found, p_value=min(1.0, 2 * found.p_value))
    own = TestedMap(further.method, None, counted)
    if _believed(counted):
        further.quality = judged(further, session, _sanity(further, session), sound=True, agreement=counted)
    passes = tried["passes"] + session.passes - before
    if further.quality is None or _rank(further) <= _rank(best):
        best.record.run["chosen"] = {"among": [*tried["among"], own.as_dict()], "passes": passes}
        best.notes = [*best.notes, f"Nor is {own.said()}, which was asked because of that."]
        return best
    further.chosen = True
    further.record.run["chosen"] = {"among": [own.as_dict(), *tried["among"]], "passes": passes}
    count = len(tried["among"])
    further.notes = [
        *further.notes,
        f"None of {count} maps of one pass is faithful here, so {own.said()} was asked besides; it is a second look at "
        "the same masked pictures, so its p-value counts twice.",
    ]
    return further


def _best(candidates: Sequence[E], sound: Sequence[E], session: Session) -> E:
    """The one that is shown of those for one target, of which the `sound` have values."""
    usual, found = (sound or candidates)[0], _agreements(sound, session)
    ranked = sorted(sound, key=lambda e: _standing(found.get(id(e))))
    best = _first_faithful([e for e in ranked if _believed(found.get(id(e)))], found, session)
    if best is None or _rank(best) < TOP:
        # The usual map was not chosen by what was measured, so it may be held to its own p-value alone.
        alone = judged(usual, session, _sanity(usual, session) if sound else None, sound=bool(sound))
        if best is None or ORDER.index(alone.verdict) > _rank(best):
            best, usual.quality = usual, alone
    if ranked and not _believed(found.get(id(ranked[0]))) and _rank(best) < LEAST:  # none: what agrees most is shown
        best = ranked[0]
        best.quality = judged(best, session, _sanity(best, session), sound=True, agreement=found.get(id(best)))
    best.chosen = True
    every = [*ranked, *(e for e in candidates if not any(e is s for s in sound))]
    tried = [TestedMap(e.method, e.record.run.get("layer"), found.get(id(e))) for e in every]
    best.record.run["chosen"] = {"among": [t.as_dict() for t in tried]}
    place = next(k for k, e in enumerate(every) if e is best)
    best.notes = [
        *best.notes,
        _told(_rank(best) == TOP, tried[place], tried[:place] + tried[place + 1 :], usual.method),
    ]
    return best


def _agreements(sound: Sequence[E], session: Session) -> dict[int, Agreement]:
    """By the `id` of each map."""
    if not sound or (target := sound[0].explained) is None:
        return {}
    with session.borrowed():
        tested = session.perturbed(target).agreements([e.map()[0] for e in sound])
    return dict(zip(map(id, sound), tested, strict=True))


def _first_faithful(believed: Sequence[E], found: dict[int, Agreement], session: Session) -> E | None:
    """The first whose curves bear it out; else the one that comes nearest to it."""
    best: E | None = None
    for e in believed[:_FOLLOWED]:
        e.quality = judged(e, session, _sanity(e, session), sound=True, agreement=found[id(e)])
        best = e if best is None or _rank(e) > _rank(best) else best
        if _rank(best) == TOP:
            break
    return best


def _sanity(e: Explained, session: Session) -> float | None:
    return dependence(session, [e])[id(e)]


def _believed(agreement: Agreement | None) -> bool:
    return agreement is not None and agreement.p_value <= SIGNIFICANT


def _standing(agreement: Agreement | None) -> tuple[bool, float]:
    """What is believed comes first, then what agrees most."""
    return (not _believed(agreement), -agreement.correlation if agreement else 0.0)


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
    return f"None of {count} maps is faithful here, so do not rest on a place in this one, {own}, beside {beside}."
