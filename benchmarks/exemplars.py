"""Natural exemplars: what a search over a folder costs beside one bare forward pass over it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

import pellucid as pl
from benchmarks.pointing import data_folder
from benchmarks.report import Row, Section, at_most
from benchmarks.timing import paired
from pellucid.features.exemplars import Selection, find_exemplars
from pellucid.features.measures import ByActivation
from pellucid.models.layers import describe

LAYER = "blocks.6"
LARGE = 1000  # pictures of a folder for which the target is meant


def bare(model: pl.VisionModel, files: list[Path]) -> torch.Tensor:
    """Read, prepare and run every picture, in batches, as a plain loop does."""
    batch = model.batch
    scores = []
    with torch.no_grad():
        for start in range(0, len(files), batch):
            pictures = [model.preprocess(pl.read_image(f))[0] for f in files[start : start + batch]]
            scores.append(model.module(torch.stack(pictures).to(model.device)))
    return torch.cat(scores)


def folder_of(files: Sequence[Path], count: int, home: Path) -> list[Path]:
    """`count` different photographs: the files, and beyond them crops of them, written into `home`."""
    chosen, draw = list(files[:count]), random.Random(0)
    while len(chosen) < count:
        with Image.open(files[len(chosen) % len(files)]) as opened:
            picture = opened.convert("RGB")
        width, height = (round(draw.uniform(0.7, 0.95) * n) for n in picture.size)
        left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
        chosen.append(home / f"crop{len(chosen):05}.jpg")
        picture.crop((left, top, left + width, top + height)).resize(picture.size).save(chosen[-1], quality=92)
    return chosen


def search(counts: Sequence[int], repeats: int, device: str) -> Section:
    """All channels of the last block ranked over folders, the nine leading pictures of one shown."""
    section = Section(
        "Natural exemplars",
        f"The embedded model over folders of photographs: every channel of {LAYER} ranked, and nine exemplars of one "
        "with map and crop, beside a plain loop that reads, prepares and runs the pictures, in batches of the same "
        "size. Nothing is cached. The crops and maps cost the same for every folder, so the search of a small one "
        "takes longer in proportion. Photographs beyond the first 300 are crops of these.",
    )
    folder = data_folder() / "images" / "imagenet_sample"
    files = sorted(folder.glob("*.jpg"))
    if not files:
        section.skipped = f"there are no pictures in {folder.name}; PELLUCID_DATA names another data folder."
        return section
    model = pl.load(device=device)
    sample = model.preprocess(pl.read_image(files[0]))[0][None].to(model.device)
    measure = ByActivation(describe(model.module, sample, LAYER))
    for count in counts:
        with TemporaryDirectory() as home:
            section.rows.append(_row(model, folder_of(files, count, Path(home)), measure, repeats, device))
    return section


def _row(model: pl.VisionModel, files: list[Path], measure: ByActivation, repeats: int, device: str) -> Row:
    calls = {
        "search": lambda: find_exemplars(model, files, measure, Selection(units=[5], top=9), cache=False),
        "bare": lambda: bare(model, files),
    }
    found = paired(calls, repeats)
    cpu = found.ratio("search", "bare", "cpu") if device == "cpu" else None
    note = f"{found.seconds('bare').median / len(files) * 1000:.0f} ms a picture for the plain loop"
    limit = at_most(1.1) if len(files) >= LARGE else None
    return Row(
        f"exemplar search : forward pass, {len(files)} pictures", found.ratio("search", "bare"), " x", limit, cpu, note
    )
