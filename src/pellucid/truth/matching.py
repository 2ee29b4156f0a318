"""Answers beside the truth: which boxes hit an object, which objects are missed, and what is wrong with false boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.truth.annotations import Annotation, Place

LEAST = 0.5  # overlap from which a box is said to hit
TOUCHES = 0.1  # from which on it is said to be badly placed
KINDS = ("hit", "miss", "false")
FAULTS = ("second", "class", "place", "place and class", "nothing")


@dataclass(frozen=True)
class BoxAnswer:
    """A box that a detector answers.

    Attributes:
        number: its rank, the most certain being 0.
        label: its class, as the annotations call it.
        score: how sure.
        box: in the picture's pixels.
    """

    number: int
    label: str
    score: float
    box: Place


@dataclass(frozen=True)
class Judged:
    """A box or an object beside the truth.

    Attributes:
        kind: `hit`, `miss` or `false`.
        answer: the box; None of a miss.
        object: the true one; None of a false box.
        overlap: of the two (of a false box with the object that is nearest).
        why: what is wrong with a false box, in words.
        fault: which of `FAULTS` that is; empty of hits and misses.
    """

    kind: str
    answer: BoxAnswer | None
    object: Annotation | None
    overlap: float
    why: str = ""
    fault: str = ""


def overlap(a: Place, b: Place) -> float:
    """Intersection over union of two boxes."""
    common = _common(a, b)
    union = _area(a) + _area(b) - common
    return common / union if union > 0 else 0.0


def judge_boxes(answers: Sequence[BoxAnswer], objects: Sequence[Annotation], least: float = LEAST) -> list[Judged]:
    """Hits, then misses, then false boxes, each the surest first.

    As in COCO's evaluation, the surest box chooses first, among the objects of its class that are left, the one it
    overlaps most, by `least` at least. A box on a difficult object, or one that lies in a crowd by `least` of its own
    area, is neither right nor wrong, and is left out. What is wrong with the others is told in the order of TIDE
    (Bolya et al. 2020): a second box of one object, another class, a bad place, nothing there.
    """
    free = [o for o in objects if not o.ignored]
    taken: set[int] = set()
    hits, false = [], []
    for answer in sorted(answers, key=lambda a: -a.score):
        shares = [overlap(answer.box, o.box) if o.label == answer.label else 0.0 for o in free]
        left = [k for k in range(len(free)) if k not in taken and shares[k] >= least]
        if left:
            k = max(left, key=lambda k: shares[k])
            taken.add(k)
            hits.append(Judged("hit", answer, free[k], shares[k]))
        elif not _ignored(answer, objects, least):
            false.append(_false(answer, objects, least))
    misses = [Judged("miss", None, o, _nearest(o, answers)) for k, o in enumerate(free) if k not in taken]
    return [*hits, *misses, *false]


def _ignored(answer: BoxAnswer, objects: Sequence[Annotation], least: float) -> bool:
    for each in objects:
        if each.label != answer.label or not each.ignored:
            continue
        inside = _common(answer.box, each.box) / max(_area(answer.box), 1e-12)
        if (inside if each.ignored == "crowd" else overlap(answer.box, each.box)) >= least:
            return True
    return False


def _false(answer: BoxAnswer, objects: Sequence[Annotation], least: float) -> Judged:
    shares = [(overlap(answer.box, o.box), o) for o in objects]
    same = max((share for share, o in shares if o.label == answer.label), default=0.0)
    other, rival = max(((share, o.label) for share, o in shares if o.label != answer.label), default=(0.0, ""))
    if same >= least:
        fault, why = "second", "a second box of an object that has one"
    elif other >= least:
        fault, why = "class", f"the object there is of another class: {rival}"
    elif same >= TOUCHES:
        fault, why = "place", f"badly placed: it overlaps the object by {same:.0%}"
    elif other >= TOUCHES:
        fault, why = "place and class", f"badly placed, and of another class: {rival}"
    else:
        fault, why = "nothing", "nothing that was annotated is there"
    return Judged("false", answer, None, max(same, other), why, fault)


def _nearest(each: Annotation, answers: Sequence[BoxAnswer]) -> float:
    return max((overlap(a.box, each.box) for a in answers if a.label == each.label), default=0.0)


def _area(box: Place) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _common(a: Place, b: Place) -> float:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
