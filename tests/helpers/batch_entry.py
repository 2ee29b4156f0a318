"""Models that a batch builds in its workers: small, their weights a formula, some of them deadly."""

import os
import signal
import time

import torch
from torch import nn

import pellucid as pl

LABELS = ["one", "two", "three"]


class Small(nn.Module):
    """Two convolutions; may wait a little, or kill its process at a picture that is all but white."""

    def __init__(self, seconds=0.0, deadly=False):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 3)
        self.seconds, self.deadly = seconds, deadly
        with torch.no_grad():
            for k, p in enumerate(self.parameters()):
                n = torch.arange(p.numel(), dtype=torch.float64)
                p.copy_((torch.sin(n * (k + 1.7) * 0.9 + k) / 2).view_as(p))

    def forward(self, x):
        if self.deadly and bool((x.mean((1, 2, 3)) > 0.95).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds * len(x))
        return self.head(self.body(x).mean((2, 3)))


class Counting(Small):
    """Its scores move with every pass that it remembers."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        self.calls += 1
        return super().forward(x) + (self.count + self.calls) * torch.tensor([0.0, 0.1, 0.2])


def _wrapped(net):
    look = pl.Preprocess(input_size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(net.eval(), transform=look, labels=LABELS)


def small():
    """The network."""
    return _wrapped(Small())


def slow():
    """The network, which takes a while for each picture."""
    return _wrapped(Small(seconds=0.02))


def counting():
    """The network whose answers would hang on how often it was asked before."""
    return _wrapped(Counting())


def deadly():
    """The network, which kills its process at a white picture."""
    return _wrapped(Small(deadly=True))
