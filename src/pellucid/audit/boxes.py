"""One row for each object, and for each box (or region) that is answered: what became of it, and what it is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.audit.columns import Columns, Literals
from pellucid.audit.samples import PROPERTIES, properties
from pellucid.audit.slices import WeakSlice, proposed, ranked
from pellucid.media import Picture, read_image
from pellucid.truth import Annotation, BoxAnswer, judge_boxes, overlap
from pellucid.truth.annotations import Place
from pellucid.truth.matching import FAULTS, TOUCHES

OBJECTS = ("found", "missed", "misplaced")
VERDICTS = (*OBJECTS, "right", "false")  # three of objects, two of answered boxes
SHAPE = 32  # cells of a region's grid along each side
_FLAGS = ("cut", "shapes")  # arrays of yes and no
BOX_PROPERTIES = (
    *("size" if name == "pixels" else name for name in PROPERTIES),  # as a share of the picture
    "contrast to its surroundings", "distance from the middle", "others in the picture", "overlap with another",
)  # fmt: skip
_EDGE = 0.01  # of a picture's side: nearer to it a box is cut off

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BoxTable:
    """R objects and boxes; or true regions and those that are answered, each with the box around it.

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
        shapes: `(R, SHAPE, SHAPE)`, the region on a grid over its box; of boxes `(R, 0, 0)`.
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
    shapes: NDArray[np.bool_]

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
        """All arrays by name, to be stored; of boxes no shapes."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found |= {name: found[name].astype(np.uint8) for name in _FLAGS}
        return found if found["shapes"].size else {n: v for n, v in found.items() if n != "shapes"}

    @classmethod
    def stored(cls, arrays: Mapping[str, NDArray[Any]]) -> BoxTable:
        """The inverse of `arrays`."""
        none = {"shapes": np.zeros((len(arrays["cut"]), 0, 0), np.uint8)}
        found = {f.name: {**none, **arrays}[f.name] for f in fields(cls)}
        return cls(**found | {name: found[name].astype(bool) for name in _FLAGS})

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> BoxTable:
        """Of rows as `rows_of` makes them."""
        wide = {
            "boxes": (4,),
            "properties": (len(BOX_PROPERTIES),),
            "shapes": rows[0]["shapes"].shape if rows else (0, 0),
        }
        kinds = dict.fromkeys(_FLAGS, np.bool_) | dict.fromkeys(
            ("boxes", "scores", "overlaps", "properties"), np.float32
        )
        return cls(
            **{
                f.name: np.array([row[f.name] for row in rows], kinds.get(f.name, np.int64)).reshape(
                    (len(rows), *wide.get(f.name, ()))
                )
                for f in fields(cls)
            }
        )

    @classmethod
    def joined(cls, tables: Sequence[BoxTable]) -> BoxTable:
        """Several, one after the other; those without rows aside."""
        some = [table for table in tables if len(table)]
        if not some:
            return cls.of([])
        return cls(**{f.name: np.concatenate([getattr(table, f.name) for table in some]) for f in fields(cls)})


@dataclass(frozen=True, eq=False)
class JudgedPart:
    """An object, or what is answered, and what became of it.

    Attributes:
        label: its class.
        box: it, or what is around it.
        verdict: one of `VERDICTS`.
        fault: of a false one which of `FAULTS`; else empty.
        score: how sure the model is; -1 of what it does not answer.
        share: overlap with what it is judged by.
        region: which pixels of the box are its own, `(h, w)`; None: all of them.
    """

    label: str
    box: Place
    verdict: str
    fault: str = ""
    score: float = -1.0
    share: float = 0.0
    region: NDArray[np.bool_] | None = None

    @property
    def answered(self) -> bool:
        """Whether it is an answer rather than an object."""
        return self.verdict not in OBJECTS


def judged_parts(objects: Sequence[Annotation], answers: Sequence[BoxAnswer], least: float) -> list[JudgedPart]:
    """The objects of a picture, then the boxes answered; what is ignored is left out.

    An object that no box hits is misplaced if a false box of its class overlaps it by a tenth, else missed.

    Args:
        objects: what is truly there.
        answers: the detector's boxes.
        least: overlap from which a box hits.
    """
    judged = judge_boxes(answers, objects, least)
    false = [j.answer for j in judged if j.kind == "false" and j.answer is not None]
    parts = []
    for j in judged:
        if j.object is not None:
            near = [overlap(a.box, j.object.box) for a in false if a.label == j.object.label]
            close = max(near, default=0.0)
            verdict = "found" if j.kind == "hit" else "misplaced" if close >= TOUCHES else "missed"
            score = j.answer.score if j.answer is not None else -1.0
            share = j.overlap if j.kind == "hit" else close
            parts.append(JudgedPart(j.object.label, j.object.box, verdict, "", score, share))
    for j in judged:
        if j.answer is not None:
            verdict = "right" if j.kind == "hit" else "false"
            parts.append(JudgedPart(j.answer.label, j.answer.box, verdict, j.fault, j.answer.score, j.overlap))
    return parts


def rows_of(number: int, picture: Picture, parts: Sequence[JudgedPart], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one picture.

    Others of an object are objects, and those of an answer are answers: what it is like must not say whether it is
    right.

    Args:
        number: of the picture.
        picture: itself.
        parts: its objects and answers.
        labels: all classes by number.
    """
    grey = (np.asarray(picture.pil().convert("L")) / 255).astype(np.float32)
    return [
        {
            "pictures": number,
            "boxes": part.box,
            "classes": labels.index(part.label),
            "verdicts": VERDICTS.index(part.verdict),
            "faults": FAULTS.index(part.fault) if part.fault else -1,
            "scores": part.score,
            "overlaps": part.share,
            "properties": _properties(picture, grey, part, _others(parts, k)),
            "cut": _cut(part.box, picture),
            "shapes": _shape(part.region),
        }
        for k, part in enumerate(parts)
    ]


