"""Maps of boxes on real weights and pictures: two small detectors on photographs whose objects are annotated."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import torch

import pellucid as pl
from benchmarks.pointing import data_folder, zoo_of
from benchmarks.report import Section, at_least, at_most, single
from pellucid.evaluation.boxes import box_figures, instance_curves, mean_figures
from pellucid.heatmaps import get_method
from pellucid.models.targets import BoxTarget
from pellucid.truth import Annotated, Annotation, BoxAnswer, class_numbers, judge_boxes

PICTURES = Path("detection") / "voc_cartucho"
_YOLOX = Path("weights") / "yolox_nano" / "yolox_nano.onnx"


@dataclass(frozen=True)
class Contender:
    """A method at one budget; `masks` is how many it may spend at the most."""

    name: str
    masks: int

    def made(self) -> Any:
        """With its budget fixed."""
        return get_method(self.name, samples=self.masks)

    @property
    def title(self) -> str:
        """For the table."""
        return f"{self.name}, {self.masks:,} masks"


def missing(folder: Path, *needed: Path) -> str:
    """Why a section is skipped; empty where all is there."""
    there = all((folder / each).exists() for each in needed)
    return "" if there else "no folder of detectors and annotated photographs: set PELLUCID_DATA to one."


@contextmanager
def loaded(name: str, folder: Path) -> Iterator[pl.VisionModel]:
    """One of the detectors, as a black box."""
    labels = folder / "labels" / "coco80.txt"
    if name == "YOLOX-nano":
        yield pl.load(f"onnx:{folder / _YOLOX}", task="boxes:yolox", labels=labels)
        return
    with zoo_of(folder) as zoo:
        module, info = zoo.fastestdet()

        def answer(batch: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                found: torch.Tensor = module(batch)
            return found

        yield pl.wrap(answer, task="boxes:fastestdet", labels=info["labels"], name=name)


def annotated(folder: Path, count: int) -> list[tuple[Path, Annotated]]:
    """`count` photographs with their objects, evenly out of all."""
    objects: dict[str, list[Annotation]] = {}
    with (folder / PICTURES / "boxes.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            x0, y0, x1, y1 = (float(row[key]) for key in ("x1", "y1", "x2", "y2"))
            ignored = "difficult" if row["difficult"] == "1" else ""
            objects.setdefault(row["file"], []).append(Annotation(row["class"], (x0, y0, x1, y1), ignored=ignored))
    names = sorted(objects)[:: max(1, len(objects) // count)][:count]
    return [(folder / PICTURES / name, Annotated(name, tuple(objects[name]))) for name in names]


def hits(model: pl.VisionModel, path: Path, there: Annotated) -> list[tuple[int, Annotation]]:
    """The number of each box that hits an object, and the object."""
    x, geometry = model.pictures(pl.media.read_image(path))
    (row,) = model.predict(x[None])
    classes = class_numbers(model.labels, {o.label: 0 for o in there.objects})
    called = {number: label for label, number in classes.items()}
    answers = [
        BoxAnswer(k, called.get(p.index, p.label), p.probability, geometry.source_box(p.place or ()))
        for k, p in enumerate(row)
    ]
    judged = judge_boxes(answers, there.objects)
    return [(j.answer.number, j.object) for j in judged if j.answer is not None and j.object is not None]


def boxes(name: str, contenders: Sequence[Contender], pictures: int) -> Section:
    """Pointing game, and insertion less deletion, of the boxes that one detector gets right."""
    section = Section(f"Boxes of {name}", "")
    folder = data_folder()
    if why := missing(folder, PICTURES, _YOLOX, Path("code") / "zoo.py"):
        section.skipped = why
        return section
    rows: dict[str, list[dict[str, float]]] = {c.title: [] for c in contenders}
    count = 0
    with loaded(name, folder) as model:
        for path, there in annotated(folder, pictures):
            found = hits(model, path, there)
            count += len(found)
            if found:
                for title, measured in _measured(model, path, found, contenders, there):
                    rows[title] += measured
    for title, measured in rows.items():
        figures = mean_figures(measured)
        best = title.startswith("d-rise, 250 ")
        point, low, high, _ = figures["pointing"]
        note = f"95 % interval {low:.2f} to {high:.2f}"
        section.rows.append(
            single(f"{title}: peak in the object's box", point, "", at_least(0.96) if best else None, note=note)
        )
        gain, low, high, _ = figures["insertion less deletion"]
        note = f"95 % interval {low:.3f} to {high:.3f}"
        section.rows.append(single(f"{title}: insertion less deletion", gain, "", note=note))
        section.rows.append(single(f"{title}: share of the evidence in the box", figures["energy"][0], ""))
        limit = at_most(1.0) if best else None
        section.rows.append(single(f"{title}: processor time a box", figures["seconds"][0], " s", limit))
    section.about = (
        f"{count} boxes that {name} (a black box) gets right in {pictures} photographs of Pascal VOC: an overlap of "
        "one half, and the right class. All boxes of a picture are explained together and share their masks. The peak "
        "counts if it lies in the annotated object's box. Insertion and deletion are of the box's own score, on the "
        "picture's blur."
    )
    return section


def _measured(
    model: pl.VisionModel,
    path: Path,
    found: Sequence[tuple[int, Annotation]],
    contenders: Sequence[Contender],
    there: Annotated,
) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """Figures of each map of one picture, contender by contender."""
    targets = [BoxTarget(number) for number, _ in found]
    session = None
    for contender in contenders:
        start = process_time()
        maps = pl.explain(model, path, [contender.made()], list(targets))
        seconds = (process_time() - start) / len(found)
        maps = [maps] if isinstance(maps, pl.Heatmap) else maps
        measured = []
        for e, (_, each) in zip(maps, found, strict=True):
            session = e.session = session or e.session  # what was masked for one map serves the others
            others = [o.box for o in there.objects if o.label == each.label and o is not each]
            figures = box_figures(e, each.box, others) | {"seconds": seconds}
            curves = instance_curves(e)
            measured.append(figures | {"insertion less deletion": curves["insertion"] - curves["deletion"]})
        yield contender.title, measured
