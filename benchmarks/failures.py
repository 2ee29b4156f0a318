"""Which answers look wrong: the audit's score beside the confidence alone, on trained networks."""

from __future__ import annotations

import csv

import numpy as np
import torch
from torch.nn.functional import softmax

import pellucid as pl
from benchmarks.pointing import data_folder, look_of, zoo_of
from benchmarks.reliances import World
from benchmarks.repairs import collection
from benchmarks.report import Row, Section, at_least, single
from pellucid.audit.failures import failure_score, paired_areas
from pellucid.audit.review import duplicates
from pellucid.audit.samples import SampleTable, build, reread
from pellucid.media import Pictures, read_folder
from pellucid.models.model import VisionModel

WON = 0.03  # AUROC beyond that of the confidence


def failures(count: int) -> Section:
    """As many pictures of CIFAR-10, and the labelled photographs; each left out where it is not at hand."""
    section = Section(
        "Which answers look wrong",
        "AUROC of the audit's score (cross-fitted, so that no picture scores itself) for wrong answers, beside that of "
        "the soft-max confidence, on the same answers; in brackets the 95 % interval of the difference (paired "
        "bootstrap). For comparison the confidence averaged with that of the mirrored picture, which costs another "
        "forward and is no part of the audit.",
    )
    found = collection()
    if found is not None:
        pixels, truth = (part[:count] for part in found.tested)
        data = World(pixels, truth, found.classes, found.name)
        section.rows += _rows(found.name, *build(found.wrapped(found.start()), data), data)
    photographs = data_folder() / "images" / "imagenet_sample"
    if photographs.is_dir():
        with zoo_of(data_folder()) as zoo:
            labels, (module, info) = zoo.imagenet_labels(), zoo.mobilenet_v2()
        model = pl.wrap(module, transform=look_of(info), labels=labels, scores="softmax")
        pictures = read_folder(photographs)
        settled, samples = build(model, pictures)
        section.rows += _rows("ImageNet photographs, MobileNetV2", settled, _labelled(samples, pictures), pictures)
    section.skipped = "neither CIFAR-10 nor labelled photographs are at hand: set PELLUCID_CIFAR10 and PELLUCID_DATA."
    return section


def _labelled(samples: SampleTable, pictures: Pictures) -> SampleTable:
    """The table with the classes of the list beside the photographs, which are numbers of the network's."""
    with (data_folder() / "images" / "imagenet_sample" / "labels.csv").open(newline="", encoding="utf-8") as file:
        classes = {row["file"]: int(row["class_index"]) for row in csv.DictReader(file)}
    for row, position in enumerate(samples.positions):
        samples.truth[row] = classes[str(pictures.sources[int(position)]).rsplit("/", 1)[-1]]
    return samples


def _rows(name: str, model: VisionModel, samples: SampleTable, pictures: Pictures) -> list[Row]:
    count = f"{len(samples)} pictures, {int(samples.wrong.sum())} answers wrong"
    found = failure_score(samples, duplicates(samples))
    if found is None:
        return [single(f"{name}: score", float("nan"), "", None, f"{count}: too few")]
    twice = _with_mirrored(model, samples, pictures)
    mirrored, alone, gap, low, high = paired_areas(
        -twice, -samples.confidence.astype(float), samples.wrong, np.random.default_rng(0)
    )
    return [
        single(f"{name}: confidence", alone, "", None, count),
        single(f"{name}: score", found.area, ""),
        single(
            f"{name}: score less confidence", found.gap, "", at_least(WON), f"[{found.low:+.3f}, {found.high:+.3f}]"
        ),
        single(f"{name}: with the mirrored picture", mirrored, "", None, f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]"),
    ]


def _with_mirrored(model: VisionModel, samples: SampleTable, pictures: Pictures) -> np.ndarray:
    """The probability of the answer, averaged over each picture and its mirror image."""
    chances = []
    for rows in torch.arange(len(samples)).split(100):
        x = reread(model, pictures, samples, rows.tolist())
        with torch.no_grad():
            said = softmax(model.module(x.flip(-1)), 1)
        chances.append(said[torch.arange(len(rows)), torch.from_numpy(samples.answers[rows])])
    own = samples.probabilities[np.arange(len(samples)), samples.answers]
    return (own.astype(float) + torch.cat(chances).numpy()) / 2
