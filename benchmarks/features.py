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
    pictures: tuple[int, ...]


FULL = Size(steps=16, heavy_steps=6, views=4, repeats=5, pictures=(300, 1000))
QUICK = Size(steps=8, heavy_steps=3, views=2, repeats=2, pictures=(150,))


def _ascent(size: Size, device: str) -> Iterator[Section]:
    yield synthesis.steps("ResNet-18", size.steps, size.views, size.repeats, device)
    yield synthesis.steps("ViT-B/16", size.heavy_steps, 2, size.repeats, device)


def _exemplars(size: Size, device: str) -> Iterator[Section]:
    yield exemplars.search(size.pictures, min(3, size.repeats), device)


def _sheet(size: Size, device: str) -> Iterator[Section]:
    yield synthesis.sheet(device)


TITLE = "Feature visualisation"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "ascent": _ascent,
    "exemplars": _exemplars,
    "sheet": _sheet,
}