def _others(parts: Sequence[JudgedPart], k: int) -> list[Place]:
    """The boxes of all other objects, or of all other answers."""
    return [p.box for j, p in enumerate(parts) if j != k and p.answered == parts[k].answered]


def _shape(region: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """A region on a small grid over its box; of none a grid without cells."""
    if region is None:
        return np.zeros((0, 0), bool)
    return np.asarray(Image.fromarray(region).resize((SHAPE, SHAPE), Image.Resampling.NEAREST))


def _properties(picture: Picture, grey: Floats, part: JudgedPart, others: Sequence[Place]) -> list[float]:
    """See `BOX_PROPERTIES`; size, brightness and contrast to the surroundings of a region are those of its pixels."""
    (height, width), box = grey.shape, part.box
    left, top, right, bottom = _pixels(box, width, height)
    pixels, inside = picture.pixels[top:bottom, left:right], grey[top:bottom, left:right]
    own = dict(zip(PROPERTIES, properties([read_image(pixels)])[0], strict=True))
    area = (box[2] - box[0]) * (box[3] - box[1])
    region = np.ones(inside.shape, bool) if part.region is None else part.region
    if part.region is not None:
        area = int(region.sum())
        own["brightness"] = np.float32(pixels[region].mean() / 255)
    own |= {"pixels": np.log2(max(area / (width * height), 1e-9))}
    wide, high = (right - left + 1) // 2, (bottom - top + 1) // 2
    around = np.zeros_like(grey, bool)
    around[max(0, top - high) : bottom + high, max(0, left - wide) : right + wide] = True
    around[top:bottom, left:right] = ~region
    ring = float(grey[around].mean()) if around.any() else own["brightness"]
    x, y = (box[0] + box[2]) / (2 * width) - 0.5, (box[1] + box[3]) / (2 * height) - 0.5
    shared = max((overlap(box, other) for other in others), default=0.0)
    away = abs(float(inside[region].mean()) - ring)
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
    objects, answers = table.are(*OBJECTS), table.are("right", "false")
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
