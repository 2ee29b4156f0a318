"""The suite for feature visualisation: which measurements, how large, how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import exemplars, synthesis
from benchmarks.report import Section


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    steps: int
    heavy_steps: int
    views: int
    repeats: int
    pictures: int


FULL = Size(steps=16, heavy_steps=6, views=4, repeats=5, pictures=300)
QUICK = Size(steps=8, heavy_steps=3, views=2, repeats=2, pictures=150)


def sections(size: Size, device: str) -> Iterator[Section]:
    """Every section, one after the other as it is done."""
    work: list[Callable[[], Section]] = [
        lambda: synthesis.steps("ResNet-18", size.steps, size.views, size.repeats, device),
        lambda: synthesis.steps("ViT-B/16", size.heavy_steps, 2, size.repeats, device),
        lambda: exemplars.search(size.pictures, size.repeats, device),
        lambda: synthesis.sheet(device),
    ]
    for measure in work:
        yield measure()
