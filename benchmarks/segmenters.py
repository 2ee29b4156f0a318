"""Maps of regions on real weights: a segmentation network of streets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time

import torch
from torch import nn

import pellucid as pl
from benchmarks.pointing import data_folder, zoo_of
from benchmarks.report import Row, Section, single
from pellucid.evaluation.boxes import energy_inside, instance_curves, mask_overlap
from pellucid.heatmaps import get_method

_STREETS = Path("images") / "driving"
_TARGETS = ("region:road", "region:car", "region:sidewalk")
_CHEAP = ("seg-xres-cam", "saliency")


class Streets(nn.Module):
    """ESPNet on RGB in [0, 1]: it was trained on blue, green, red, normalised as bytes and then divided by 255."""

    def __init__(self, module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores `(N, classes, h, w)`."""
        scores: torch.Tensor = self.module((x.flip(1) * 255 - self.mean) / self.std / 255)
        return scores


def streets(folder: Path) -> pl.VisionModel:
    """ESPNet, as a model of regions."""
    with zoo_of(folder) as zoo:
        module, info = zoo.espnet()
    size = info["size"]
    transform = pl.Preprocess(input_size=size, resize=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = Streets(module, info["mean"], info["std"])
    return pl.wrap(net.eval(), transform=transform, labels=info["labels"], task="regions", name="ESPNet")


def rows(model: pl.VisionModel, picture: Path, *, dear: bool) -> Iterator[Row]:
    """A row for each method and region of one frame."""
    methods = [get_method(name) for name in ("seg-grad-cam", *_CHEAP)]
    methods.append(get_method("occlusion", window=64, stride=64))
    session = None
    for method in (m for m in methods if dear or m.name in _CHEAP):
        start = process_time()
        maps = pl.explain(model, picture, method, list(_TARGETS))
        seconds = (process_time() - start) / len(_TARGETS)
        for e, target in zip(maps, _TARGETS, strict=True):
            session = e.session = session or e.session  # what was masked for one map serves the others
            values, region = e.heatmap()[0], e.extras["region"][0]
            curves = instance_curves(e)
            note = (
                f"{energy_inside(values, region):.0%} of the evidence in the region, which is "
                f"{region.float().mean():.1%} of the picture; IoU of the strongest places with it "
                f"{mask_overlap(values, region):.2f}; {seconds:.1f} s of processor time"
            )
            what = f"{picture.stem.split('_')[2]}, {target}, {method.name}: insertion less deletion"
            yield single(what, curves["insertion"] - curves["deletion"], "", note=note)


def regions(count: int, dear: int) -> Section:
    """Insertion less deletion of maps of regions, and the share of the evidence inside of them.

    Args:
        count: of frames.
        dear: how many of them are explained by the methods that take long, too.
    """
    section = Section("Regions of ESPNet", "")
    folder = data_folder()
    if not (folder / _STREETS).is_dir() or not (folder / "code" / "zoo.py").is_file():
        section.skipped = "no folder of streets and weights: set PELLUCID_DATA to one."
        return section
    model = streets(folder)
    for number, picture in enumerate(sorted((folder / _STREETS).glob("*.jpg"))[:count]):
        section.rows += rows(model, picture, dear=number < dear)
    section.about = (
        "Frames of Cityscapes, 1024 x 512; the score is the mean of the class's logit over its region, so "
        "that areas of two regions do not compare. The regions of a frame are explained in one call; the first of all "
        f"pays for finding the layer. seg-grad-cam and occlusion run on the first {dear} alone."
    )
    return section
