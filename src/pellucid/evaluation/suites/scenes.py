"""Scenes: pictures of a few parts, each of which can be taken out and the scene drawn again (FunnyBirds, made flat).

What a part adds to the score is its Shapley value over the parts, exact, since all coalitions are drawn and answered.
So no baseline is needed: without a part, what lies behind it is seen. Hesse et al. 2023, arXiv:2308.06248.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.evaluation.suites.pictures import SIDE, ColourDetectors
from pellucid.numerics.games.orders import exact_shapley

_GREEN, _BLUE, _MARK = (0.1, 0.8, 0.2), (0.1, 0.2, 0.85), (0.85, 0.1, 0.8)
_BROWN, _RED = (0.6, 0.5, 0.4), (0.9, 0.15, 0.1)
_VISIBLE = 12  # pixels that each part shows in the whole scene
_ENOUGH = 4.0  # of green, from which on more of it adds nothing
_GAIN, _OFFSET, _AGAINST = 0.8, 3.0, 0.6
_KEPT = 0.05  # of a score: a fall by less counts as none


@dataclass(frozen=True)
class ScenePart:
    """A disc or a ring of one colour.

    Attributes:
        name: of the part.
        colour: 0 to 1.
        radius: in pixels.
        spread: how far from the body's centre it may lie, in pixels; the body itself lies anywhere.
        inner: radius of the hole; negative: none.
    """

    name: str
    colour: tuple[float, float, float]
    radius: float
    spread: float = 0.0
    inner: float = -1.0


PARTS = (
    ScenePart("ring", _RED, 6.0, spread=18.0, inner=4.0),
    ScenePart("body", _BROWN, 12.0),
    ScenePart("head", _GREEN, 5.0, spread=13.0),
    ScenePart("tail", _GREEN, 4.0, spread=13.0),
    ScenePart("wing", _BLUE, 5.0, spread=9.0),
    ScenePart("foot", _MARK, 4.0, spread=13.0),
)
"""From back to front. Ring and body say nothing, and have the most edges."""
OF_CLASSES = ((2, 3), (4,))
"""The parts that each of the two classes of `SceneClasses` rests on."""
USELESS, CONTESTED = 0, 4
"""The part that says nothing and can be left out; and the one that one network heeds, and its twin does not."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A ground, and where each part lies on it.

    Attributes:
        ground: `(3, SIDE, SIDE)`, what is seen where no part is.
        shapes: `(K, SIDE, SIDE)`, bool, of `PARTS`, from back to front.
    """

    ground: Tensor
    shapes: Tensor

    def drawn(self, coalitions: Tensor) -> Tensor:
        """Pictures `(M, 3, SIDE, SIDE)` with those parts alone that coalitions `(M, K)` name."""
        pictures = self.ground.repeat(len(coalitions), 1, 1, 1)
        for k, part in enumerate(PARTS):
            paint = coalitions[:, k].bool()[:, None, None, None] & self.shapes[k]
            pictures = torch.where(paint, torch.tensor(part.colour)[:, None, None], pictures)
        return pictures

    @property
    def whole(self) -> Tensor:
        """The picture with all parts, `(3, SIDE, SIDE)`."""
        return self.drawn(torch.ones(1, len(PARTS)))[0]

    @property
    def labels(self) -> Tensor:
        """Which part is seen at each place of the whole scene, `(SIDE, SIDE)`; -1 where none is."""
        found = torch.full(self.shapes.shape[1:], -1)
        for k, shape in enumerate(self.shapes):
            found[shape] = k
        return found

    def values(self, score: Callable[[Tensor], Tensor]) -> Tensor:
        """What each part adds to a score `(M, 3, SIDE, SIDE) -> (M,)`: exact Shapley values `(K,)`, by 2^K pictures."""
        with torch.no_grad():
            return exact_shapley(lambda some: score(self.drawn(some)).double()[:, None], len(PARTS)).values[:, 0]

    def drops(self, score: Callable[[Tensor], Tensor]) -> Tensor:
        """By how much a score falls where each part alone is taken out, `(K,)`."""
        with torch.no_grad():
            found = score(self.drawn(torch.cat([torch.ones(1, len(PARTS)), 1 - torch.eye(len(PARTS))]))).double()
        return found[0] - found[1:]

    def spread(self, values: Tensor) -> Tensor:
        """A map `(SIDE, SIDE)`: the value of each part, shared evenly by the places where it is seen."""
        labels = self.labels
        found = torch.zeros(labels.shape)
        for k, value in enumerate(values.tolist()):
            seen = labels == k
            found[seen] = value / max(1, int(seen.sum()))
        return found


class SceneDetectors(nn.Module):
    """Green up to a limit, and as much of blue as there is green with it; the mark speaks against.

    So the two green parts stand in for each other, and blue says nothing alone: no part has a value of its own.

    Args:
        heeds: whether blue counts; else this is the twin that never looks at the wing.
    """

    def __init__(self, *, heeds: bool = True) -> None:
        super().__init__()
        self.heeds = float(heeds)
        self.colours = ColourDetectors((_GREEN, _BLUE, _MARK), (1.0, 1.0, 1.0), 1.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 2)`."""
        green, blue, mark = (self.colours.found(x).mean((2, 3)) * 100).unbind(1)
        enough = green - (green - _ENOUGH).relu()
        score = _GAIN * (enough + self.heeds * torch.minimum(enough, blue) - _AGAINST * mark - _OFFSET)
        return torch.stack([torch.zeros_like(score), score], dim=1)


