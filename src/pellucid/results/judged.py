"""A detector's answers beside the truth, each explained: hits, misses and false boxes apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.explanation import Brief
from pellucid.keep.files import comma_separated, write_together
from pellucid.results.heatmap import Heatmap, Heatmaps
from pellucid.results.shown import slug, unused
from pellucid.truth import Annotated, Annotation, Judged, Truth, coco_text
from pellucid.truth.matching import KINDS

_FOLDERS = {"hit": "hits", "miss": "misses", "false": "false"}


@dataclass(repr=False)
class JudgedBox(Brief):
    """A box or an object beside the truth, with its maps.

    Attributes:
        judged: what it is.
        maps: one a method; none where it could not be explained.
        figures: of each map, beside the place of the object (of a false box: beside its own).
        files: the record of each map, once saved, relative to the folder.
        note: why there is no map.
    """

    judged: Judged
    maps: Heatmaps = field(default_factory=Heatmaps)
    figures: list[dict[str, float]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """It as a row of a table."""
        judged = self.judged
        shown = judged.answer or judged.object
        assert shown is not None
        x0, y0, x1, y1 = shown.box
        return {
            "kind": judged.kind,
            "label": shown.label,
            "score": None if judged.answer is None else judged.answer.score,
            "x0": x0, "y0": y0, "x1": x1, "y1": y1,
            "iou": judged.overlap,
            "why": judged.why or self.note,
            "truth": None if judged.object is None else judged.object.key,
        }  # fmt: skip


@dataclass(repr=False)
class JudgedPicture(Brief):
    """One picture's boxes beside the truth.

    Attributes:
        truth: what is truly there.
        source: what opens the picture.
        boxes: hits, misses, false boxes.
        remarks: what a reader must know.
    """

    truth: Annotated
    source: str
    boxes: list[JudgedBox]
    remarks: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[JudgedBox]:
        """`hit`, `miss` or `false`."""
        return [box for box in self.boxes if box.judged.kind == kind]

    @property
    def line(self) -> str:
        """`2 found, 1 missed, 3 false`."""
        return counted(self.boxes)

    def save(self, folder: str | Path, taken: set[str]) -> list[Path]:
        """Write maps, records and a panel of each kind into `hits`, `misses` and `false`; returns the files."""
        written: list[Path] = []
        stem = unused(slug(Path(self.truth.name).stem), taken)
        for kind in KINDS:
            boxes = [box for box in self.of_kind(kind) if box.maps]
            maps = Heatmaps(e for box in boxes for e in box.maps)
            if not maps:
                continue
            files = maps.save_panel(Path(folder) / _FOLDERS[kind], taken, stem=stem)
            records = iter([str(f.relative_to(folder)) for f in files if f.suffix == ".json"])
            for box in boxes:
                box.files = [next(records) for _ in box.maps]
            written += files
        return written

    def rows(self) -> list[dict[str, Any]]:
        """A row for each map, or for what has none."""
        found = []
        for box in self.boxes:
            about = {"picture": self.truth.name, **box.about}
            maps: Sequence[Heatmap | None] = box.maps or [None]
            for k, e in enumerate(maps):
                figures = box.figures[k] if k < len(box.figures) else {}
                named = {"method": "" if e is None else e.method, "target": "" if e is None else e.record.target}
                numbers = {name: figures.get(name) for name in ("pointing", "energy", "mask_iou", "leaked")}
                found.append(about | named | numbers | {"explanation": box.files[k] if k < len(box.files) else ""})
        return found

    def annotated(self) -> Annotated:
        """What the detector answers and misses, with scores and where the explanations lie."""
        objects = []
        for box in self.boxes:
            judged = box.judged
            facts = {"kind": judged.kind, "iou": round(judged.overlap, 6), "explanation": list(box.files)}
            if judged.why or box.note:
                facts["why"] = judged.why or box.note
            if judged.object is not None:
                facts["truth"] = judged.object.key
            if judged.answer is not None:
                facts["score"] = judged.answer.score
                objects.append(Annotation(judged.answer.label, judged.answer.box, key=None, facts=facts))
            elif judged.object is not None:
                objects.append(Annotation(judged.object.label, judged.object.box, judged.object.outline, facts=facts))
        return Annotated(self.truth.name, tuple(objects), self.truth.size, key=self.truth.key)


def counted(boxes: Iterable[JudgedBox]) -> str:
    """How many objects are found and missed, and how many boxes are false, in words."""
    kinds = [box.judged.kind for box in boxes]
    hits, misses, false = (kinds.count(kind) for kind in KINDS)
    return f"{hits} found, {misses} missed, {false} false"


def write_judged(pictures: Sequence[JudgedPicture], truth: Truth, folder: str | Path) -> list[Path]:
    """Write all pictures' boxes as `boxes.coco.json` and `boxes.csv`; the explanations that they name are saved."""
    numbers = dict(truth.numbers)
    for label in (shown.label for p in pictures for o in p.boxes if (shown := o.judged.answer or o.judged.object)):
        numbers.setdefault(label, max(numbers.values(), default=0) + 1)
    whole = Truth(truth.source, tuple(p.annotated() for p in pictures), numbers)
    rows = [row for p in pictures for row in p.rows()]
    files = {"boxes.coco.json": coco_text(whole).encode(), "boxes.csv": comma_separated(rows, nan="").encode()}
    return write_together({Path(folder) / name: data for name, data in files.items()})


__all__ = ["JudgedBox", "JudgedPicture", "counted", "write_judged"]
