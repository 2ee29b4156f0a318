"""Natural exemplars: what a search over a folder costs beside one bare forward pass over it."""

from __future__ import annotations

from pathlib import Path

import torch

import pellucid as pl
from benchmarks.pointing import data_folder
from benchmarks.report import Row, Section, at_most
from benchmarks.timing import paired
from pellucid.engine import default_batch
from pellucid.features.exemplars import find_exemplars
from pellucid.features.measures import ByActivation
from pellucid.models.layers import describe

LAYER = "blocks.6"


def bare(model: pl.VisionModel, files: list[Path]) -> torch.Tensor:
    """Read, prepare and run every picture, in batches, as a plain loop does."""
    batch = default_batch(model.device)
    scores = []
    with torch.no_grad():
        for start in range(0, len(files), batch):
            pictures = [model.preprocess(pl.read_image(f))[0] for f in files[start : start + batch]]
            scores.append(model.module(torch.stack(pictures).to(model.device)))
    return torch.cat(scores)


def search(count: int, repeats: int, device: str) -> Section:
    """All channels of the last block ranked over a folder, the nine leading pictures of one shown."""
    section = Section(
        "Natural exemplars",
        f"The embedded model over a folder of {count} photographs: every channel of {LAYER} ranked, and nine exemplars "
        "of one with map and crop, beside a plain loop that reads, prepares and runs the pictures. Nothing is cached.",
    )
    folder = data_folder() / "images" / "imagenet_sample"
    files = sorted(folder.glob("*.jpg"))[:count]
    if not files:
        section.skipped = f"there are no pictures in {folder.name}; PELLUCID_DATA names another data folder."
        return section
    model = pl.load(device=device)
    sample = model.preprocess(pl.read_image(files[0]))[0][None].to(model.device)
    measure = ByActivation(describe(model.module, sample, LAYER))
    calls = {
        "search": lambda: find_exemplars(model, files, measure, units=[5], top=9, cache=False),
        "bare": lambda: bare(model, files),
    }
    found = paired(calls, repeats)
    cpu = found.ratio("search", "bare", "cpu") if device == "cpu" else None
    note = f"{found.seconds('bare').median / len(files) * 1000:.0f} ms a picture for the bare loop"
    section.rows.append(
        Row("exemplar search : forward pass", found.ratio("search", "bare"), " x", at_most(1.1), cpu, note)
    )
    return section
