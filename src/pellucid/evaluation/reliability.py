"""The reliability card: whether a map stays where it is under noise and a small rotation, and lies on a mask.

Beside what `check` measures. A map that moves when the input hardly does says little of a place, faithful or not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pellucid.errors import MediaError, StorageError
from pellucid.evaluation.check import Explained
from pellucid.heatmaps.base import explain_all
from pellucid.media.orientation import spacing
from pellucid.numerics.statistics import spearman

READERS = (
    "Readers trust such maps too much: in one study half of 33 physicians followed a wrong AI diagnosis whatever "
    "explanation stood beside it (arXiv 2605.02903). A map shows what the model used, not that the model is right."
)
"""What is known of those who read the map; it stands on every card."""


@dataclass(frozen=True)
class Localisation:
    """A map beside a mask, on the original's grid.

    Attributes:
        dice: of the mask and as many of the strongest places.
        hit: whether the strongest place lies in the mask.
        distance: from there to the mask, in `unit`s; 0 inside.
        mass: the share of all positive values that lies inside; NaN where there are none, and the map points nowhere.
        unit: `mm` of a volume, `pixels` of a picture.
    """

    dice: float
    hit: bool
    distance: float
    mass: float
    unit: str = "pixels"

    def line(self) -> str:
        """The figures in a sentence."""
        if math.isnan(self.mass):
            return "Beside the mask: the map has no positive evidence, so it points nowhere."
        where = "inside" if self.hit else f"{self.distance:.1f} {self.unit} from it"
        return f"Beside the mask: peak {where}, Dice {self.dice:.2f}, {self.mass:.0%} of the map inside."


@dataclass(frozen=True)
class ReliabilityCard:
    """How far a place in a map can be relied on.

    Attributes:
        sanity: see `Quality`; None where nothing was measured.
        noise: rank correlation with the map of the same input under a little noise.
        rotation: the same of the input turned by a few degrees, turned back.
        degrees: how many. sigma: of the noise, over the input's own deviation.
        localisation: beside a mask, where one is given.
    """

    sanity: float | None
    noise: float
    rotation: float
    degrees: float
    sigma: float
    localisation: Localisation | None = None

    def lines(self) -> list[str]:
        """The card in words."""
        turned = f"turned by {self.degrees:g}° {self.rotation:.2f}"
        found = [f"Repeated: rank correlation {self.noise:.2f} under noise of {self.sigma:.0%}, {turned}."]
        if self.localisation is not None:
            found.append(self.localisation.line())
        return [*found, READERS]

    def numbers(self) -> dict[str, float]:
        """The figures by name, those that were measured."""
        own: dict[str, float | None] = {"sanity": self.sanity, "noise": self.noise, "rotation": self.rotation}
        place = self.localisation
        if place is not None and not math.isnan(place.mass):
            own |= {"dice": place.dice, "distance": place.distance, "mass inside": place.mass}
        return {name: float(value) for name, value in own.items() if value is not None}


def reliability(
    explanation: Explained, mask: NDArray[np.bool_] | Tensor | None = None, *, degrees: float = 4.0, sigma: float = 0.05
) -> ReliabilityCard:
    """Measure the card of one explanation, by two further ones.

    Args:
        explanation: of a picture or volume, as it came from `explain`.
        mask: true where a finding lies, on the original's grid.
        degrees: of the rotation, in the plane of the last two axes, in true millimetres.
        sigma: of the noise, over the standard deviation of the input.

    Raises:
        StorageError: it was read from disk, so its model is not at hand.
        MediaError: it has no map, or the mask is of another size or empty.
    """
    session, ran, target = explanation.session, explanation.ran, explanation.explained
    if session is None or ran is None or target is None:
        raise StorageError("This explanation was read from disk: explain the picture again to measure its reliability.")
    place = None if mask is None else localisation(explanation, mask)
    plain = explanation.geometry.to_input(explanation.map())[0]
    chosen = explanation.record.run.get("layer")
    same = dataclasses.replace(ran, layer=chosen) if chosen and getattr(ran, "layer", "") is None else ran  # type: ignore[type-var]

    def again(x: Tensor) -> Tensor:
        found = explain_all([same], session.model, x, [target])[0][0].values.cpu()
        moved = dataclasses.replace(explanation, attribution=found)
        return explanation.geometry.to_input(moved.map())[0]

    x = session.x
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(session.seed)).to(x)
    noisy = spearman(plain, again(x + sigma * float(x.std()) * noise))
    steps = _steps(explanation, x.ndim - 2)
    back = _turned(again(_turned(x, degrees, steps))[None, None], -degrees, steps)[0, 0]
    inside = _turned(_turned(torch.ones_like(plain)[None, None], degrees, steps), -degrees, steps)[0, 0] > 0.99
    turned = spearman(plain[inside], back[inside])
    sanity = None if explanation.quality is None else explanation.quality.sanity
    return ReliabilityCard(sanity, noisy, turned, degrees, sigma, place)


def localisation(explanation: Explained, mask: NDArray[np.bool_] | Tensor) -> Localisation:
    """A map beside a mask on the original's grid; where the model never looked nothing is claimed.

    Raises:
        MediaError: the mask is of another size, or empty.
    """
    heat = explanation.heatmap()[0].numpy()
    where = np.asarray(mask, bool)
    if where.shape != heat.shape or not where.any():
        raise MediaError(f"A mask is of the original's size {heat.shape} and holds something, not {where.shape}.")
    values = np.where(np.isfinite(heat), heat, -np.inf)
    count = int(where.sum())
    strongest = np.zeros(heat.size, bool)
    strongest[np.argsort(-values, axis=None, kind="stable")[:count]] = True
    dice = 2 * int((strongest.reshape(heat.shape) & where).sum()) / (2 * count)
    peak = np.unravel_index(int(values.argmax()), heat.shape)
    positive = np.nan_to_num(heat, nan=0.0).clip(0)
    mass = float(positive[where].sum() / positive.sum()) if positive.sum() > 0 else math.nan
    steps = np.eye(heat.ndim)
    if explanation.geometry.affine:
        steps = np.asarray(explanation.geometry.affine)[:, :3]
    apart = (np.argwhere(where) - np.asarray(peak)) @ steps.T
    distance = float(np.sqrt(np.square(apart).sum(1).min()))
    return Localisation(dice, bool(where[peak]), distance, mass, "mm" if explanation.geometry.affine else "pixels")


def _steps(explanation: Explained, axes: int) -> list[float]:
    """How long the input's pixels are along each axis, in one unit."""
    geometry = explanation.geometry
    if not geometry.affine:
        return [1.0] * axes
    source = spacing(np.vstack([np.asarray(geometry.affine), [0, 0, 0, 1]]))
    turn = geometry.turn or (1, 2, 3)
    spans = zip(turn, geometry.box, geometry.input_size, strict=True)
    return [source[abs(t) - 1] * (stop - start) / n for t, (start, stop), n in spans]


def _turned(x: Tensor, degrees: float, steps: Sequence[float]) -> Tensor:
    """`(N, C, *space)` turned in the plane of its last two axes; zeros come in at the corners."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    long = [n * step for n, step in zip(x.shape[-2:], steps[-2:], strict=True)]
    axes = x.ndim - 2
    matrix = torch.eye(axes, axes + 1)  # of x, y, z: the last axis comes first
    matrix[0, 0], matrix[0, 1] = cos, -sin * long[0] / long[1]
    matrix[1, 0], matrix[1, 1] = sin * long[1] / long[0], cos
    grid = affine_grid(matrix[None].expand(len(x), -1, -1).to(x), list(x.shape), align_corners=False)
    low = x.amin()
    return grid_sample(x - low, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + low
