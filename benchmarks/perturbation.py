"""The suite for perturbation methods and importance: which measurements, how large, how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import black_box, channels, deletion, folder, overhead, score_cam, tokens
from benchmarks.report import Section


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    samples: int
    repeats: int
    vit_repeats: int
    channels: int
    cam_repeats: int
    coalitions: int
    folder: int
    pictures: int
    masks: int


FULL = Size(
    samples=24, repeats=2, vit_repeats=3, channels=128, cam_repeats=2, coalitions=500, folder=8, pictures=10, masks=8000
)  # fmt: skip
QUICK = Size(
    samples=24, repeats=1, vit_repeats=1, channels=16, cam_repeats=1, coalitions=100, folder=4, pictures=1, masks=512
)  # fmt: skip


def _overhead(size: Size, device: str) -> Iterator[Section]:
    yield overhead.overhead("ResNet-50", size.samples, size.repeats, device)
    yield overhead.overhead("ViT-B/16", size.samples, size.vit_repeats, device)


def _tokens(size: Size, device: str) -> Iterator[Section]:
    yield tokens.dropping(104, size.vit_repeats, device)  # KernelSHAP takes two a cell at least, 98


def _cams(size: Size, device: str) -> Iterator[Section]:
    yield channels.tails(min(size.channels, 64) // 2, size.cam_repeats, device)
    yield score_cam.score_cam(size.channels, size.cam_repeats, device)
    yield score_cam.memory(1, device)


def _samples(size: Size, device: str) -> Iterator[Section]:
    yield black_box.coalitions(size.coalitions, size.repeats, device)
    yield black_box.occlusion(size.repeats, device)


def _windows(size: Size, device: str) -> Iterator[Section]:
    yield black_box.windows(size.repeats, device)


def _deletion(size: Size, device: str) -> Iterator[Section]:
    yield deletion.budgets(size.pictures, size.masks, device)


def _importance(size: Size, device: str) -> Iterator[Section]:
    yield channels.importance(min(size.channels, 64) // 2, size.cam_repeats, device)
    yield folder.folder(size.folder, size.cam_repeats, device)


TITLE = "Perturbation methods and importance"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "overhead": _overhead,
    "tokens": _tokens,
    "cams": _cams,
    "samples": _samples,
    "windows": _windows,
    "importance": _importance,
    "deletion": _deletion,
}
