"""One row for each object, and for each box that a detector answers: what became of it, and what it is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.columns import Columns, Literals
from pellucid.audit.samples import PROPERTIES, properties
from pellucid.audit.slices import WeakSlice, proposed, ranked
from pellucid.media import Picture, read_image
from pellucid.truth import Annotation, BoxAnswer, judge_boxes, overlap
from pellucid.truth.annotations import Place
from pellucid.truth.matching import FAULTS, TOUCHES

VERDICTS = ("found", "missed", "misplaced", "right", "false")  # three of objects, two of answered boxes
BOX_PROPERTIES = (
    *("size" if name == "pixels" else name for name in PROPERTIES),  # as a share of the picture
    "contrast to its surroundings", "distance from the middle", "others in the picture", "overlap with another",
)  # fmt: skip
_EDGE = 0.01  # of a picture's side: nearer to it a box is cut off

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BoxTable:
    """R objects and boxes.

    Attributes:
        pictures: `(R,)`, numbers of the pictures that they lie in.
        boxes: `(R, 4)`, x0, y0, x1, y1: edges in pixels of the upright picture.
        classes: `(R,)`, numbers of their labels.
        verdicts: `(R,)`, numbers in `VERDICTS`.
        faults: `(R,)`, numbers in `truth.matching.FAULTS` of what is wrong with false boxes; -1 of all else.
        scores: `(R,)`, how sure the detector is; -1 of what it does not answer.
        overlaps: `(R,)`, with the box or object that it is judged by.
        properties: `(R, len(BOX_PROPERTIES))`.
        cut: `(R,)`, whether the picture's edge cuts it off.
    """

    pictures: Numbers
    boxes: Floats
    classes: Numbers
    verdicts: Numbers
    faults: Numbers
    scores: Floats
    overlaps: Floats
    properties: Floats
    cut: NDArray[np.bool_]

    def __len__(self) -> int:
        """Objects and boxes."""
        return len(self.pictures)

    def are(self, *names: str) -> NDArray[np.bool_]:
        """Whether the verdict of each row is one of these, `(R,)`."""
        return np.isin(self.verdicts, [VERDICTS.index(name) for name in names])

    def count(self, *names: str) -> int:
        """How many rows have one of these verdicts."""
        return int(self.are(*names).sum())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, to be stored."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"cut": self.cut.astype(np.uint8)}

    @classmethod
    def stored(cls, arrays: Mapping[str, NDArray[Any]]) -> BoxTable:
        """The inverse of `arrays`."""
        return cls(**{f.name: arrays[f.name] for f in fields(cls)} | {"cut": arrays["cut"].astype(bool)})

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> BoxTable:
        """Of rows as `judged_rows` makes them."""
        wide = {"boxes": (0, 4), "properties": (0, len(BOX_PROPERTIES))}
        kinds = {"cut": np.bool_} | dict.fromkeys(("boxes", "scores", "overlaps", "properties"), np.float32)
        return cls(
            **{
                f.name: np.array([row[f.name] for row in rows], kinds.get(f.name, np.int64)).reshape(
                    (len(rows), *wide.get(f.name, ())[1:])
                )
                for f in fields(cls)
            }
        )


def judged_rows(
    number: int, picture: Picture, objects: Sequence[Annotation], answers: Sequence[BoxAnswer], labels: Sequence[str],
    least: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of one picture: its objects, then the boxes answered; what is ignored is left out.

    Others of an object are objects, and those of a box are boxes: what a box is like must not say whether it is right.

    An object that no box hits is misplaced if a false box of its class overlaps it by a tenth, else missed.

    Args:
        number: of the picture.
        picture: itself.
        objects: what is truly there.
        answers: the detector's boxes.
        labels: all classes by number; others are left out.
        least: overlap from which a box hits.
    """
    judged = judge_boxes(answers, objects, least)
    false = [j.answer for j in judged if j.kind == "false" and j.answer is not None]
    rows: list[tuple[str, Place, str, str, float, float]] = []
    for j in judged:
        if j.object is not None:
            near = [overlap(a.box, j.object.box) for a in false if a.label == j.object.label]
            close = max(near, default=0.0)
            verdict = "found" if j.kind == "hit" else "misplaced" if close >= TOUCHES else "missed"
            score = j.answer.score if j.answer is not None else -1.0
            share = j.overlap if j.kind == "hit" else close
            rows.append((j.object.label, j.object.box, verdict, "", score, share))
    for j in judged:
        if j.answer is not None:
            verdict = "right" if j.kind == "hit" else "false"
            rows.append((j.answer.label, j.answer.box, verdict, j.fault, j.answer.score, j.overlap))
    first = sum(j.object is not None for j in judged)
    grey = (np.asarray(picture.pil().convert("L")) / 255).astype(np.float32)
    return [
        {
            "pictures": number,
            "boxes": box,
            "classes": labels.index(label),
            "verdicts": VERDICTS.index(verdict),
            "faults": FAULTS.index(fault) if fault else -1,
            "scores": score,
            "overlaps": share,
            "properties": _properties(picture, grey, box, _others(rows, k, first)),
            "cut": _cut(box, picture),
        }
        for k, (label, box, verdict, fault, score, share) in enumerate(rows)
    ]


