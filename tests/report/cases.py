"""Results to report, with no network behind them."""

import numpy as np
import torch
from torch import nn

import pellucid as pl
from helpers.render_cases import CROP, explanation
from pellucid.explanation import Curve, Quality, Record
from pellucid.media import Geometry
from pellucid.results import Heatmap

FINE = Geometry((60, 90), (56, 56), ((0.0, 60.0), (15.0, 75.0)))


def record(method="grad-cam", name="cat"):
    return Record(
        {"name": "net", "source": {"name": "efficientnet-lite0"}, "weights": "0"},
        {"name": name, "source": "sample:cat", "sha256": "0"},
        {"name": method, "parameters": {"layer": None, "per_frame": False}},
        "282",
        {"seed": 0, "forwards": 1, "backwards": 1},
        {},
    )


def heatmap(values, **kwargs):
    kwargs.setdefault("record", record(kwargs.get("method", "grad-cam")))
    return Heatmap(**vars(explanation(values, **kwargs)))


def coarse(seed=0, **kwargs):
    return heatmap(np.random.default_rng(seed).normal(size=(7, 7)), geometry=CROP, **kwargs)


def fine(seed=1, **kwargs):
    return heatmap(np.random.default_rng(seed).normal(size=(56, 56)), geometry=FINE, **kwargs)


def quality(auc=0.8125):
    steps = np.linspace(0, 1, 5).tolist()
    up = Curve(auc, 0.4375, 0.03125, steps, [0.1, 0.7, 0.9, 0.9, 0.9], [0.1, 0.2, 0.5, 0.7, 0.9])
    down = Curve(0.203125, 0.4375, 0.03125, steps, [0.9, 0.2, 0.1, 0.1, 0.1], [0.9, 0.7, 0.5, 0.2, 0.1])
    return Quality("faithful", "faithful: a line", up, down, 0.015625, None, agreement=0.7, p_value=0.0078125)


def tiny():
    """A network that answers at once."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))  # fmt: skip
    look = pl.Preprocess(input_size=(48, 48), mean=(0.5,) * 3, std=(0.2,) * 3)
    return pl.wrap(net.eval(), transform=look, labels=["one", "two", "three"])
