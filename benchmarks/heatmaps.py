"""The suite for heat maps: which measurements, how large, how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import cams, memory, paths, pointing, startup
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


def sections(size: Size, device: str) -> Iterator[Section]:
    """Every section, one after the other as it is done."""
    work: list[Callable[[], Section]] = [
        lambda: startup.processes(size.processes),
        lambda: cams.grad_cam("ResNet-50", size.batch, size.repeats, device),
        lambda: cams.grad_cam("ViT-B/16", size.batch, size.repeats, device),
        lambda: cams.eigen_cam(size.eigen_repeats, device),
        lambda: memory.grad_cam(size.batch, size.children, device),
        lambda: paths.accuracy(size.reference, size.path_repeats, device),
        lambda: memory.path(50, 400, size.children, device),
        lambda: pointing.pointing(size.pictures, device),
    ]
    for measure in work:
        yield measure()
