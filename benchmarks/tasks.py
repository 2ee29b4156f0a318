"""The suite for tasks other than classes: which detectors, how many photographs, how many masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import detection_cost, detectors, people, segmenters
from benchmarks.report import Section


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    pictures: int  # of a detector
    few: int  # of these, for what takes thousands of masks
    streets: int
    few_streets: int  # of these, for the methods that take long
    matches: int
    masks: int  # of what is timed


FULL = Size(pictures=85, few=85, streets=2, few_streets=2, matches=40, masks=5000)
QUICK = Size(pictures=8, few=2, streets=2, few_streets=1, matches=40, masks=192)


def _boxes(size: Size, _device: str) -> Iterator[Section]:
    for name in detectors.DETECTORS:
        yield detectors.boxes(name, size.pictures, size.few)


def _cost(size: Size, _device: str) -> Iterator[Section]:
    yield detection_cost.cost(size.masks)


def _regions(size: Size, _device: str) -> Iterator[Section]:
    yield segmenters.regions(size.streets, size.few_streets)


def _pairs(size: Size, _device: str) -> Iterator[Section]:
    yield people.pairs(size.matches)


TITLE = "Boxes, regions, pairs"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "boxes": _boxes,
    "cost": _cost,
    "regions": _regions,
    "pairs": _pairs,
}
