"""Clips whose truth is known: what decides the class, in which frames and at which places, is drawn in.

Each suite is a question about time, with all else left to chance: backgrounds, places, times, and a distractor that
looks or moves as much as the evidence does but says nothing. Places are drawn on a torus, so that in every single frame
the evidence lies everywhere alike, whatever the class. Everything comes from one seed on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.errors import MediaError
from pellucid.media.address import SCHEMES
from pellucid.media.clip import Footage, FramesInMemory

PREFIX = "suite:"
FRAMES, SIDE = 16, 32
Colour = tuple[float, float, float]
SHOWN_SEED = 2_000_000  # of the clips that `suite:NAME` names: apart from all seeds of training and tests

_GREEN, _RED, _BLUE = (0.1, 0.8, 0.2), (0.9, 0.2, 0.1), (0.15, 0.3, 0.95)
_YELLOW, _CYAN, _VIOLET, _WHITE = (0.95, 0.85, 0.1), (0.1, 0.85, 0.9), (0.7, 0.2, 0.8), (0.95, 0.95, 0.95)


@dataclass
class Batch:
    """Generated clips with their truth.

    Attributes:
        clips: `(N, 3, FRAMES, SIDE, SIDE)`, 0 to 1.
        labels: `(N,)`.
        tubes: `(N, FRAMES, SIDE, SIDE)`, true where the evidence is.
    """

    clips: Tensor
    labels: Tensor
    tubes: Tensor


@dataclass(frozen=True)
class Suite:
    """A question about time.

    Attributes:
        about: what decides the class, in words.
        labels: of the classes.
        draw: paints N clips, `(canvas, classes (N,), generator) -> tubes`.
        ordered: whether the order of the frames decides; then no frame alone says anything.
        reversed: the class of a clip played backwards, for each class.
    """

    about: str
    labels: tuple[str, ...]
    draw: Callable[[Stage, Tensor, torch.Generator], Tensor]
    ordered: bool
    reversed: tuple[int, ...] = (0, 1)


class Stage:
    """N clips to paint on: still, smooth backgrounds of grey with a little noise in each frame."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        coarse = torch.rand(count, 1, 5, 5, generator=generator)
        still = interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
        noise = torch.randn(count, 3, FRAMES, SIDE, SIDE, generator=generator)
        self.clips = 0.25 + 0.3 * still[:, :, None] + 0.02 * noise
        self._axis = torch.arange(SIDE)

    def square(self, rows: Tensor, columns: Tensor, shown: Tensor, colour: Colour, size: int = 6) -> Tensor:
        """Paint a square with its corner at `rows, columns` (N, FRAMES) where `shown`; returns where it is."""
        down = (self._axis - rows[..., None]) % SIDE < size
        along = (self._axis - columns[..., None]) % SIDE < size
        inside = down[..., :, None] & along[..., None, :] & shown[..., None, None]
        self.clips = torch.where(inside[:, None], torch.tensor(colour)[:, None, None, None], self.clips)
        return inside


