"""The suite for heat maps: which measurements, how large, how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import cams, memory, paths, pointing, rules, startup
from benchmarks.report import Section


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    batch: int
    repeats: int
    eigen_repeats: int
    path_repeats: int
    reference: int
    processes: int
    children: int
    pictures: int


FULL = Size(batch=8, repeats=7, eigen_repeats=4, path_repeats=3, reference=1024, processes=5, children=2, pictures=20)
QUICK = Size(batch=2, repeats=4, eigen_repeats=1, path_repeats=1, reference=256, processes=3, children=1, pictures=8)


def _startup(size: Size, device: str) -> Iterator[Section]:
    yield startup.processes(size.processes)


def _cams(size: Size, device: str) -> Iterator[Section]:
    yield cams.grad_cam("ResNet-50", size.batch, size.repeats, device)
    yield cams.grad_cam("ViT-B/16", size.batch, size.repeats, device)
    yield cams.eigen_cam(size.eigen_repeats, device)
    yield memory.grad_cam(size.batch, size.children, device)


def _paths(size: Size, device: str) -> Iterator[Section]:
    yield paths.accuracy(size.reference, size.path_repeats, device)
    yield memory.attention()
    yield memory.path(50, 400, size.children, device)


def _pointing(size: Size, device: str) -> Iterator[Section]:
    yield pointing.pointing(size.pictures, device)


def _rules(size: Size, device: str) -> Iterator[Section]:
    for name in rules.NETWORKS:
        yield rules.cost(name, size.path_repeats)
    yield rules.targets(size.path_repeats)
    yield rules.samples(size.path_repeats)


TITLE = "Heat maps"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "startup": _startup,
    "cams": _cams,
    "paths": _paths,
    "rules": _rules,
    "pointing": _pointing,
}
