"""A network that decides by a texture and not by the shape that has it, set by hand, patch by patch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

PATCH = 4  # pixels, in which one texture is told from another
_FAINT = 0.1  # of contrast, that says nothing yet
_GAIN, _OFFSET = 1.2, 4.0
_WEIGHT = 100.0  # of the mean over all patches


def stripes(side: int) -> Tensor:
    """1 and -1 in turn along a row, `(side, side)`, in whole patches: two pixels light, two dark."""
    row = ((torch.arange(side) % PATCH) < PATCH // 2).float() * 2 - 1
    return row.expand(side, side)


class TextureDetectors(nn.Module):
    """How much of a picture has upright stripes, as the score of class 1; class 0 has the score 0.

    Patches do not overlap, so what each adds to the score is exactly what it is found to have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.find = nn.Conv2d(3, 1, PATCH, stride=PATCH)
        with torch.no_grad():
            self.find.weight[0] = stripes(PATCH) / (3 * PATCH * PATCH)
            self.find.get_parameter("bias").fill_(-_FAINT)

    def found(self, x: Tensor) -> Tensor:
        """`(N, 1, patches, patches)`, 0 where a patch has no upright stripes."""
        found: Tensor = self.find(x).relu()
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 2)`."""
        score = _GAIN * (_WEIGHT * self.found(x).mean((1, 2, 3)) - _OFFSET * _FAINT)
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def truth(self, x: Tensor) -> Tensor:
        """What each patch adds to the score, spread evenly over its pixels, `(N, *space)`."""
        with torch.no_grad():
            found = self.found(x)
            each = _GAIN * _WEIGHT * found / found[0].numel() / PATCH**2
            return interpolate(each, scale_factor=PATCH, mode="nearest")[:, 0]