def _anywhere(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    rows, columns = torch.randint(SIDE, (2, count, 1), generator=generator)
    return rows.expand(-1, FRAMES), columns.expand(-1, FRAMES)


def _between(low: int, high: Tensor | int, count: int, generator: torch.Generator) -> Tensor:
    """Whole numbers in `[low, high)`, `(N, 1)`."""
    return low + (torch.rand(count, 1, generator=generator) * (high - low)).long()


def _during(start: Tensor, length: int) -> Tensor:
    time = torch.arange(FRAMES)
    return (time >= start) & (time < start + length)


def _motion(canvas: Stage, classes: Tensor, generator: torch.Generator) -> Tensor:
    """The green square's few steps to the left or to the right; the red one steps at another time, either way."""
    count, steps, speed = len(classes), 6, 2
    tubes = torch.zeros(0)
    for colour, signs in ((_RED, torch.randint(2, (count,), generator=generator)), (_GREEN, classes)):
        rows, columns = _anywhere(count, generator)
        start = _between(1, FRAMES - steps, count, generator)
        done = (torch.arange(FRAMES) - start + 1).clamp(0, steps)  # it stands still before and after
        places = columns + (2 * signs[:, None] - 1) * speed * done
        inside = canvas.square(rows, places, torch.ones_like(done, dtype=torch.bool), colour)
        tubes = inside & _during(start - 1, steps + 1)[..., None, None]
    return tubes


def _order(canvas: Stage, classes: Tensor, generator: torch.Generator) -> Tensor:
    """Two lights: yellow then cyan, cyan then yellow, or one colour twice, so that neither tells alone.

    Violet lights up at any time.
    """
    count, length, gap = len(classes), 2, 2
    first = _between(1, FRAMES - 2 * length - gap, count, generator)
    second = first + length + _between(gap, FRAMES - first - 2 * length + 1, count, generator)
    twice = torch.randint(2, (count,), generator=generator)
    ahead = torch.where(classes == 2, twice, classes)
    then = torch.where(classes == 2, twice, 1 - ahead)
    canvas.square(
        *_anywhere(count, generator), _during(_between(1, FRAMES - length, count, generator), length), _VIOLET
    )
    return _lights(canvas, (first, second), (ahead, then), (_YELLOW, _CYAN), length, generator)


def _lights(
    canvas: Stage,
    starts: tuple[Tensor, Tensor],
    kinds: tuple[Tensor, Tensor],
    colours: tuple[Colour, Colour],
    length: int,
    generator: torch.Generator,
) -> Tensor:
    """Two lights at two times, each of one of two colours, anywhere."""
    count = len(kinds[0])
    inside = torch.zeros(count, FRAMES, SIDE, SIDE, dtype=torch.bool)
    for start, kind in zip(starts, kinds, strict=True):
        rows, columns = _anywhere(count, generator)
        for k, colour in enumerate(colours):
            inside |= canvas.square(rows, columns, _during(start, length) & (kind == k)[:, None], colour)
    return inside


def _match(canvas: Stage, classes: Tensor, generator: torch.Generator) -> Tensor:
    """Whether a later light has the colour of an earlier one; white lights up at any time."""
    count, length = len(classes), 2
    cue = torch.randint(2, (count,), generator=generator)
    probe = torch.where(classes == 1, cue, 1 - cue)
    first = _between(1, 4, count, generator)
    second = _between(FRAMES // 2, FRAMES - length + 1, count, generator)
    canvas.square(*_anywhere(count, generator), _during(_between(1, FRAMES - length, count, generator), length), _WHITE)
    return _lights(canvas, (first, second), (cue, probe), (_GREEN, _BLUE), length, generator)


def _flash(canvas: Stage, classes: Tensor, generator: torch.Generator) -> Tensor:
    """The colour of a flash of one frame; white flashes too, and a violet square wanders."""
    count = len(classes)
    rows, columns = _anywhere(count, generator)
    everywhere = torch.ones(count, FRAMES, dtype=torch.bool)
    canvas.square(rows, columns + torch.arange(FRAMES), everywhere, _VIOLET)
    canvas.square(*_anywhere(count, generator), _during(_between(1, FRAMES, count, generator), 1), _WHITE)
    rows, columns = _anywhere(count, generator)
    when = _during(_between(1, FRAMES, count, generator), 1)
    red = canvas.square(rows, columns, when & (classes == 0)[:, None], _RED)
    return red | canvas.square(rows, columns, when & (classes == 1)[:, None], _BLUE)


def _still(canvas: Stage, classes: Tensor, generator: torch.Generator) -> Tensor:
    """Whether the stripes that stand in the background lie or stand; a green square wanders over all."""
    count, size = len(classes), 12
    rows, columns = _anywhere(count, generator)
    down = (torch.arange(SIDE) - rows[..., None]) % SIDE
    along = (torch.arange(SIDE) - columns[..., None]) % SIDE
    inside = (down < size)[..., :, None] & (along < size)[..., None, :]
    across = torch.where((classes == 0)[:, None, None, None], down[..., :, None], along[..., None, :])
    stripes = torch.where(across % 4 < 2, 0.85, 0.05)
    canvas.clips = torch.where(inside[:, None], stripes[:, None], canvas.clips)
    rows, columns = _anywhere(count, generator)
    step = torch.randint(2, (count, 1), generator=generator) * 2 - 1
    covered = canvas.square(
        rows, columns + step * torch.arange(FRAMES), torch.ones(count, FRAMES, dtype=torch.bool), _GREEN
    )
    return inside & ~covered


SUITES: dict[str, Suite] = {
    "motion": Suite("the way the green square steps", ("leftward", "rightward"), _motion, True, (1, 0)),
    "order": Suite(
        "which of two lights comes first",
        ("yellow, then cyan", "cyan, then yellow", "one colour twice"),
        _order,
        True,
        (1, 0, 2),
    ),
    "match": Suite("whether two lights, far apart in time, have one colour", ("different", "same"), _match, True),
    "flash": Suite("the colour of a flash of one frame", ("red flash", "blue flash"), _flash, False),
    "static": Suite("how the stripes in the background run", ("lying stripes", "standing stripes"), _still, False),
}
"""Name -> suite; `suite:NAME` names its first clip, `suite:NAME:7` its eighth."""


def suite(name: str) -> Suite:
    """A suite by name, with or without the prefix; `MediaError` with near misses if there is none."""
    short = name.removeprefix(PREFIX)
    if short not in SUITES:
        near = get_close_matches(short, SUITES, n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise MediaError(f"There is no suite {short!r}: {hint}The suites are {', '.join(SUITES)}.")
    return SUITES[short]


def draw(name: str, count: int, seed: int) -> Batch:
    """`count` clips of a suite, the classes in turn. The same seed draws the same clips everywhere."""
    chosen = suite(name)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(chosen.labels)
    canvas = Stage(count, generator)
    tubes = chosen.draw(canvas, labels, generator)
    return Batch(canvas.clips.clamp(0, 1), labels, tubes)


@dataclass(frozen=True, eq=False)
class GeneratedClip:
    """One clip as people see it, with its truth.

    Attributes:
        frames: `(FRAMES, SIDE, SIDE, 3)` uint8.
        label: the class, and `labels` the names of all.
        tube: `(FRAMES, SIDE, SIDE)`, true where the evidence is.
        name, source, sha256: as of a `Picture`.
        rate: frames a second, for showing.
    """

    frames: NDArray[np.uint8]
    label: int
    labels: tuple[str, ...]
    tube: NDArray[np.bool_]
    name: str
    source: str
    sha256: str
    rate: float = 8.0


def clip(source: str) -> GeneratedClip:
    """The clip that `suite:NAME` or `suite:NAME:NUMBER` names; numbers count through the classes in turn."""
    name, _, number = source.removeprefix(PREFIX).partition(":")
    chosen = suite(name)
    if number and not (number.isdecimal() and int(number) < 10_000):
        raise MediaError(f"{source!r} names no clip: write {PREFIX}{name} or {PREFIX}{name}:NUMBER, 0 to 9999.")
    index = int(number or 0)
    turn, at = divmod(index, len(chosen.labels))
    batch = draw(name, len(chosen.labels), SHOWN_SEED + turn)
    pixels = (batch.clips[at] * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()
    return GeneratedClip(
        pixels,
        int(batch.labels[at]),
        chosen.labels,
        batch.tubes[at].numpy(),
        f"{name}-{index}",
        f"{PREFIX}{name}:{index}",
        sha256(pixels.tobytes()).hexdigest(),
    )


def footage(source: str) -> Footage:
    """The clip of `clip`, to be sampled like any other."""
    made = clip(source)
    times = [t / made.rate for t in range(len(made.frames))]
    return FramesInMemory(made.frames, times, name=made.name, source=made.source, digest=made.sha256)


SCHEMES[PREFIX.removesuffix(":")] = footage
