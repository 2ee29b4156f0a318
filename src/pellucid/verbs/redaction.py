"""What is to be made unrecognisable in pictures: boxes as they are typed, or annotated for each picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pellucid.errors import DataError, MediaError, PellucidError
from pellucid.media import Geometry
from pellucid.media.address import address
from pellucid.media.redaction import check_hideable
from pellucid.models.feed import Prepared
from pellucid.results import Heatmap, Heatmaps, Importance
from pellucid.results.judged import JudgedPicture
from pellucid.truth import Truth, read_truth

Outcome = TypeVar("Outcome")
Redactable = TypeVar("Redactable", Heatmap, Heatmaps, Importance)
Box = Sequence[float]
"""`(x0, y0, x1, y1)` in the original's pixels."""


@dataclass(frozen=True)
class Redaction:
    """Which boxes are hidden in which picture.

    Attributes:
        everywhere: boxes that are hidden in every picture and frame; None: those that were annotated.
        known: the annotations.
    """

    everywhere: Sequence[Box] | None = None
    known: Truth | None = None

    def of(self, source: str, name: str, geometry: Geometry) -> Sequence[Box]:
        """The boxes of one picture.

        Raises:
            DataError: the annotations do not list it.
            MediaError: its pixels are not those that the boxes are told in.
        """
        check_hideable(name, geometry)
        if self.known is None:
            return self.everywhere or ()
        size = geometry.source_size[-2], geometry.source_size[-1]
        return [o.box for o in self.known.of(source or name).on(size).objects]

    def of_input(self, item: Prepared) -> Sequence[Box]:
        """The boxes of an input that the model is about to see; errors as in `of`."""
        return self.of(str(item.source["source"] or ""), item.source["name"], item.geometry)

    def __call__(self, found: Redactable) -> Redactable:
        """What was found on one picture, the boxes hidden in it; errors as in `of`."""
        first = found[0] if isinstance(found, Heatmaps) else found
        found.redact(self.of(first.record.input["source"] or "", first.name, first.geometry))
        return found


def redaction(text: str) -> Redaction:
    """What hides boxes in the picture of a result, before it is shown or saved.

    Args:
        text: annotations of any kind, whose boxes are hidden in the picture that they are of (see `read_truth`), or
            `x0,y0,x1,y1`, with `;` between several, which are hidden in every picture and frame.

    Raises:
        DataError: it is neither.
    """
    boxes = typed_boxes(text)
    if boxes is not None:
        return Redaction(boxes)
    if not Path(text).expanduser().exists():
        raise DataError(f"There is nothing to hide at {text!r}: give a file of annotations, or boxes x0,y0,x1,y1;...")
    return Redaction(known=read_truth(text))


def known_elsewhere(text: str) -> str:
    """The same for whoever works in another folder: a file by its whole path.

    Raises:
        DataError: it is neither a file of annotations nor boxes.
    """
    redaction(text)
    return text if typed_boxes(text) is not None else address(text)


def without(text: str | None, outcomes: Iterable[tuple[str, Outcome]]) -> Iterator[tuple[str, Outcome | PellucidError]]:
    """Outcomes picture by picture, with what `redaction` means hidden; where that is not known, the error instead."""
    hide = None if text is None else redaction(text)
    for name, found in outcomes:
        groups = [box.maps for box in found.boxes if box.maps] if isinstance(found, JudgedPicture) else [found]
        try:
            for group in groups:
                if hide is not None and isinstance(group, Heatmaps):
                    hide(group)
        except (DataError, MediaError) as error:
            yield name, error
        else:
            yield name, found


def typed_boxes(text: str) -> list[list[float]] | None:
    """Boxes written `x0,y0,x1,y1;...`; None where the text is something else."""
    try:
        found = [[float(v) for v in box.split(",")] for box in text.split(";") if box.strip()]
    except ValueError:
        return None
    return found if found and all(len(box) == 4 for box in found) else None
