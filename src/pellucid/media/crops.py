"""Parts of pictures: a square cut out, and many pictures each cut into squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.geometry import Geometry
from pellucid.media.picture import Picture
from pellucid.media.pictures import Box, Origin, Pictures


def around(geometry: Geometry, grid: Sequence[int], cell: int, share: float = 0.4) -> Box:
    """The square of a picture about one cell of a grid over what the model saw of it.

    Args:
        geometry: of the picture; its last two axes are height and width.
        grid: cells along the input's axes.
        cell: which one, counted row by row.
        share: side of the square over the shorter side of what was seen.

    Returns:
        (top, left, bottom, right) in the picture's pixels, moved inside it where it would reach out.
    """
    at = np.unravel_index(cell, tuple(grid))[-2:]
    spans = list(zip(geometry.box, geometry.source_size, strict=True))[-2:]
    side = max(1, round(share * min(stop - start for (start, stop), _ in spans)))
    corners = []
    for index, cells, ((start, stop), size) in zip(at, list(grid)[-2:], spans, strict=True):
        length = min(side, size)
        centre = start + (int(index) + 0.5) / cells * (stop - start)
        corners.append((min(max(0, round(centre - length / 2)), size - length), length))
    (top, height), (left, width) = corners
    return top, left, top + height, left + width


def cut(picture: Picture, box: Box) -> Picture:
    """A part of a picture, as a picture in memory that keeps the name."""
    top, left, bottom, right = box
    return replace(picture, pixels=picture.pixels[top:bottom, left:right].copy(), source="", sha256="")


@dataclass(frozen=True, eq=False)
class Crops:
    """Pictures cut into overlapping squares, each a picture of its own: how CRAFT looks for concepts.

    Attributes:
        pictures: what is cut.
        share: side of a square over a picture's shorter side.
        along: squares along each axis, evenly spread; the first and the last touch the border.
    """

    pictures: Pictures
    share: float = 0.4
    along: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.along < 1:
            raise MediaError(f"Crops need a share in (0, 1] and at least one an axis, not {self.share}, {self.along}.")

    @property
    def name(self) -> str:
        """What people call them."""
        return f"crops of {self.pictures.name}"

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of the picture each is from."""
        return np.repeat(self.pictures.labels, self.along**2)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.pictures.classes

    def __len__(self) -> int:
        """How many crops."""
        return len(self.pictures) * self.along**2

    def read(self, index: int) -> Picture:
        """One crop."""
        number, place = divmod(index, self.along**2)
        whole = self.pictures.read(number)
        return replace(cut(whole, self._box(whole.size, place)), sha256=self.digest(index))

    def _box(self, size: tuple[int, int], place: int) -> Box:
        side = max(1, round(self.share * min(size)))
        row, column = divmod(place, self.along)
        top, left = (
            round(at * (n - side) / (self.along - 1)) if self.along > 1 else round((n - side) / 2)
            for at, n in zip((row, column), size, strict=True)
        )
        return top, left, top + side, left + side

    def digest(self, index: int) -> str:
        """SHA-256 over the picture's and how it is cut."""
        number, place = divmod(index, self.along**2)
        return sha256(f"{self.pictures.digest(number)} {self.share} {self.along} {place}".encode()).hexdigest()

    def origin(self, index: int) -> Origin:
        """The whole picture, and which part of it."""
        number, place = divmod(index, self.along**2)
        return self.pictures.origin(number).part(self._box(self.pictures.read(number).size, place))
