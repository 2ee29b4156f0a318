"""Tiny networks for clips `(N, 3, T, H, W)`, one of each family used on video, small enough to train on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_CENTRE, _SPREAD = 0.4, 0.25  # of the pixels 0 to 1 that the networks are given


class _Scaled(nn.Module):
    """Pixels 0 to 1 to about zero mean and unit variance."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - _CENTRE) / _SPREAD


class CNN3D(nn.Sequential):
    """Three 3-D convolutions, the mean over time and space, one linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            _Scaled(),
            nn.Conv3d(3, 8, 3, (1, 2, 2), 1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.Conv3d(8, 16, 3, (1, 2, 2), 1),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.Conv3d(16, 24, 3, (2, 1, 1), 1),
            nn.BatchNorm3d(24),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(24, classes),
        )


class FrameCNN(nn.Sequential):
    """Three 2-D convolutions and the maximum over the places of a frame."""

    def __init__(self, features: int) -> None:
        super().__init__(
            nn.Conv2d(3, 12, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, features, 3, 1, 1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )


class FramePool(nn.Module):
    """The frame network's features, their maximum over the frames, one linear layer: blind to the order of frames."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scaled, self.frames, self.head = _Scaled(), FrameCNN(24), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(N, classes)`."""
        features = self.frames(self.scaled(x).transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
        scores: Tensor = self.head(features.amax(1))
        return scores


class Recurrent(nn.Module):
    """The frame network's features, read by a recurrent layer; one linear layer on its last state."""

    def __init__(self, classes: int, kind: type[nn.LSTM] | type[nn.GRU], hidden: int = 24) -> None:
        super().__init__()
        self.scaled, self.frames = _Scaled(), FrameCNN(24)
        self.memory, self.head = kind(24, hidden, batch_first=True), nn.Linear(hidden, classes)
        with torch.no_grad():  # it starts out remembering, or what lies far apart in time is never compared
            self.memory.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = 2.0

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(N, classes)`."""
        features = self.frames(self.scaled(x).transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
        scores: Tensor = self.head(self.memory(features)[0][:, -1])
        return scores


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VideoViT(nn.Module):
    """Tubelets of 2 frames x 8 x 8 pixels and a class token; joint attention over space and time."""

    def __init__(
        self,
        classes: int,
        frames: int = 16,
        side: int = 32,
        width: int = 48,
        depth: int = 3,
        heads: int = 4,
        tubelet: Sequence[int] = (2, 8, 8),
    ) -> None:
        super().__init__()
        tokens = frames * side**2 // (tubelet[0] * tubelet[1] * tubelet[2])
        self.scaled, self.embed = _Scaled(), nn.Conv3d(3, width, tuple(tubelet), tuple(tubelet))  # type: ignore[arg-type]
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens + 1, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(N, classes)`."""
        patches = self.embed(self.scaled(x)).flatten(2).mT
        tokens = torch.cat([self.first.expand(len(x), -1, -1), patches], 1) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        scores: Tensor = self.head(self.norm(tokens[:, 0]))
        return scores


NETS: dict[str, Callable[[int], nn.Module]] = {
    "cnn3d": CNN3D,
    "cnn-lstm": lambda classes: Recurrent(classes, nn.LSTM),
    "cnn-gru": lambda classes: Recurrent(classes, nn.GRU),
    "per-frame": FramePool,
    "vit": VideoViT,
}
