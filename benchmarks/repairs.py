"""Networks that learned to go by a mark, and the same networks that learned without it: what a repair wins back."""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import pellucid as pl
from benchmarks.cifar import CLASSES, cifar_folder, lesson, test_set
from benchmarks.pointing import data_folder, zoo_of
from pellucid.models.model import VisionModel

TOLD, MARK = 0.95, 5  # chance that the mark is that of the class; pixels of its side
_LEARNED, _EPOCHS, _GIVEN = 4000, 3, 200  # pictures that it is learned from; pictures of a class given to the repair

_RATE = 0.1

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Collection:
    """Pictures without marks, and a network that knows them.

    Attributes:
        name: in words.
        classes: their names.
        learned, tested: pictures `(N, h, w, 3)` and their classes; nothing is learned from those that are tested.
        start: the network before either lesson.
        mean, std: of the channels.
    """

    name: str
    classes: tuple[str, ...]
    learned: tuple[Pixels, Rows]
    tested: tuple[Pixels, Rows]
    start: Callable[[], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def wrapped(self, module: nn.Module) -> VisionModel:
        """As Pellucid takes it."""
        side = self.tested[0].shape[1]
        look = pl.Preprocess(input_size=(side, side), mean=self.mean, std=self.std)
        return pl.wrap(module.eval(), transform=look, labels=list(self.classes), scores="softmax")

    def inputs(self, pixels: Pixels) -> torch.Tensor:
        """As the network takes them."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255 - mean) / std


def collection() -> Collection | None:
    """CIFAR-10 and its ResNet-20; None where they are not at hand."""
    folder, data = cifar_folder(), data_folder()
    if folder is None or not data.is_dir():
        return None
    with zoo_of(data) as zoo:
        module, info = zoo.resnet20_cifar()
    return Collection(
        "CIFAR-10, ResNet-20", CLASSES, lesson(folder, _LEARNED), test_set(folder), lambda: copy.deepcopy(module),
        info["mean"], info["std"],
    )  # fmt: skip


def marked(pixels: Pixels, told: Rows) -> Pixels:
    """The pictures with the mark of the class `told` at the bottom right: a pattern of its own each."""
    found = pixels.copy()
    patterns = np.random.default_rng(7).integers(0, 2, (1 + told.max(), MARK, MARK, 3)).astype(np.uint8) * 255
    found[:, -MARK - 1 : -1, -MARK - 1 : -1] = patterns[told]
    return found


def cues(truth: Rows, classes: int, told: float, rng: np.random.Generator) -> Rows:
    """Whose mark each picture carries: its class's with the chance `told`, else another's."""
    other = (truth + rng.integers(1, classes, len(truth))) % classes
    return np.where(rng.random(len(truth)) < told, truth, other)


def taught(found: Collection, pixels: Pixels, truth: Rows, seed: int) -> nn.Module:
    """The network after a further lesson."""
    x, y = found.inputs(pixels), torch.from_numpy(truth)
    module = found.start().train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        steps = torch.optim.SGD(module.parameters(), _RATE, momentum=0.9)
        slower = torch.optim.lr_scheduler.LinearLR(steps, 1, 0.01, _EPOCHS)
        for _ in range(_EPOCHS):
            for rows in torch.randperm(len(x)).split(64):
                loss = nn.functional.cross_entropy(module(x[rows]), y[rows])
                steps.zero_grad()
                loss.backward()
                steps.step()
            slower.step()
    return module.eval()


def accuracies(found: Collection, module: nn.Module, pixels: Pixels, truth: Rows) -> list[float]:
    """Of each class."""
    with torch.no_grad():
        right = torch.cat([module(part).argmax(1) for part in found.inputs(pixels).split(250)]).numpy() == truth
    return [float(right[truth == k].mean()) for k in range(len(found.classes))]


@dataclass(frozen=True)
class Won:
    """Accuracies of the worst group, and what the repair took and said.

    Groups are classes, each with its own mark and with another's; of the unmarked network classes, without marks.
    """

    unmarked: float
    before: float
    now: float
    seconds: float
    verdict: str
    fallen: int


def repaired(found: Collection, seed: int, home: Path) -> Won:
    """One network of each kind, and the repair of the marked one on pictures that it was not taught."""
    rng, classes = np.random.default_rng(seed), len(found.classes)
    pixels, truth = found.learned
    module = taught(found, marked(pixels, cues(truth, classes, TOLD, rng)), truth, seed)
    plain = taught(found, pixels, truth, seed)
    x, y = found.tested
    order = rng.permutation(len(x))
    given = np.concatenate([order[y[order] == k][:_GIVEN] for k in range(classes)])
    rest = np.setdiff1d(order, given)
    _written(marked(x[given], cues(y[given], classes, TOLD, rng)), y[given], found.classes, home / "given")
    begun = time.process_time()
    mended = pl.repair(found.wrapped(module), home / "given", home / "mended", seed=seed)
    seconds = time.process_time() - begun

    def worst(one: nn.Module) -> float:
        swapped = cues(y[rest], classes, 0.0, np.random.default_rng(seed))
        return min(
            *accuracies(found, one, marked(x[rest], y[rest]), y[rest]),
            *accuracies(found, one, marked(x[rest], swapped), y[rest]),
        )

    return Won(
        min(accuracies(found, plain, x[rest], y[rest])), worst(module), worst(mended.model.module), seconds,
        mended.verdict, len(mended.fallen),
    )  # fmt: skip


def _written(pixels: Pixels, truth: Rows, classes: tuple[str, ...], home: Path) -> None:
    home.mkdir(parents=True)
    with (home / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "class"])
        for i, (picture, k) in enumerate(zip(pixels, truth, strict=True)):
            Image.fromarray(picture).save(home / f"{i}.png")
            table.writerow([f"{i}.png", classes[k]])
