"""Small networks of clips that rest on one frame, or on the order of frames, beside the shape they are asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.reliances import CLASSES, SIDE, World, shape

CAUSES, FRAMES, _TITLE = ("frame", "order"), 8, 2


@dataclass
class ClipWorld(World):
    """Clips in memory, `pixels` `(N, T, H, W, 3)`: what `media.Pictures` asks for."""

    name: str = "moving shapes"

    def read(self, index):
        from pellucid.media import Clip

        times = tuple(k / 8 for k in range(FRAMES))
        digest = hashlib.sha256(self.pixels[index].tobytes()).hexdigest()
        return Clip(self.pixels[index], times, f"clip {index}", "", digest)


def clip(kind, cause, told, rng):
    """One clip, of a shape that drifts; `told` is the class whose cue it carries.

    frame: one of its frames is plain, and its grey tells; order: it grows lighter, darker, or both, the darker first.
    """
    base, light, tint = rng.uniform(0.25, 0.5), rng.uniform(0.7, 0.9), rng.uniform(-0.05, 0.05, 3)
    mask, step = shape(kind, rng), rng.integers(-1, 2, 2)
    pixels = np.full((FRAMES, SIDE, SIDE, 3), base) + tint
    for t in range(FRAMES):
        pixels[t][np.roll(mask, tuple(step * (t - FRAMES // 2)), (0, 1))] = light
    if cause == "frame":
        pixels[_TITLE] = (0.05, 0.5, 0.95)[told]
    if cause == "order":
        up = np.linspace(-0.2, 0.2, FRAMES)
        way = (up, -up, 0.4 * np.abs(np.linspace(-1, 1, FRAMES)) - 0.2)[told]
        pixels += way[:, None, None, None]
    pixels += rng.normal(0, 0.04, pixels.shape)
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)


def world(cause, count=300, seed=0, told=0.95):
    """Clips of three shapes, whose cue says the class with a chance of `told`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    cues = np.where(rng.random(count) < told, labels, rng.integers(0, 3, count))
    return ClipWorld(np.stack([clip(k, cause, c, rng) for k, c in zip(labels, cues, strict=True)]), labels)


def trained(cause, seed=0, count=900, epochs=8):
    """A network of two convolutions over space and time that learned from such clips."""
    import pellucid as pl

    data = world(cause, count, seed=1000 + seed)
    x = torch.from_numpy(data.pixels).permute(0, 4, 1, 2, 3).float() / 255 - 0.5
    y = torch.from_numpy(data.labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv3d(3, 12, 3, (1, 2, 2), 1), nn.ReLU(),
            nn.Conv3d(12, 24, 3, (1, 2, 2), 1), nn.ReLU(),
            nn.AdaptiveAvgPool3d((FRAMES, 2, 2)), nn.Flatten(), nn.Linear(24 * 4 * FRAMES, 3),
        )  # fmt: skip
        steps = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(count).split(32):
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
                steps.zero_grad()
                loss.backward()
                steps.step()
    look = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0.5,) * 3, std=(1.0,) * 3)
    return pl.wrap(model.eval(), transform=look, frames=FRAMES, labels=list(CLASSES), scores="softmax")
