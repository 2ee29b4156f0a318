"""The suite for tasks other than classes: which detectors, how many photographs, how many masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import detectors, segmenters
from benchmarks.report import Section


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    pictures: int
    streets: int
    masks: tuple[int, ...]


FULL = Size(pictures=85, streets=2, masks=(250, 1000, 5000))
QUICK = Size(pictures=3, streets=1, masks=(250,))


def _boxes(size: Size, _device: str) -> Iterator[Section]:
    contenders = [detectors.Contender("d-rise", masks) for masks in size.masks]
    contenders.append(detectors.Contender("rise", size.masks[0]))
    for name in ("FastestDet", "YOLOX-nano"):
        yield detectors.boxes(name, contenders, size.pictures)


def _regions(size: Size, _device: str) -> Iterator[Section]:
    yield segmenters.regions(size.streets)


TITLE = "Boxes, regions, pairs"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "boxes": _boxes,
    "regions": _regions,
}
