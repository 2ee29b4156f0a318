"""Pictures and networks whose truth is known by algebra: what each place adds to the score is written down, not found.

The networks are set by hand: detectors of a colour, place by place, and a rule for what they find. Each picture also
holds what looks as much like evidence and is none: a ring of another colour, with more edges than the evidence has. So
an edge detector is led astray, and a map is right only as far as it follows the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pellucid.errors import MediaError
from pellucid.evaluation.suites.textures import TextureDetectors, stripes

SIDE = 48  # pixels
_GREEN, _BLUE, _RED, _MARK = (0.1, 0.8, 0.2), (0.1, 0.2, 0.85), (0.9, 0.15, 0.1), (0.85, 0.1, 0.8)
_TEAL = (0.0, 0.9, 0.9)
_SHARP = 8.0  # of a detector: how fast it rises above what greys and other colours reach


@dataclass
class PlantedPictures:
    """Pictures with their truth.

    Attributes:
        pictures: `(N, 3, SIDE, SIDE)`, 0 to 1.
        oracle: `(N, SIDE, SIDE)`: what each place adds to the score; where a rule joins places, their Shapley values.
        masks: `(N, SIDE, SIDE)`, true where the evidence for the class is.
    """

    pictures: Tensor
    oracle: Tensor
    masks: Tensor


class ColourDetectors(nn.Module):
    """How much of a place has each colour, joined to the score of class 1; class 0 has the score 0.

    Args:
        colours: that are looked for.
        weights: of what is found, one for each colour; None: both must be there, and the weaker one counts.
        gain, offset: of the score: `gain (sum - offset)`.
        enough: places of a colour from which on more of it adds nothing, for a rule that joins colours.
    """

    def __init__(
        self, colours: tuple[tuple[float, ...], ...], weights: tuple[float, ...] | None, gain: float, offset: float
    ) -> None:
        super().__init__()
        self.find = nn.Conv2d(3, len(colours), 1)
        bias = self.find.get_parameter("bias")
        with torch.no_grad():
            for k, colour in enumerate(colours):
                direction = torch.tensor(colour) - sum(colour) / 3
                direction = direction / direction.norm()
                self.find.weight[k] = _SHARP * direction[:, None, None]
                bias[k] = -_SHARP * 0.8 * float(direction @ torch.tensor(colour))
        self.weights, self.gain, self.offset = weights, gain, offset

    def found(self, x: Tensor) -> Tensor:
        """`(N, colours, SIDE, SIDE)`, 0 where a place has not the colour."""
        found: Tensor = self.find(x).relu()
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 2)`."""
        each = self.found(x).mean((2, 3)) * 100
        total = each.amin(1) if self.weights is None else (each * torch.tensor(self.weights).to(each)).sum(1)
        score = self.gain * (total - self.offset)
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def truth(self, x: Tensor) -> Tensor:
        """What each place adds to the score `(N, SIDE, SIDE)`, by algebra.

        For the weaker of two colours that must both be there, each colour as a whole has the same Shapley value, half
        of the weaker one; within a colour it is shared in proportion.
        """
        with torch.no_grad():
            found = self.found(x)
            each = found.mean((2, 3), keepdim=True) * 100
            if self.weights is None:
                share = found / found.sum((2, 3), keepdim=True).clamp(min=1e-12)
                return self.gain * (share * each.amin(1, keepdim=True) / len(found[0])).sum(1)
            scaled = found * torch.tensor(self.weights).to(found)[:, None, None]
            return self.gain * scaled.sum(1) * 100 / (SIDE * SIDE)


@dataclass(frozen=True)
class PictureSuite:
    """A question with its network.

    Attributes:
        about: what decides, in words.
        model: the network.
        draw: paints N pictures: `(canvas (N, 3, SIDE, SIDE), generator)`; what lies where follows from the network.
    """

    about: str
    model: Callable[[], ColourDetectors | TextureDetectors]
    draw: Callable[[Tensor, torch.Generator], None]


def _canvas(count: int, generator: torch.Generator) -> Tensor:
    coarse = torch.rand(count, 1, 6, 6, generator=generator)
    grey = interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    canvas = 0.3 + 0.3 * grey + 0.03 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    for k in range(count):  # the ring that says nothing
        _disc(canvas[k], _RED, _spot(generator), 7.0, inner=4.0)
    return canvas


def _spot(generator: torch.Generator, margin: int = 7) -> tuple[float, float]:
    row, column = (margin + torch.rand(2, generator=generator) * (SIDE - 2 * margin)).tolist()
    return row, column


def _disc(
    picture: Tensor, colour: tuple[float, ...], at: tuple[float, float], radius: float, inner: float = -1.0
) -> None:
    axis = torch.arange(SIDE) + 0.5
    away = ((axis[:, None] - at[0]) ** 2 + (axis - at[1]) ** 2).sqrt()
    soft = (radius - away + 0.5).clamp(0, 1) * (away - inner).clamp(0, 1)
    picture += soft * (torch.tensor(colour)[:, None, None] - picture)


def _single(canvas: Tensor, generator: torch.Generator) -> None:
    for picture in canvas:
        _disc(picture, _GREEN, _spot(generator), 5.0)


