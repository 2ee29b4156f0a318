"""Small video networks with a known truth."""

import torch
from torch import nn

from helpers.nets import seeded


def conv3d(*, channels=6, classes=4, seed=0):
    """Convolutions over time and space, pooling, one linear layer; halves all three axes twice."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv3d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv3d(4, channels, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(channels, classes),
        ).eval(),
        seed,
    )  # fmt: skip


class TimeFirst(nn.Module):
    """Takes (N, T, C, H, W)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        if x.shape[2] != 3:
            raise ValueError(f"expected 3 channels on axis 2, got {x.shape[2]}")
        return self.net(x.movedim(1, 2))


class CNNRNN(nn.Module):
    """Frames folded into the batch, convolutions, then a recurrent layer over time; takes (N, C, T, H, W)."""

    def __init__(self, kind="LSTM", *, sequence=False, classes=4, bidirectional=False):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.rnn = getattr(nn, kind)(8, 10, batch_first=True, bidirectional=bidirectional)
        self.fc = nn.Linear(10 * (1 + bidirectional), classes)
        self.sequence = sequence

    def forward(self, x):
        n, c, t, h, w = x.shape
        z = self.features(x.movedim(2, 1).reshape(n * t, c, h, w)).mean((2, 3)).reshape(n, t, -1)
        out, _ = self.rnn(z)
        return self.fc(out if self.sequence else out[:, -1])


def cnn_rnn(kind="LSTM", **options):
    return seeded(lambda: CNNRNN(kind, **options).eval())


class Tubelets(nn.Module):
    """Tubelets to tokens with `prefix` in front, frames slowest or fastest, and layers that mix channels only."""

    def __init__(self, *, prefix=1, time_fastest=False, channels=8):
        super().__init__()
        self.embed = nn.Conv3d(3, channels, (2, 8, 8), (2, 8, 8))
        self.extra = nn.Parameter(torch.randn(1, prefix, channels))
        self.block = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))
        self.fc = nn.Linear(channels, 3)
        self.time_fastest, self.prefix = time_fastest, prefix

    def forward(self, x):
        t = self.embed(x)
        t = t.flatten(3).movedim(2, 3).flatten(2) if self.time_fastest else t.flatten(2)
        t = torch.cat([self.extra.expand(len(x), -1, -1), t.mT], 1)
        return self.fc((t + self.block(t))[:, self.prefix :].mean(1))


class TwoPathways(nn.Module):
    """As SlowFast: a slow and a fast pathway, joined at the head; takes a list of clips."""

    def __init__(self):
        super().__init__()
        self.slow = nn.Sequential(nn.Conv3d(3, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.ReLU())
        self.fast = nn.Sequential(nn.Conv3d(3, 4, 3, (1, 2, 2), 1), nn.ReLU())
        self.fc = nn.Linear(10, 4)

    def forward(self, clips):
        slow, fast = clips
        return self.fc(torch.cat([self.slow(slow).mean((2, 3, 4)), self.fast(fast).mean((2, 3, 4))], 1))
