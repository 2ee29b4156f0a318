"""The pointing game on real weights and pictures: does the map's peak lie in the object's box?

Zhang et al. 2016, arXiv:1608.00507, without their margin of 15 pixels.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pellucid as pl
from benchmarks.report import Section, single

_NETWORKS = ("resnet50", "mobilenet_v2")


@dataclass(frozen=True)
class Labelled:
    """A picture, its class, and the object's box in its pixels."""

    path: Path
    label: int
    size: tuple[int, int]
    box: tuple[float, float, float, float]

    def hit(self, x: float, y: float) -> bool:
        """Whether a point lies in the box."""
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom

    @property
    def share(self) -> float:
        """The box's share of the picture: how often a random point lies in it."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top) / (self.size[0] * self.size[1])


def data_folder() -> Path:
    """Where real data would be."""
    root = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("PELLUCID_DATA") or root.parent / "shared" / "data")


def cifar_network(name: str) -> tuple[Any, dict[str, Any], torch.Tensor]:
    """A network of CIFAR-10, what is known of it, and 500 test pictures as it takes them, `(500, 3, 32, 32)`."""
    folder = data_folder()
    with zoo_of(folder) as zoo:
        module, info = getattr(zoo, name)()
    with np.load(folder / "images" / "cifar10_test_500.npz") as stored:
        pictures = torch.as_tensor(stored["x"])
    upright = pictures if pictures.shape[1] == 3 else pictures.permute(0, 3, 1, 2)
    mean, std = (torch.tensor(info[key])[:, None, None] for key in ("mean", "std"))
    return module, info, (upright.float() / 255 - mean) / std


def boxed_pictures(folder: Path, count: int) -> list[Labelled]:
    """`count` of the pictures that have a box, evenly out of the list."""
    images = folder / "images" / "imagenet_sample"
    with (images / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["x1"]]
    picked = rows[:: max(1, len(rows) // count)][:count]
    return [
        Labelled(
            images / row["file"],
            int(row["class_index"]),
            (int(row["width"]), int(row["height"])),
            (float(row["x1"]), float(row["y1"]), float(row["x2"]), float(row["y2"])),
        )
        for row in picked
    ]


def look_of(info: dict[str, Any]) -> pl.Preprocess:
    """How a network of the zoo is shown a photograph: scaled, and its middle cut out."""
    side = info["size"]
    return pl.Preprocess(
        input_size=(side, side), resize=info["resize"], fit="cover", mean=info["mean"], std=info["std"]
    )


@contextmanager
def zoo_of(folder: Path) -> Iterator[Any]:
    """The folder's own constructors of models."""
    sys.path.insert(0, str(folder / "code"))
    try:
        yield import_module("zoo")
    finally:
        sys.path.remove(str(folder / "code"))


def _peak(picture: Labelled, model: pl.VisionModel) -> tuple[bool, bool]:
    """Whether the peak lies in the box, and whether the class was recognised."""
    found = pl.explain(model, picture.path, "grad-cam", picture.label)
    heat = found.heatmap()[0].nan_to_num(-torch.inf)
    y, x = divmod(int(heat.argmax()), heat.shape[1])
    return picture.hit(x + 0.5, y + 0.5), found.prediction[0].index == picture.label


def pointing(count: int, device: str) -> Section:
    """Grad-CAM's hits beside the picture's centre and a random point."""
    section = Section("Pointing game", "")
    folder = data_folder()
    if not (folder / "code" / "zoo.py").is_file() or not (folder / "images" / "imagenet_sample").is_dir():
        section.skipped = "no folder of labelled pictures and weights: set PELLUCID_DATA to one."
        return section
    pictures = boxed_pictures(folder, count)
    with zoo_of(folder) as zoo:
        labels = zoo.imagenet_labels()
        built = {name: getattr(zoo, name)() for name in _NETWORKS}
    for name, (module, info) in built.items():
        model = pl.wrap(module, transform=look_of(info), labels=labels, name=name, device=device)
        hits, right = zip(*(_peak(p, model) for p in pictures), strict=True)
        note = f"{sum(right)} of {len(pictures)} classified right"
        section.rows.append(single(f"{name}: grad-cam's peak in the box", 100 * sum(hits) / len(hits), " %", note=note))
    centre = [p.hit(p.size[0] / 2, p.size[1] / 2) for p in pictures]
    chance = sum(p.share for p in pictures) / len(pictures)
    section.rows.append(single("the picture's centre in the box", 100 * sum(centre) / len(centre), " %"))
    section.rows.append(single("a random point in the box", 100 * chance, " %", note="expected: the box's share"))
    section.about = (
        f"{len(pictures)} labelled ImageNet pictures with a box around the object, real weights, grad-cam for the true "
        "class: the peak of the map in the original picture's pixels counts if it lies in the box. These pictures are "
        "centred on their object, so the centre is a strong rival; with so few pictures one hit is "
        f"{100 / len(pictures):.0f} %."
    )
    return section
