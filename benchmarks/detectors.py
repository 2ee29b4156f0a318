"""Maps of boxes on real weights and pictures: two small detectors on photographs whose objects are annotated."""

from __future__ import annotations

import csv
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import process_time
from typing import Any

import torch

import pellucid as pl
from benchmarks.pointing import data_folder, zoo_of
from benchmarks.report import Row, Section, at_least, at_most, single
from pellucid.engine import Cost
from pellucid.evaluation.boxes import box_figures, instance_curves, mean_figures
from pellucid.heatmaps import get_method
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.models.targets import BoxTarget
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze
from pellucid.truth import Annotated, Annotation, BoxAnswer, class_numbers, judge_boxes

PICTURES = Path("detection") / "voc_cartucho"
_YOLOX = Path("weights") / "yolox_nano" / "yolox_nano.onnx"


@dataclass(frozen=True, kw_only=True)
class Bell(PerturbationMethod):
    """A Gaussian over the box that is answered, of half its size: what any map that must lie there begins with."""

    def perturb(self, job: Job) -> list[Attribution]:
        """Drawn, not measured."""
        maps = []
        for target in freeze(job):
            assert isinstance(target, BoxTarget)
            found = []
            for x0, y0, x1, y1 in (box.place for box in target.boxes):
                axes = zip((y0, x0), (y1, x1), job.space, strict=True)
                y, x = (((torch.arange(n) + 0.5 - (a + b) / 2) / (b - a)).square() for a, b, n in axes)
                found.append(torch.exp(-2 * (y[:, None] + x)))
            maps.append(Attribution(torch.stack(found), cost=Cost(forwards=len(job.inputs))))
        return maps


@cache
def bell() -> Bell:
    """Registered once it is asked for, since it is no method of the package."""
    about = {"needs": "outputs, a box", "cost": "none", "paper": "what knows nothing but the box"}
    return method("bell", family="perturbation", **about)(Bell)()


@dataclass(frozen=True)
class Contender:
    """A method with its settings.

    Attributes:
        title: for the table.
        made: the method.
        dear: whether it takes thousands of masks.
        ours: whether the targets are for it.
    """

    title: str
    made: Any
    dear: bool = False
    ours: bool = False


def contenders(windows: int) -> list[Contender]:
    """What is compared; `windows` passes for the quick one."""
    quick = get_method("aise", samples=windows, widths=(0.2,), baseline="blur")
    return [
        Contender(f"aise, {windows} masks a box", quick, ours=True),
        Contender("a bell over the box, no mask", bell()),
        *(
            Contender(f"d-rise, {n:,} masks a picture", get_method("d-rise", samples=n), dear=n > 250)
            for n in (250, 1000, 5000)
        ),
    ]


DETECTORS = {"FastestDet": 80, "YOLOX-nano": 40}
"""How many passes a box its processor time of a second allows."""


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
    with zoo_of(folder) as zoo, tempfile.TemporaryDirectory() as into:
        module, info = zoo.fastestdet()
        file = Path(into) / "fastestdet.onnx"
        shapes = ({0: torch.export.Dim("batch")},)
        example = torch.zeros(2, 3, info["size"], info["size"])
        torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False).save(file)
        yield pl.load(f"onnx:{file}", task="boxes:fastestdet", labels=labels)


def annotated(folder: Path, count: int) -> list[tuple[Path, Annotated]]:
    """`count` photographs with their objects, drawn with a fixed seed, of which fewer are the first."""
    objects: dict[str, list[Annotation]] = {}
    with (folder / PICTURES / "boxes.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            x0, y0, x1, y1 = (float(row[key]) for key in ("x1", "y1", "x2", "y2"))
            ignored = "difficult" if row["difficult"] == "1" else ""
            objects.setdefault(row["file"], []).append(Annotation(row["class"], (x0, y0, x1, y1), ignored=ignored))
    names = random.Random(0).sample(sorted(objects), len(objects))[:count]
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


def boxes(name: str, pictures: int, few: int) -> Section:
    """Pointing game, and insertion less deletion, of the boxes that one detector gets right."""
    section = Section(f"Boxes of {name}", "")
    folder = data_folder()
    if why := missing(folder, PICTURES, _YOLOX, Path("code") / "zoo.py"):
        section.skipped = why
        return section
    all_of_them = contenders(DETECTORS[name])
    rows: dict[str, list[dict[str, float]]] = {c.title: [] for c in all_of_them}
    counts = [0, 0]
    with loaded(name, folder) as model:
        number = 0  # of the photographs with a box that is right
        for path, there in annotated(folder, pictures):
            if found := hits(model, path, there):
                number += 1
                counts = [counts[0] + len(found), counts[1] + len(found) * (number <= few)]
                chosen = [c for c in all_of_them if number <= few or not c.dear]
                for title, measured in _measured(model, path, found, chosen, there):
                    rows[title] += measured
    for contender in all_of_them:
        section.rows += _rows(contender, rows[contender.title])
    ours, most = (rows[c.title][: counts[1]] for c in (all_of_them[0], all_of_them[-1]))
    gain = [
        {"gain": a["insertion less deletion"] - b["insertion less deletion"]} for a, b in zip(ours, most, strict=True)
    ]
    mean, low, high, _ = mean_figures(gain)["gain"]
    what = f"insertion less deletion of {all_of_them[0].title} beyond {all_of_them[-1].title}"
    section.rows.append(single(what, mean, "", at_least(0), note=f"95 % interval {low:.3f} to {high:.3f}"))
    section.about = (
        f"{counts[0]} boxes that {name} (an ONNX file, a black box, one thread) gets right in {pictures} of 85 "
        "photographs of Pascal VOC, drawn with a fixed seed: an overlap of one half, and the right class. What takes "
        f"1,000 masks or more runs on the first {few} with such a box, {counts[1]} boxes. d-rise explains all boxes of "
        "a picture with the same masks, aise each with its own. The peak counts if it lies in the annotated object's "
        "box. Insertion and deletion are of the box's own score, on the picture's blur. The bell says how far a map "
        "comes that knows the box and asks nothing."
    )
    return section


def _rows(contender: Contender, measured: list[dict[str, float]]) -> Iterator[Row]:
    """Its figures, with the targets where they are for it."""
    figures = mean_figures(measured)
    point, low, high, _ = figures["pointing"]
    limit = at_least(0.96) if contender.ours else None
    note = f"95 % interval {low:.2f} to {high:.2f}"
    yield single(f"{contender.title}: peak in the object's box", point, "", limit, note=note)
    gain, low, high, _ = figures["insertion less deletion"]
    note = f"95 % interval {low:.3f} to {high:.3f}"
    yield single(f"{contender.title}: insertion less deletion", gain, "", note=note)
    inside = figures["energy"][0]
    seconds = figures["seconds"][0]
    limit = at_most(1.0) if contender.ours else None
    note = f"{inside:.0%} of the evidence in the box"
    yield single(f"{contender.title}: processor time a box", seconds, " s", limit, note=note)


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
        maps = pl.explain(model, path, [contender.made], list(targets))
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
