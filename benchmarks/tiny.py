"""The smallest model that has a layer to explain, quick or slow, and what is asked of it."""

from __future__ import annotations

import time

import torch
from torch import nn

import pellucid as pl
from pellucid.heatmaps import get_method
from pellucid.models.targets import as_target
from pellucid.verbs.explain import ExplainRequest

_A_PICTURE = 0.02  # seconds


class Dot(nn.Module):
    """One convolution and a head, which may take its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()), nn.Linear(4, 3)
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of three classes."""
        time.sleep(self.seconds * len(x))
        found: torch.Tensor = self.head(self.body(x).mean((2, 3)))
        return found


def dot() -> pl.VisionModel:
    """The quick one."""
    return _wrapped(Dot())


def slow() -> pl.VisionModel:
    """The slow one."""
    return _wrapped(Dot(_A_PICTURE))


def _wrapped(net: Dot) -> pl.VisionModel:
    look = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(net.eval(), transform=look, labels=["a", "b", "c"])


def asked() -> ExplainRequest:
    """Grad-CAM of the top class."""
    return ExplainRequest(method=get_method("grad-cam"), target=as_target("top"))
