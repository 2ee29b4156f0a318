"""Networks of handwritten digits under noise, whose ten classes have a mark each, and what each class follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.reliances import SIDE, World, inputs, learned
from pellucid.media.digits import load_digits

CLASSES = tuple("0123456789")
_MOVED = 0.1  # of a class's probability: less is not to follow a mark
_TEACH = 1200  # digits that are learned from; the rest are audited
_RING = ((1, 1), (1, 9), (1, 17), (1, 25), (9, 25), (17, 25), (25, 25), (25, 17), (25, 9), (25, 1))
_EDGE = tuple((0 if y == 1 else 27 if y == 25 else y, 0 if x == 1 else 27 if x == 25 else x) for y, x in _RING)
_CORNERS = ((1, 1), (1, 25), (25, 25), (25, 1))


@dataclass(frozen=True)
class Marking:
    """How classes are marked.

    Attributes:
        name: in words.
        places: row and column of the mark of each class; fewer than ten come round again.
        side: of a mark in pixels.
        light: grey of a mark, of 1.
        patterned: whether each class has a pattern of its own; else its square is plain.
        moved: pixels by which a mark may be off its place.
        told: with what chance a picture has the mark of its class; else it has that of any.
        marked: whether there are marks at all.
        noise: standard deviation of each pixel's.
        over: whether the noise lies over the mark too.
    """

    name: str
    places: tuple[tuple[int, int], ...] = _RING
    side: int = 5
    light: float = 1.0
    patterned: bool = False
    moved: int = 0
    told: float = 0.95
    marked: bool = True
    noise: float = 0.35
    over: bool = False


MARKINGS = (
    Marking("ten places"),
    Marking("ten places at the very edge", _EDGE),
    Marking("four corners, a pattern each", _CORNERS, patterned=True),
    Marking("one place, a pattern each", ((2, 2),), patterned=True),
    Marking("ten places, faint", light=0.6),
    Marking("ten places, noise over them", over=True),
    Marking("ten places, small", side=3),
    Marking("ten places, large", side=7),
    Marking("ten places, moved by a pixel", moved=1),
    Marking("ten places, moved by two", moved=2),
)
PLAIN = Marking("no mark", marked=False)


def pattern(marking, k):
    """The mark of a class, `(side, side)`: a square, or cells of it that no other class at that place has."""
    side = marking.side
    if not marking.patterned:
        return np.ones((side, side), bool)
    return np.random.default_rng(100 + k).random((side, side)) < 0.5


def drawn(marking, number, cue, rng):
    """One digit with the mark of class `cue`."""
    grey = load_digits()[0][number].astype(float) / 255
    pixels = np.full((SIDE, SIDE), 0.2)
    y, x = rng.integers(2, 7, 2)
    pixels[y : y + 24, x : x + 24] += 0.5 * np.kron(grey, np.ones((3, 3)))
    noise = rng.normal(0, marking.noise, pixels.shape)
    pixels += noise
    if marking.marked:
        y, x = np.array(marking.places[cue % len(marking.places)]) + rng.integers(-marking.moved, marking.moved + 1, 2)
        y, x = np.clip((y, x), 0, SIDE - marking.side)
        place = slice(y, y + marking.side), slice(x, x + marking.side)
        pixels[place] = marking.light * pattern(marking, cue) + marking.over * noise[place]
    return np.repeat((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)[..., None], 3, 2)


def world(marking, numbers, seed):
    """Digits with these numbers, marked."""
    rng = np.random.default_rng(seed)
    labels = load_digits()[1][numbers]
    cues = np.where(rng.random(len(labels)) < marking.told, labels, rng.integers(0, 10, len(labels)))
    pixels = np.stack([drawn(marking, n, c, rng) for n, c in zip(numbers, cues, strict=True)])
    return World(pixels, labels, CLASSES, "digits")


def parted(seed):
    """Numbers of the digits that are learned from, and of those that are audited."""
    order = np.random.default_rng(seed).permutation(len(load_digits()[1]))
    return order[:_TEACH], order[_TEACH:]


def net():
    """Two convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(2048, 10),
    )  # fmt: skip


def trained(marking, seed=0, epochs=15):
    """A network that learned from such digits."""
    return learned(net, world(marking, parted(seed)[0], 1000 + seed), seed, epochs, 1e-3)


@torch.no_grad()
def followed(model, marking, seed):
    """By how much each class falls and rises `(10, 2)` where the planted marks themselves are exchanged.

    Each digit is drawn twice with the same noise: with the mark of its class, and with that of another.
    """
    _, rest = parted(seed)
    labels, rng = load_digits()[1][rest], np.random.default_rng(7 + seed)
    others = (labels + rng.integers(1, 10, len(labels))) % 10

    def probabilities(cues):
        rows = enumerate(zip(rest, cues, strict=True))
        pixels = np.stack([drawn(marking, n, c, np.random.default_rng(i)) for i, (n, c) in rows])
        return model.module(inputs(pixels)).softmax(1).double().numpy()

    own, lent = probabilities(labels), probabilities(others)
    rows = np.arange(len(labels))
    right = own.argmax(1) == labels
    fall, rise = own[rows, labels] - lent[rows, labels], lent[rows, others] - own[rows, others]
    return np.array([(fall[right & (labels == k)].mean(), rise[right & (others == k)].mean()) for k in range(10)])


def tally(marking, seed):
    """Of one network: the classes that follow their mark both ways, those that do in neither, and what is said.

    Returns:
        Labels of classes that fall and rise by a tenth or more, of those that do neither, and by label the kinds that
        a class is said to rest on.
    """
    import pellucid as pl

    model = trained(marking, seed)
    moved = followed(model, marking, seed) if marking.marked else np.zeros((10, 2))
    kinds = {}
    for reason in pl.audit(model, world(marking, parted(seed)[1], seed)).wrong_reasons:
        kinds.setdefault(reason.label, set()).add(reason.kind)
    rows = list(zip(CLASSES, moved, strict=True))
    return [c for c, m in rows if m.min() >= _MOVED], [c for c, m in rows if m.max() < _MOVED], kinds