def _others(rows: Sequence[tuple[str, Place, str, str, float, float]], k: int, first: int) -> list[Place]:
    """The boxes of all other objects, of which there are `first`, or of all other answers."""
    kind = range(first) if k < first else range(first, len(rows))
    return [rows[j][1] for j in kind if j != k]


def _properties(picture: Picture, grey: Floats, box: Place, others: Sequence[Place]) -> list[float]:
    """See `BOX_PROPERTIES`."""
    height, width = grey.shape
    left, top, right, bottom = _pixels(box, width, height)
    own = dict(zip(PROPERTIES, properties(read_image(picture.pixels[top:bottom, left:right])), strict=True))
    share = max((box[2] - box[0]) * (box[3] - box[1]) / (width * height), 1e-9)
    own |= {"pixels": np.log2(share)}
    wide, high = (right - left + 1) // 2, (bottom - top + 1) // 2
    around = np.zeros_like(grey, bool)
    around[max(0, top - high) : bottom + high, max(0, left - wide) : right + wide] = True
    around[top:bottom, left:right] = False
    ring = float(grey[around].mean()) if around.any() else own["brightness"]
    x, y = (box[0] + box[2]) / (2 * width) - 0.5, (box[1] + box[3]) / (2 * height) - 0.5
    shared = max((overlap(box, other) for other in others), default=0.0)
    away = abs(float(grey[top:bottom, left:right].mean()) - ring)
    return [*map(float, own.values()), away, float(np.hypot(x, y)), float(len(others)), shared]


def _pixels(box: Place, width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels that a box touches, one at the least: left, top, right, bottom."""
    left, top = min(max(int(box[0]), 0), width - 1), min(max(int(box[1]), 0), height - 1)
    return left, top, max(left + 1, min(int(np.ceil(box[2])), width)), max(top + 1, min(int(np.ceil(box[3])), height))


def _cut(box: Place, picture: Picture) -> bool:
    height, width = picture.pixels.shape[:2]
    x, y = _EDGE * width, _EDGE * height
    return bool(box[0] <= x or box[1] <= y or box[2] >= width - x or box[3] >= height - y)


def find(
    table: BoxTable, labels: Sequence[str], given: Mapping[str, Sequence[str]] | None = None, seed: int = 0
) -> list[WeakSlice]:
    """Slices of objects that are missed or misplaced more often than others, and of boxes that are more often false.

    What lies in one picture is in one half, and is not taken for independent. Misplaced are weighed against those that
    are found; a false box that is badly placed stands for a misplaced object, and counts there. All tests are corrected
    together.

    Args:
        table: objects and boxes.
        labels: of the classes.
        given: further columns by name, a text for each row.
        seed: of the halves.
    """
    objects, answers = table.are("found", "missed", "misplaced"), table.are("right", "false")
    placed = np.isin(table.faults, [FAULTS.index("place"), FAULTS.index("place and class")])
    asked = (
        ("missed", table.are("missed"), objects),
        ("misplaced", table.are("misplaced"), table.are("found", "misplaced")),
        ("false", table.are("false"), answers & ~placed),
    )
    found: list[WeakSlice] = []
    for fault, wrong, counts in asked:
        columns = _described(table, counts, labels, given or {}, scored=fault == "false")
        found += proposed(columns, wrong, np.flatnonzero(counts), seed, groups=table.pictures, fault=fault)
    return ranked(found)


def _described(
    table: BoxTable, rows: NDArray[np.bool_], labels: Sequence[str], given: Mapping[str, Sequence[str]], *, scored: bool
) -> Columns:
    """What may describe a slice of some of the rows."""
    found = Literals(rows)
    for name, column in zip(BOX_PROPERTIES, table.properties.T, strict=True):
        found.fifths(name, column)
    if scored:
        found.fifths("score", table.scores)
    for k in np.unique(table.classes[rows]):
        found.add(f"class {labels[int(k)]}", table.classes == k, "class")
    found.add("cut off by the picture's edge", table.cut, "edge")
    found.add("whole in the picture", ~table.cut, "edge")
    for name, texts in given.items():
        found.texts(name, texts)
    return found.columns