def _both(canvas: Tensor, generator: torch.Generator) -> None:
    for picture in canvas:
        left, right = _spot(generator), _spot(generator)
        _disc(picture, _GREEN, (left[0], left[1] / 2), 5.0)
        _disc(picture, _BLUE, (right[0], SIDE / 2 + right[1] / 2), 4.0)


def _scales(canvas: Tensor, generator: torch.Generator) -> None:
    for k, picture in enumerate(canvas):
        share = 0.02 * 30 ** (k / max(1, len(canvas) - 1))  # of the picture: 2 % to 60 %
        radius = SIDE * (share / torch.pi) ** 0.5
        _disc(picture, _GREEN, _spot(generator, margin=int(min(radius, SIDE / 2 - 1))), radius)


def _watermark(canvas: Tensor, generator: torch.Generator) -> None:
    for picture in canvas:
        _disc(picture, _GREEN, _spot(generator, margin=14), 7.0)  # what people would look at
        _disc(picture, _MARK, (6.0, 6.0), 4.0)


def _striped(canvas: Tensor, generator: torch.Generator) -> None:
    for picture in canvas:
        left, right = _spot(generator, margin=16), _spot(generator, margin=16)
        for at, lines in (
            ((left[0], left[1] / 2), stripes(SIDE)),
            ((right[0], SIDE / 2 + right[1] / 2), stripes(SIDE).T),
        ):
            whole = torch.full((3, SIDE, SIDE), 0.5) + 0.3 * lines
            inside = torch.zeros(3, SIDE, SIDE)
            _disc(inside, (1.0, 1.0, 1.0), at, 8.0)
            picture.lerp_(whole, inside)


def _suppressed(canvas: Tensor, generator: torch.Generator) -> None:
    for picture in canvas:
        left, right = _spot(generator), _spot(generator)
        _disc(picture, _GREEN, (left[0], left[1] / 2), 5.0)
        _disc(picture, _TEAL, (right[0], SIDE / 2 + right[1] / 2), 6.0)


def _suppressing() -> ColourDetectors:
    """Teal is found as green and as blue alike, and the one takes away what the other has added."""
    return ColourDetectors(((0.1, 0.7, 0.4), (0.1, 0.4, 0.7)), (1.0, -1.0), 1.2, 3.0)


SUITES: dict[str, PictureSuite] = {
    "single": PictureSuite("how much green there is", lambda: ColourDetectors((_GREEN,), (1.0,), 1.2, 2.5), _single),
    "and": PictureSuite(
        "whether green and blue are both there: the one that is less",
        lambda: ColourDetectors((_GREEN, _BLUE), None, 2.5, 1.0),
        _both,
    ),
    "conflict": PictureSuite(
        "whether there is more green, which speaks for it, than blue, which speaks against it",
        lambda: ColourDetectors((_GREEN, _BLUE), (1.0, -0.5), 1.2, 1.5),
        _both,
    ),
    "scale": PictureSuite(
        "how much green there is, 2 to 60 % of the picture",
        lambda: ColourDetectors((_GREEN,), (1.0,), 0.15, 5.0),
        _scales,
    ),
    "suppressor": PictureSuite(
        "how much green there is; teal is seen as green and as blue, which cancel, so it adds nothing",
        _suppressing,
        _suppressed,
    ),
    "texture": PictureSuite(
        "how much of it has upright stripes; a disc of the same size and colours has level ones",
        TextureDetectors,
        _striped,
    ),
    "watermark": PictureSuite(
        "a mark in the corner, not the object", lambda: ColourDetectors((_MARK,), (1.0,), 2.5, 1.0), _watermark
    ),
}
"""Name -> suite."""


def suite(name: str) -> PictureSuite:
    """A suite of pictures by name; `MediaError` with near misses if there is none."""
    if name not in SUITES:
        near = get_close_matches(name, SUITES, n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise MediaError(f"There is no suite of pictures {name!r}: {hint}The suites are {', '.join(SUITES)}.")
    return SUITES[name]


def draw(name: str, count: int, seed: int = 0) -> tuple[ColourDetectors | TextureDetectors, PlantedPictures]:
    """The network of a suite, and `count` pictures of class 1 with their truth; the same seed draws the same ones."""
    chosen = suite(name)
    generator = torch.Generator().manual_seed(seed)
    net, canvas = chosen.model().eval(), _canvas(count, generator)
    chosen.draw(canvas, generator)
    pictures = canvas.clamp(0, 1)
    oracle = net.truth(pictures)
    return net, PlantedPictures(pictures, oracle, oracle > 0.05 * oracle.flatten(1).amax(1)[:, None, None])


def degraded(oracle: Tensor, share: float, seed: int = 0) -> Tensor:
    """A map `(N, SIDE, SIDE)` of which a share of the places have exchanged their values at random: a worse one."""
    generator = torch.Generator().manual_seed(seed)
    worse = oracle.flatten(1).clone()
    for row in worse:
        places = torch.randperm(len(row), generator=generator)[: round(share * len(row))]
        row[places] = row[places[torch.randperm(len(places), generator=generator)]]
    return worse.reshape(oracle.shape)
