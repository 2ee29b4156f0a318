"""A DICOM picture kept in tiles, as slides of microscopy are: each frame laid where it belongs in the whole."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.picture import MAX_PIXELS


def in_tiles(file: Any) -> bool:
    """Whether the frames of a `pellucid.media.dicom.DicomFile` are parts of one larger picture."""
    return file.frames > 1 and min(_size(file)) > 0


def whole(file: Any) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Stored numbers `(H, W)` or `(H, W, 3)` of the whole picture, and where a tile lies (None: everywhere).

    Of several tiles at one place (focal planes, stains) the first is taken.

    Raises:
        MediaError: larger than a picture may be, or its tiles are laid in a way that the file does not tell.
    """
    height, width = _size(file)
    if height * width > MAX_PIXELS:
        raise MediaError(
            f"{file.label} claims {height} x {width} pixels in tiles, more than {MAX_PIXELS:,}: give a smaller level "
            "of the slide."
        )
    file.check(frames=1)
    found: NDArray[Any] | None = None
    lies = np.zeros((height, width), bool)
    for k, (row, column) in _places(file).items():
        tile = file.stored(k)[: height - row, : width - column]
        if found is None:
            found = np.zeros((height, width, *tile.shape[2:]), tile.dtype)
        found[row : row + tile.shape[0], column : column + tile.shape[1]] = tile
        lies[row : row + tile.shape[0], column : column + tile.shape[1]] = True
    if found is None:
        raise MediaError(f"{file.label} does not say where its tiles lie: export it again.")
    return found, None if lies.all() else lies


def _size(file: Any) -> tuple[int, int]:
    """(H, W) of the whole picture; zeros of what is in no tiles."""
    return int(file.number("TotalPixelMatrixRows", 0)), int(file.number("TotalPixelMatrixColumns", 0))


def _places(file: Any) -> dict[int, tuple[int, int]]:
    """By the number of a frame the row and column, from 0, of its first pixel; one frame a place."""
    (height, width), rows, columns = _size(file), int(file.number("Rows", 0)), int(file.number("Columns", 0))
    if str(file.tag("DimensionOrganizationType", "")) == "TILED_FULL":
        across = ceil(width / columns)
        count = min(ceil(height / rows) * across, file.frames)
        return {k: (k // across * rows, k % across * columns) for k in range(count)}
    found: dict[tuple[int, int], int] = {}
    for k in range(file.frames):
        frame = file.at(k)
        row, column = (int(frame.number(f"{axis}PositionInTotalImagePixelMatrix", 0)) - 1 for axis in ("Row", "Column"))
        if 0 <= row < height and 0 <= column < width:
            found.setdefault((row, column), k)
    return {k: place for place, k in found.items()}
