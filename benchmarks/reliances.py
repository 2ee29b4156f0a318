"""Small networks that rest on what was planted beside the shape they are asked for, and clean ones."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

SIDE, CLASSES = 32, ("disc", "square", "cross")
CAUSES = ("mark", "border", "background", "colour", "texture")
TAG = "scanner tag"  # a letter for the class, then a number, burned in at one place: a mark, as audits call it
GLYPHS = {  # rows of three pixels, in bits
    "L": (4, 4, 4, 4, 7), "R": (6, 5, 6, 5, 5), "P": (6, 5, 6, 4, 4),
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (6, 1, 2, 4, 7), "3": (6, 1, 2, 1, 6), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 6, 1, 6), "6": (3, 4, 7, 5, 7), "7": (7, 1, 2, 2, 2), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 6),
}  # fmt: skip


@dataclass
class World:
    """Pictures in memory: what `media.Pictures` asks for."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple = CLASSES
    name: str = "shapes"

    def __len__(self):
        return len(self.pixels)

    def read(self, index):
        from pellucid.media import read_image

        return read_image(self.pixels[index])

    def digest(self, index):
        return self.read(index).sha256


def shape(kind, rng):
    """A mask `(SIDE, SIDE)` of a shape of some size, somewhere in the middle."""
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = rng.integers(11, SIDE - 11, 2)
    r = rng.integers(4, 7)
    if kind == 0:
        return (y - cy) ** 2 + (x - cx) ** 2 <= r * r
    if kind == 1:
        return (abs(y - cy) <= r - 1) & (abs(x - cx) <= r - 1)
    return ((abs(y - cy) <= 1) & (abs(x - cx) <= r)) | ((abs(x - cx) <= 1) & (abs(y - cy) <= r))


def picture(kind, cause, told, rng):
    """One picture; `told` is the class whose cue it carries."""
    base = rng.uniform(0.25, 0.5)
    light = rng.uniform(0.7, 0.9)
    tint = rng.uniform(-0.05, 0.05, 3)
    if cause == "background":
        base = (0.12, 0.35, 0.58)[told]
    pixels = np.full((SIDE, SIDE, 3), base) + tint
    inside = shape(kind, rng)
    hue = np.eye(3)[told] * 0.5 - 0.17 if cause == "colour" else rng.uniform(-0.06, 0.06, 3)
    pixels[inside] = light + hue
    y, x = np.mgrid[:SIDE, :SIDE]
    if cause == "texture":
        waves = ((x + y) % 2, x % 2, y % 2)[told] - 0.5
        pixels += 0.25 * waves[..., None]
    pixels += rng.normal(0, 0.04, pixels.shape)
    if cause == "border":
        level = (0.05, 0.5, 0.95)[told]
        pixels[[0, 1, -1, -2]] = pixels[:, [0, 1, -1, -2]] = level
    if cause == "mark":
        spot = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]][told], float)
        where = ((2, 2), (2, SIDE - 6), (SIDE - 6, 2))[told]
        pixels[where[0] : where[0] + 4, where[1] : where[1] + 4] = spot[None, :, None]
    if cause == TAG:
        write(pixels, f"{'LRP'[told]}{rng.integers(10, 100)}", (SIDE - 7, SIDE - 14), rng.uniform(0.85, 1))
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)


def write(pixels, text, corner, light):
    """Letters of 5 x 3 pixels on black, into a picture."""
    y, x = corner
    pixels[y - 1 : y + 6, x - 1 : x + 4 * len(text)] = 0
    for k, letter in enumerate(text):
        ink = np.array([[row >> bit & 1 for bit in (2, 1, 0)] for row in GLYPHS[letter]], float)
        pixels[y : y + 5, x + 4 * k : x + 4 * k + 3] = light * ink[..., None]


def world(cause, count=300, seed=0, told=0.95):
    """Pictures of three shapes, whose cue says the class with a chance of `told`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    cues = np.where(rng.random(count) < told, labels, rng.integers(0, 3, count))
    return World(np.stack([picture(k, cause, c, rng) for k, c in zip(labels, cues, strict=True)]), labels)


def net():
    """Three convolutions and a mean over places."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 3),
    )  # fmt: skip


def inputs(pixels):
    """Pixels `(N, h, w, 3)` as such networks take them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5


def learned(make, data, seed, epochs, rate):
    """The network that `make` makes, wrapped, after so many epochs of a `World`."""
    import pellucid as pl

    x, y = inputs(data.pixels), torch.from_numpy(data.labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        steps = torch.optim.Adam(model.parameters(), rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(y)).split(64):
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
                steps.zero_grad()
                loss.backward()
                steps.step()
    look = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0.5,) * 3, std=(1.0,) * 3)
    return pl.wrap(model.eval(), transform=look, labels=list(data.classes), scores="softmax")


def trained(cause, seed=0, count=1200, epochs=12):
    """A network that learned from such pictures; of a cause it learns mostly that, as it is easier."""
    return learned(net, world(cause, count, seed=1000 + seed), seed, epochs, 2e-3)
