"""The spotlight: balls in the space of the rows in which the mean loss is high, found one after another.

Source: d'Eon et al. 2022 (arXiv:2107.00758): a Gaussian of free centre and width is moved to where the weighted mean
loss is largest while its weights sum to no less than a share of the samples; what it lit is then dimmed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE, COUNT = 0.02, 5  # of the samples that it lights at the least; spotlights
_STEPS, _RATE = 200, 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spotlight:
    """One Gaussian.

    Attributes:
        centre: `(D,)`.
        precision: inverse of its variance along every axis.
    """

    centre: Floats
    precision: float

    def lights(self, rows: Floats) -> Floats:
        """How brightly each row `(N, D)` is lit, `(N,)`: 1 at the centre."""
        found: Floats = np.exp(-0.5 * self.precision * ((rows - self.centre) ** 2).sum(1))
        return found


def spotlights(rows: Floats, losses: NDArray[np.floating], count: int = COUNT, share: float = SHARE) -> list[Spotlight]:
    """The brightest first.

    Args:
        rows: `(N, D)`, their largest variance 1.
        losses: `(N,)`, not negative.
        count: how many.
        share: of the samples that each lights at the least.
    """
    found: list[Spotlight] = []
    left = losses.astype(np.float64).copy()
    for _ in range(count):
        if not left.sum() > 1e-9:
            break
        found.append(_brightest(rows, left, share))
        left *= 1 - found[-1].lights(rows)
    return found


def _brightest(rows: Floats, losses: Floats, share: float) -> Spotlight:
    """Adam from the mean of the losses' places and a light over all; the least share comes down to its value."""
    place = np.append(losses @ rows / losses.sum(), -np.log(rows.shape[1]))  # at first most rows are lit
    squares = (rows**2).sum(1)
    mean, spread = np.zeros_like(place), np.zeros_like(place)
    for step in range(1, _STEPS + 1):
        least = len(rows) * max(share, 0.5 * (1 - 1.5 * step / _STEPS))
        _, slope = dimness(place, rows, squares, losses, least)
        mean, spread = 0.9 * mean + 0.1 * slope, 0.999 * spread + 0.001 * slope**2
        place = place - _RATE * (mean / (1 - 0.9**step)) / (np.sqrt(spread / (1 - 0.999**step)) + 1e-8)
    return Spotlight(place[:-1], float(np.exp(place[-1])))


def dimness(place: Floats, rows: Floats, squares: Floats, losses: Floats, least: float) -> tuple[float, Floats]:
    """What a spotlight minimises, and its gradient `(D + 1,)`.

    Args:
        place: `(D + 1,)`, the centre and the logarithm of the precision.
        rows: `(N, D)`.
        squares: `(N,)`, of their lengths.
        losses: `(N,)`.
        least: what the lights are to sum to: less costs.
    """
    centre, precision = place[:-1], np.exp(place[-1])
    distance = np.maximum(squares - 2 * rows @ centre + centre @ centre, 0)
    light = np.exp(-0.5 * precision * distance)
    lit = light.sum() + 1e-9
    found, missing = light @ losses / lit, max(0.0, 1 - lit / least)
    straight, bent = 10 * losses.mean(), 10 * losses.max()
    value = -found + straight * missing + bent * missing**2
    each = light * ((found - losses) / lit - (straight + 2 * bent * missing) / least * (missing > 0))
    to_centre = precision * (each @ rows - each.sum() * centre)
    return float(value), np.append(to_centre, -0.5 * precision * each @ distance)
