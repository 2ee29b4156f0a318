"""What is drawn over a picture besides a map: boxes that a detector answers, what is asked for, what is true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pellucid.explanation import Explanation, Prediction
from pellucid.render.paper.display import Pictured, display_geometry
from pellucid.render.paper.sheet import INK, PAPER, Sheet

Frame = tuple[float, float, float, float]
"""Where a picture stands on the sheet: its left and top, its width and height, in inches."""

_ASKED, _OTHER = 1.5, 0.7  # points
_SAME = 0.01  # pixels
_EDGE = 1 / 240  # of the longer side: the edge of a region
_POINT, _RING = 2e-4, 0.025  # of the picture: what is but a place; of the longer side: the ring around it
ASKED_COLOUR, TRUE_COLOUR = "#ffd400", "#3be477"
EDGES = (("truth", TRUE_COLOUR), ("region", ASKED_COLOUR))
"""Regions of an explanation that are outlined, by their names in its extras, and their colours."""


def asked_box(e: Explanation) -> Sequence[float] | None:
    """The box that is explained, in the original picture's pixels; None where there is none."""
    box = e.extras.get("box")
    return None if box is None else box[0].tolist()


def asked_boxes(explanations: Sequence[Explanation]) -> list[Sequence[float]]:
    """The boxes that are explained, each once."""
    found = (asked_box(e) for e in explanations)
    return [list(box) for box in dict.fromkeys(tuple(box) for box in found if box is not None)]


def is_asked(answer: Prediction, boxes: Sequence[Sequence[float]]) -> bool:
    """Whether an answer is one of the boxes that are explained."""
    place = answer.place
    return place is not None and any(all(abs(a - b) <= _SAME for a, b in zip(place, box, strict=True)) for box in boxes)


def with_edge(pixels: NDArray[np.uint8], e: Explanation) -> NDArray[np.uint8]:
    """A picture `(H, W, 3)` of the whole source with the edges of the true region and of the one that is explained."""
    for name, colour in EDGES:
        region = e.extras.get(name)
        if region is not None and region.shape[-2:] == e.geometry.source_size[-2:] and region.any():
            pixels = edged(pixels, region[0].numpy().astype(bool), colour)
    return pixels


def edged(pixels: NDArray[np.uint8], whole: NDArray[np.bool_], colour: str = ASKED_COLOUR) -> NDArray[np.uint8]:
    """A picture `(H, W, 3)` with the edge of a region that is told on a grid `(h, w)` over all of it."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(pixels.shape[:2], whole.shape, strict=True))
    inside = whole[rows][:, columns]
    if is_place(whole):  # a ring around it
        y, x = (np.argwhere(whole).mean(0) + 0.5) / whole.shape * pixels.shape[:2]
        down, across = np.indices(inside.shape)
        inside = np.hypot(down + 0.5 - y, across + 0.5 - x) < max(inside.shape) * _RING
    wide = max(1, round(max(inside.shape) * _EDGE))
    kept = _shrunk(inside, wide)
    shown = pixels.copy()
    shown[_grown(inside, wide) & ~kept] = _rgb(INK)
    shown[inside & ~kept] = _rgb(colour)
    return shown


def is_place(region: NDArray[np.bool_]) -> bool:
    """Whether a region `(H, W)` is but a place, too small for an edge."""
    return bool(region.sum() < _POINT * region.size)


def _grown(places: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Places and all up to `by` steps away from them."""
    for _ in range(by):
        wider = np.pad(places, 1)
        places = wider[1:-1, 1:-1] | wider[:-2, 1:-1] | wider[2:, 1:-1] | wider[1:-1, :-2] | wider[1:-1, 2:]
    return places


def _shrunk(places: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    return ~_grown(~places, by)


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def mark_asked(sheet: Sheet, e: Explanation, frame: Frame) -> None:
    """The box that is explained, over its map."""
    box = asked_box(e)
    if box is not None:
        _outlined(sheet, e, box, frame, ASKED_COLOUR, _ASKED)


def mark_answers(sheet: Sheet, e: Pictured, asked: Sequence[Sequence[float]], frame: Frame) -> None:
    """All boxes that the detector answers, thin, and over them those that are explained."""
    for prediction in e.prediction:
        if prediction.place is not None:
            _outlined(sheet, e, prediction.place, frame, PAPER, _OTHER)
    for box in asked:
        _outlined(sheet, e, box, frame, ASKED_COLOUR, _ASKED)


def _outlined(sheet: Sheet, e: Pictured, box: Sequence[float], frame: Frame, colour: str, points: float) -> None:
    x, y, width, height = frame
    rows, columns = display_geometry(e.geometry, size=max(e.geometry.source_size))[0].source_size[-2:]
    x0, x1 = (x + width * min(max(at / columns, 0.0), 1.0) for at in (box[0], box[2]))
    y0, y1 = (y + height * min(max(at / rows, 0.0), 1.0) for at in (box[1], box[3]))
    sheet.outline(x0, y0, x1 - x0, y1 - y0, colour=colour, under=INK, points=points)
