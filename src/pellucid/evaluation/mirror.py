"""Does the map of the mirrored picture lie where the mirrored map lies? One further explanation.

Masked pictures hardly tell a map from one that lies two cells beside it: both cover the object. A mirror does. What is
displaced by `d` in both explanations lies `2 d` apart once the second is mirrored back, whatever the network sees.
Left and right only: upside down, most pictures are other pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pellucid.evaluation.faithfulness import cell_values

_REACH = 3  # displacements up to the grid's width over this are looked at
_FAR = 3  # cells by which both maps must lie apart: strides that do not divide the input make up to two
_CLEARER = 0.1  # of correlation, that they must agree better by
_ALIKE = 0.6  # correlation from which on two maps are the same one, displaced
KEPT = 0.5  # of the score, that must be left in the mirror: else the model reads left and right as different things


@dataclass(frozen=True)
class Reflection:
    """A map beside that of the mirrored picture.

    Attributes:
        alike: their correlation where they lie.
        apart: by how many cells they agree best when one is moved; twice the displacement.
        moved: their correlation there.
    """

    alike: float
    apart: int
    moved: float

    @property
    def displaced(self) -> bool:
        """Whether the map lies beside what it shows."""
        return abs(self.apart) >= _FAR and self.moved >= _ALIKE and self.moved > self.alike + _CLEARER


def reflection(values: Tensor, mirrored: Tensor, grid: Sequence[int]) -> Reflection:
    """A map `(*any)` beside that of the input mirrored along its last axis, both brought to `grid`."""
    one, other = (cell_values(m, grid).cpu().double() for m in (values, mirrored.flip(-1)))
    reach = one.shape[-1] // _REACH
    found = {k: _overlap(one, other, k) for k in range(-reach, reach + 1)}
    peak = max(found, key=lambda k: (found[k], -abs(k)))
    return Reflection(found[0], peak, found[peak])


def _overlap(one: Tensor, other: Tensor, k: int) -> float:
    """Correlation of `one` with `other` moved by `k` cells along the last axis, where both are."""
    n = one.shape[-1] - abs(k)
    a, b = (m.narrow(-1, start, n).flatten() for m, start in ((one, max(k, 0)), (other, max(-k, 0))))
    a, b = a - a.mean(), b - b.mean()
    scale = a.norm() * b.norm()
    return float(a @ b / scale) if scale > 0 else 0.0
