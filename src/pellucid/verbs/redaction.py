"""What is to be made unrecognisable in pictures: boxes as they are typed, or annotated for each picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pellucid.errors import DataError, MediaError, PellucidError
from pellucid.results import Heatmap, Heatmaps
from pellucid.results.judged import JudgedPicture
from pellucid.truth import read_truth

Outcome = TypeVar("Outcome")


def redaction(text: str) -> Callable[[Heatmaps], Heatmaps]:
    """What hides boxes in the picture of explanations, before they are shown or saved.

    Args:
        text: annotations of any kind, whose boxes are hidden in the picture that they are of (see `read_truth`), or
            `x0,y0,x1,y1`, with `;` between several, which are hidden in every picture and frame.

    Raises:
        DataError: it is neither.
    """
    boxes = typed_boxes(text)
    if boxes is not None:
        return lambda found: found.redact(boxes)
    if not Path(text).expanduser().exists():
        raise DataError(f"There is nothing to hide at {text!r}: give a file of annotations, or boxes x0,y0,x1,y1;...")
    known = read_truth(text)

    def hide(found: Heatmaps) -> Heatmaps:
        first = found[0]
        there = known.of(first.record.input["source"] or first.name).on(_size(first))
        return found.redact([o.box for o in there.objects])

    return hide


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


def _size(e: Heatmap) -> tuple[int, int]:
    if not e.geometry.known:
        raise MediaError(f"{e.name} can't be redacted: the model's transform has no known way back to the picture.")
    return e.geometry.source_size[-2], e.geometry.source_size[-1]


def typed_boxes(text: str) -> list[list[float]] | None:
    """Boxes written `x0,y0,x1,y1;...`; None where the text is something else."""
    try:
        found = [[float(v) for v in box.split(",")] for box in text.split(";") if box.strip()]
    except ValueError:
        return None
    return found if found and all(len(box) == 4 for box in found) else None
