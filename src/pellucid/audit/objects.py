"""Where the object lies in each picture, and how much of the evidence lies on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.audit.samples import GRID, SampleTable
from pellucid.errors import DataError
from pellucid.truth import Annotated, Annotation, Truth

_WHOLE = 0.99  # of what the model sees: an object that fills it has no place

Floats = NDArray[np.float64]


def placed(samples: SampleTable, truth: Truth, sources: Sequence[str]) -> tuple[SampleTable, str]:
    """The table with the place of each object, as far as the truth tells; and why it does not of some, or nothing.

    Args:
        samples: the table.
        truth: of the pictures.
        sources: what opens each row.
    """
    found, reason = np.full((len(samples), GRID, GRID), np.nan, np.float32), ""
    for row, (source, size) in enumerate(zip(sources, samples.sizes, strict=True)):
        if not truth.speaks_of(source):
            continue
        try:
            there = truth.of(source).on(size)
        except DataError as error:
            reason = reason or str(error)
            continue
        cells = _cells(there, size, samples.boxes[row])
        if cells is not None:
            found[row] = cells
    return (replace(samples, objects=found) if np.isfinite(found).any() else samples), reason


def _cells(there: Annotated, size: tuple[int, int], seen: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """How much of each cell lies on an object, `(GRID, GRID)`; None where none has a place that the model sees."""
    inside = np.zeros(size, bool)
    for each in there.objects:
        if not each.ignored:
            _draw(each, inside)
    top, left, bottom, right = (float(v) for v in seen)
    window = (left * size[1], top * size[0], right * size[1], bottom * size[0])
    drawn = Image.fromarray(inside.astype(np.float32))
    cells = np.asarray(drawn.resize((GRID, GRID), Image.Resampling.BOX, box=window))
    return cells if 0 < cells.mean() < _WHOLE else None


def _draw(each: Annotation, inside: NDArray[np.bool_]) -> None:
    mask = each.mask((inside.shape[0], inside.shape[1]))
    if mask is not None:
        inside |= mask
        return
    x0, y0, x1, y1 = (max(0, round(v)) for v in each.box)
    inside[y0:y1, x0:x1] = True


def on_object(samples: SampleTable) -> tuple[Floats, Floats]:
    """How much of the evidence for each answer lies on the object, and how much of the picture the object is: shares.

    `(N,)` each; NaN where its place is unknown, or nothing speaks for the answer.
    """
    if samples.objects is None:
        unknown = np.full(len(samples), np.nan)
        return unknown, unknown
    evidence = np.maximum(samples.maps, 0).astype(np.float64)
    total = evidence.sum((1, 2))
    inside = (evidence * samples.objects).sum((1, 2))
    size = samples.objects.mean((1, 2), dtype=np.float64)
    return np.where(total > 0, inside / np.where(total > 0, total, 1), np.nan), size
