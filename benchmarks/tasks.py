"""The suite for tasks other than classes: which detectors, how many photographs, how many masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import detectors, people, segmenters
from benchmarks.report import Section


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    pictures: int
    streets: int
    masks: tuple[int, ...]
    matches: int


FULL = Size(pictures=85, streets=2, masks=(250, 1000, 5000), matches=40)
QUICK = Size(pictures=3, streets=1, masks=(250,), matches=6)


def _boxes(size: Size, _device: str) -> Iterator[Section]:
    contenders = [detectors.Contender("d-rise", masks) for masks in size.masks]
    contenders.append(detectors.Contender("rise", size.masks[0]))
    for name in ("FastestDet", "YOLOX-nano"):
        yield detectors.boxes(name, contenders, size.pictures)


def _regions(size: Size, _device: str) -> Iterator[Section]:
    yield segmenters.regions(size.streets)


def _pairs(size: Size, _device: str) -> Iterator[Section]:
    yield people.pairs(size.matches)


TITLE = "Boxes, regions, pairs"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "boxes": _boxes,
    "regions": _regions,
    "pairs": _pairs,
}
