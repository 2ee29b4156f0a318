"""Mosaics: four inputs of a model side by side, and heads of which each provably sees one of them (DiFull).

Rao, Böhle & Schiele 2022 (arXiv:2205.10435). The backbone is the user's own, and each tile goes through it alone, so
whatever a map says of another tile is wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pellucid.models.reading import Reading

TILES = 2
"""Along each side."""


def tiles_of(mosaic: Tensor) -> list[Tensor]:
    """The tiles of `(N, C, 2 h, 2 w)`, row by row."""
    return [tile for row in mosaic.chunk(TILES, 2) for tile in row.chunk(TILES, 3)]


def mosaic_of(tiles: list[Tensor]) -> Tensor:
    """Four inputs `(C, h, w)`, row by row, as one `(C, 2 h, 2 w)`."""
    rows = [torch.cat(tiles[k : k + TILES], 2) for k in range(0, len(tiles), TILES)]
    return torch.cat(rows, 1)


class MosaicHeads(nn.Module):
    """Each tile's classes, as the log of their odds in that tile: the sigmoid is the probability there.

    Args:
        inner: a model of classes, of which one is true in an input.
        reading: what its output means.
    """

    def __init__(self, inner: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.inner, self._reading = inner, reading

    def forward(self, mosaic: Tensor) -> Any:
        """`(N, 4 classes)`, tile by tile."""
        tiles = tiles_of(mosaic)
        scores = self._reading.class_scores(self.inner(torch.cat(tiles)))
        odds = scores if not self._reading.excludes(scores) else _log_odds(scores)
        return torch.cat(odds.chunk(len(tiles)), 1)


def _log_odds(scores: Tensor) -> Tensor:
    """Of each class, the log of its odds by the softmax."""
    share = scores.log_softmax(1)
    return share - torch.log1p(-share.exp().clamp(max=1 - 1e-6))


def tile_mask(tile: int, size: tuple[int, int]) -> Tensor:
    """Where a tile lies in a mosaic of this size, bool."""
    mask = torch.zeros(size, dtype=torch.bool)
    height, width = size[0] // TILES, size[1] // TILES
    row, column = divmod(tile, TILES)
    mask[row * height : (row + 1) * height, column * width : (column + 1) * width] = True
    return mask
