"""A small convolutional network trained on the spot: a teacher for small pictures such as scikit-learn's digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.errors import DataError
from pellucid.interpretable.bcos import train
from pellucid.media.pictures import PictureSet
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess

NAME = "cnn"
_EPOCHS, _LARGEST = 15, 64  # passes over the pictures, and the most pixels a side that it looks at


class SmallCNN(nn.Module):
    """Three convolutions, a mean over places, a linear layer; `(N, 3, H, W) -> (N, classes)`."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        scores: Tensor = self.head(self.features(x).mean((2, 3)))
        return scores


def look(pictures: PictureSet) -> Preprocess:
    """How such a network sees these pictures: whole, at the size of the first, at most 64 pixels a side."""
    height, width = pictures.read(0).pixels.shape[:2]
    scale = min(1.0, _LARGEST / max(height, width))
    size = (max(8, round(height * scale)), max(8, round(width * scale)))
    return Preprocess(input_size=size, resize=size, mean=(0.5,) * 3, std=(0.5,) * 3)


def assemble(classes: list[str], preprocess: Preprocess, state: dict[str, Tensor] | None = None) -> VisionModel:
    """The network with its labels, with given weights or fresh ones."""
    module = SmallCNN(len(classes))
    if state is not None:
        module.load_state_dict(state)
    return VisionModel(module.eval().requires_grad_(False), preprocess, tuple(classes), NAME)


def train_small_cnn(pictures: PictureSet, seed: int = 0) -> VisionModel:
    """Train one on labelled pictures; the global random state is left alone.

    Raises:
        DataError: the pictures have no classes.
    """
    if not len(pictures.labels):
        raise DataError(f"The teacher {NAME!r} is trained on classes, and {pictures.name} has none: name a model.")
    preprocess = look(pictures)
    inputs = torch.stack([preprocess(pictures.read(i))[0] for i in range(len(pictures))])
    answers = torch.eye(len(pictures.classes))[torch.from_numpy(pictures.labels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = assemble(list(pictures.classes), preprocess)
    model.module.requires_grad_(True)
    train(model.module, inputs, answers, epochs=_EPOCHS, rate=3e-3, seed=seed)
    model.module.requires_grad_(False)
    return model
