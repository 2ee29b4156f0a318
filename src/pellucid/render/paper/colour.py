"""Value to colour: the only place where values are scaled, so that a colour bar can show the raw ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

ROBUST_PERCENTILE = 99.5
"""Share of |values|, in percent, inside the robust limits of pixel-level maps."""

_SEQUENTIAL, _DIVERGING = "inferno", "RdBu_r"  # both safe for colour-blind eyes
_STEPS = 257  # odd, so that zero has a colour of its own in the middle of the diverging map
ENDS = 0.05
"""Of the diverging map left out at both ends: nearly black, they would read as "nothing there"."""


class Limits(NamedTuple):
    """The raw values at the two ends of the colour bar; ``clipped`` if some values lie beyond them."""

    low: float
    high: float
    clipped: bool = False


def limits(values: NDArray[Any], *, signed: bool, robust: bool = False) -> Limits:
    """The ends of the colour bar for raw values of any shape; NaN and infinity are left out.

    Signed values get (-m, m), so that zero is neutral; others go from 0 (or their minimum, if below) to their
    maximum. ``m`` and the maximum are exact extremes, or with ``robust`` the 99.5th percentile of |values|: a
    few extreme pixels would otherwise darken a pixel-level map. All zero, or nothing finite: (0, 0).
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size or not finite.any():
        return Limits(0.0, 0.0)
    lowest, highest = float(finite.min()), float(finite.max())
    low, high = min(lowest, 0.0), max(highest, 0.0)
    if robust and (reach := float(np.percentile(np.abs(finite), ROBUST_PERCENTILE))) > 0:
        low, high = max(low, -reach), min(high, reach)
    if signed:
        high = max(high, -low)
        low = -high
    return Limits(low, high, lowest < low or highest > high)


def positions(values: NDArray[Any], limits: Limits) -> Array:
    """Where values lie on the colour bar: 0 at its low end, 1 at its high end, clipped; NaN stays NaN.

    Where the limits are empty (nothing to show), 0.
    """
    span = limits.high - limits.low
    scaled = (np.asarray(values, np.float64) - limits.low) / (span or np.inf)
    return scaled.clip(0, 1).astype(np.float32)


def colours(values: NDArray[Any], limits: Limits, *, signed: bool) -> Array:
    """RGB in [0, 1], (..., 3), of raw values (...). NaN takes the colour of zero: mark it yourself."""
    table = _table(signed)
    if signed and limits.low == limits.high:
        limits = Limits(-1.0, 1.0)
    index = positions(np.nan_to_num(np.asarray(values, np.float64)), limits) * (len(table) - 1)
    colour: Array = table[np.rint(index).astype(np.intp)]
    return colour


def strength(values: NDArray[Any], limits: Limits, *, signed: bool) -> Array:
    """How strongly a value is shown, in [0, 1]: |value| over the limit if signed, else its position. NaN: 0."""
    clean = np.nan_to_num(np.asarray(values, np.float64))
    return positions(np.abs(clean), Limits(0.0, limits.high)) if signed else positions(clean, limits)


def number(value: float) -> str:
    """A value as the colour bar writes it: two or three significant digits, a true minus sign."""
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{size:.1e}" if size < 1e-3 or size >= 1e5 else f"{size:.3g}" if size < 1e3 else f"{size:.0f}"
    return ("−" if value < 0 else "") + text


@lru_cache(maxsize=2)
def _table(signed: bool) -> Array:
    from matplotlib import colormaps

    fine = colormaps[_DIVERGING if signed else _SEQUENTIAL].resampled(8 * _STEPS)
    table: Array = fine(np.linspace(ENDS, 1 - ENDS, _STEPS) if signed else np.linspace(0, 1, _STEPS))[:, :3]
    return table.astype(np.float32)
