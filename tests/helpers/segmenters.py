"""A planted segmenter: the class of each place by its brightest channel, every score exact."""

import torch
from torch import nn

LABELS = ("ground", "red", "blue")
GROUND, RED, BLUE = 0.25, 0.8, 0.6


class Planted(nn.Module):
    """Scores `(N, 3, h, w)`: a constant for the ground, the first channel for red, the third for blue."""

    def forward(self, x):
        return torch.stack([torch.full_like(x[:, 0], GROUND), x[:, 0], x[:, 2]], 1)


def scene():
    """Black `(1, 3, 16, 24)`: red pieces of 6 x 4 at x 2, y 3 and of 2 x 2 at 20, 12; a blue one of 5 x 5 at 12, 4."""
    x = torch.zeros(1, 3, 16, 24)
    x[0, 0, 3:7, 2:8] = RED
    x[0, 0, 12:14, 20:22] = RED / 2
    x[0, 2, 4:9, 12:17] = BLUE
    return x


class Busy(nn.Module):
    """A small dense network that counts its passes, replaces a buffer, writes to its input, and may fail on the way."""

    error, at, calls = None, 0, 0

    def __init__(self):
        super().__init__()
        self.count = 0
        self.register_buffer("seen", torch.zeros(3))
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU())
        self.head = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(self, x):
        Busy.calls += 1
        self.count += 1
        self.seen = x.detach().mean((0, 2, 3))
        torch.rand(2)
        if Busy.calls == Busy.at:
            raise Busy.error
        x.mul_(0.5)
        return {"out": self.head(self.body(x * 2))}