class SceneClasses(nn.Module):
    """Two classes that rest on different parts of one scene: the first on green, the second on blue."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = ColourDetectors((_GREEN, _BLUE), (1.0, 1.0), 1.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 2)`."""
        found: Tensor = _GAIN * self.colours.found(x).mean((2, 3)) * 100
        return found


def keeps_score(scene: Scene, score: Callable[[Tensor], Tensor]) -> bool:
    """Whether the score falls by less than a twentieth without the part in the background.

    The share of such scenes is the background independence of a network (Hesse et al. 2023): of it, not of a map.
    """
    with torch.no_grad():
        whole = float(score(scene.whole[None]))
    return float(scene.drops(score)[USELESS]) < _KEPT * abs(whole)


def scenes(count: int, seed: int = 0) -> list[Scene]:
    """So many scenes, in each of which every part is seen; the same seed draws the same ones."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Scene] = []
    while len(found) < count:
        scene = _scene(generator)
        labels = scene.labels
        if all(int((labels == k).sum()) >= _VISIBLE for k in range(len(PARTS))):
            found.append(scene)
    return found


def _scene(generator: torch.Generator) -> Scene:
    coarse = torch.rand(1, 1, 6, 6, generator=generator)
    grey = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=True)[0]
    ground = (0.3 + 0.3 * grey + 0.03 * torch.randn(3, SIDE, SIDE, generator=generator)).clamp(0, 1)
    body = 16 + torch.rand(2, generator=generator) * (SIDE - 32)
    return Scene(ground, torch.stack([_shape(part, body, generator) for part in PARTS]))


def _shape(part: ScenePart, body: Tensor, generator: torch.Generator) -> Tensor:
    """A part's places: on a circle about the body's centre, at the part's distance."""
    angle = torch.rand(1, generator=generator) * 2 * torch.pi
    at = body + part.spread * torch.cat([angle.sin(), angle.cos()])
    row, column = at.clamp(part.radius, SIDE - part.radius).tolist()
    axis = torch.arange(SIDE) + 0.5
    away = ((axis[:, None] - row) ** 2 + (axis - column) ** 2).sqrt()
    found: Tensor = (away <= part.radius) & (away > part.inner)
    return found


def names(values: Sequence[float] | Tensor) -> dict[str, float]:
    """Values of parts by their names."""
    return dict(zip([p.name for p in PARTS], [float(v) for v in values], strict=True))
