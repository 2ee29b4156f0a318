"""What is truly in pictures: objects with a class and a place, whatever file they were written in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from pellucid.errors import DataError
from pellucid.truth.outlines import Mask, Outline

Place = tuple[float, float, float, float]
"""`(x0, y0, x1, y1)`, edges in pixels of the upright picture."""


@dataclass(frozen=True)
class Annotation:
    """One object.

    Attributes:
        label: its class.
        box: around it.
        outline: its shape, where that is known.
        ignored: why it is neither to be found nor missed, such as `crowd` or `difficult`; else empty.
        key: what the file calls it.
        facts: what else is known of it, as plain values: a score, where its explanation lies.
    """

    label: str
    box: Place
    outline: Outline | None = None
    ignored: str = ""
    key: int | str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def scaled(self, x: float, y: float) -> Annotation:
        """In other units."""
        x0, y0, x1, y1 = self.box
        outline = None if self.outline is None else self.outline.scaled(x, y)
        return replace(self, box=(x0 * x, y0 * y, x1 * x, y1 * y), outline=outline)

    def mask(self, size: tuple[int, int]) -> Mask | None:
        """Its pixels in a picture of this size `(H, W)`; None where only a box is known."""
        return None if self.outline is None else self.outline.mask(size)


@dataclass(frozen=True)
class Annotated:
    """One picture's objects.

    Attributes:
        name: the picture's file, as it was written down.
        objects: in the order of the file.
        size: `(H, W)` as it was written down; None where that is not.
        shares: whether places are shares of the picture's sides rather than pixels.
        key: what the file calls the picture.
        unjudged: the pixels that nobody judged, where there are such.
    """

    name: str
    objects: tuple[Annotation, ...] = ()
    size: tuple[int, int] | None = None
    shares: bool = False
    key: int | str | None = None
    unjudged: Outline | None = None

    def on(self, size: tuple[int, int]) -> Annotated:
        """In pixels of the picture itself, which is of `size` `(H, W)`.

        Raises:
            DataError: the annotations are of a picture of another size.
        """
        height, width = size
        if self.size is not None and self.size != size:
            turned = "turned by its orientation tag, or " if self.size == (width, height) else ""
            raise DataError(
                f"The annotations of {self.name} are of {self.size[1]} x {self.size[0]} pixels, and the picture is "
                f"{width} x {height}: it was {turned}resized since; give the file that was annotated."
            )
        if not self.shares:
            return replace(self, size=size)
        return replace(self, objects=tuple(o.scaled(width, height) for o in self.objects), size=size, shares=False)


@dataclass(frozen=True)
class Truth:
    """What is truly in many pictures.

    Attributes:
        source: the file or folder that it was read from.
        pictures: in the order of the file.
        numbers: the number of each class, by label.
        notes: what was left out.
    """

    source: str
    pictures: tuple[Annotated, ...]
    numbers: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def of(self, source: str) -> Annotated:
        """A picture's objects, by its path: that of the file which agrees in the most folders.

        Raises:
            DataError: there is none, or two agree as well.
        """
        wanted = PurePath(source)
        agreeing = [(_common(wanted, PurePath(p.name)), p) for p in self.pictures if _alike(wanted, p.name)]
        if not agreeing:
            raise DataError(f"{self.source} says nothing of {wanted.name}: leave the picture out, or annotate it.")
        most = max(count for count, _ in agreeing)
        best = [p for count, p in agreeing if count == most]
        if len(best) > 1:
            raise DataError(
                f"{self.source} speaks of {len(best)} pictures named {wanted.name}: name their folders too, or "
                "rename them."
            )
        return best[0]

    def speaks_of(self, source: str) -> bool:
        """Whether it says something of a picture, by its path."""
        return any(_alike(PurePath(source), p.name) for p in self.pictures)

    @property
    def labels(self) -> list[str]:
        """The classes, by number."""
        return sorted(self.numbers, key=lambda label: self.numbers[label])


def numbered(labels: Iterable[str]) -> dict[str, int]:
    """Numbers from 1 for the labels that there are, by name."""
    return {label: k + 1 for k, label in enumerate(sorted(set(labels)))}


def _alike(wanted: PurePath, name: str) -> bool:
    """Whether a file of annotations means this picture; a name without an ending means any."""
    return PurePath(name).name in (wanted.name, wanted.stem)


def _common(a: PurePath, b: PurePath) -> int:
    """In how many parts, from the end, two paths agree."""
    same = [x == y for x, y in zip(a.parts[:-1][::-1], b.parts[:-1][::-1], strict=False)]
    return next((k for k, equal in enumerate(same) if not equal), len(same))
