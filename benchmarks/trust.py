"""The suite for `check()` itself: which networks, how many pictures and blind maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import blind, broken, chosen, sequential
from benchmarks.report import Section


@dataclass(frozen=True)
class Size:
    """How much work to spend.

    Attributes:
        pictures: with a pattern. draws: of blind maps of each kind, for a picture. seeds: sets of masks.
        photographs: of the embedded network; twice as many of ResNet-20.
        broken: pictures of each network of `broken`.
        rows: a file to which each broken picture's row goes; what it holds is not measured again.
    """

    pictures: int
    draws: int
    seeds: int
    photographs: int
    broken: tuple[int, int, int, int]
    rows: str = ""


FULL = Size(pictures=20, draws=10, seeds=20, photographs=8, broken=(20, 60, 20, 8))
QUICK = Size(pictures=8, draws=2, seeds=4, photographs=5, broken=(6, 6, 6, 2))


def _planted(size: Size, _device: str) -> Iterator[Section]:
    yield from blind.truths(size.pictures, size.draws, size.seeds)


def _cifar(size: Size, _device: str) -> Iterator[Section]:
    yield blind.photographs("ResNet-20", 2 * size.photographs, size.draws, max(3, size.seeds // 6))


def _embedded(size: Size, _device: str) -> Iterator[Section]:
    yield blind.photographs("EfficientNet-Lite0", size.photographs, size.draws, max(2, size.seeds // 10))


def _broken(size: Size, _device: str) -> Iterator[Section]:
    yield from broken.sections(dict(zip(broken.NETWORKS, size.broken, strict=True)), size.rows)


def _sequential(size: Size, _device: str) -> Iterator[Section]:
    yield sequential.section(30 if size is FULL else 10)


def _chosen(size: Size, _device: str) -> Iterator[Section]:
    yield chosen.section(2 * size.photographs if size is FULL else 4)


TITLE = "Whether check() may be believed"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "planted": _planted,
    "cifar": _cifar,
    "embedded": _embedded,
    "broken": _broken,
    "sequential": _sequential,
    "auto": _chosen,
}
