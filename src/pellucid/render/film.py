"""Frames of a clip as a video: each with the boxes that a detector answers, and beside it its map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pellucid.explanation import Explanation, Prediction
from pellucid.media import Picture
from pellucid.render.paper.colour import Limits, limits
from pellucid.render.paper.display import DISPLAY_SIZE, display
from pellucid.render.paper.marks import ASKED_COLOUR, asked_boxes, is_asked, with_edge
from pellucid.render.paper.overlay import dimmed
from pellucid.render.paper.sheet import INK, PAPER

_LETTERS = 13  # pixels
_QUANTILES = 1024  # values of a frame's map that are kept for the scale of all


class Frame(Protocol):
    """One frame: when it is shown, what it shows, what is answered to it, and its maps."""

    time: float
    picture: Picture

    @property
    def answers(self) -> Sequence[Prediction]:
        """What the model answers, with places."""

    @property
    def maps(self) -> Sequence[Explanation]:
        """One a method and target; none where what is asked for is not there."""


class FilmScale:
    """One scale for the maps of many frames, of each of which no more than some of its values are kept.

    Those are its order statistics, evenly: of frames of one size, the quantiles of all their values are theirs to
    within a thousandth.
    """

    def __init__(self) -> None:
        self._kept: list[NDArray[np.float32]] = []
        self._signed = False

    def add(self, e: Explanation) -> None:
        """The map of one more frame."""
        values = np.sort(e.map().numpy().ravel())
        places = np.linspace(0, len(values) - 1, min(len(values), _QUANTILES)).round().astype(int)
        self._kept.append(values[places])
        self._signed |= e.signed

    def limits(self) -> Limits:
        """The ends of the colour bar; both 0 where there is no map."""
        if not self._kept:
            return Limits(0.0, 0.0)
        return limits(np.concatenate(self._kept), signed=self._signed, robust=True)


def film_scale(frames: Iterable[Frame], method: str, target: str | None) -> Limits:
    """The scale of one method's maps of one target."""
    scale = FilmScale()
    for e in filter(None, (_asked_of(frame, method, target) for frame in frames)):
        scale.add(e)
    return scale.limits()


def film_frames(frames: Iterable[Frame], method: str, target: str | None, scale: Limits) -> Iterator[NDArray[np.uint8]]:
    """Each frame with what is answered, beside its map, uint8 `(H, W, 3)`; one without what was asked is dimmed."""
    for frame in frames:
        yield _drawn(frame, _asked_of(frame, method, target), scale)


def _asked_of(frame: Frame, method: str, target: str | None) -> Explanation | None:
    return next((e for e in frame.maps if (e.method, e.record.target) == (method, target)), None)


@dataclass(frozen=True)
class _Brush:
    """Draws boxes on a picture that is smaller or larger than the one that they are told of."""

    image: Image.Image
    size: tuple[int, int]  # (H, W) of the latter

    def box(self, place: tuple[float, ...], label: str, *, asked: bool) -> None:
        """An outline, and the label in its upper left corner."""
        pen = ImageDraw.Draw(self.image)
        across, down = self.image.width / self.size[1], self.image.height / self.size[0]
        x0, x1 = (min(max(at * across, 0.0), self.image.width - 1.0) for at in (place[0], place[2]))
        y0, y1 = (min(max(at * down, 0.0), self.image.height - 1.0) for at in (place[1], place[3]))
        if x1 <= x0 or y1 <= y0:
            return
        wide = 3 if asked else 1
        pen.rectangle((x0, y0, x1, y1), outline=INK, width=wide + 2)
        pen.rectangle((x0 + 1, y0 + 1, max(x1 - 1, x0 + 1), max(y1 - 1, y0 + 1)), outline=_colour(asked), width=wide)
        if not label or not label.isascii():  # the font that comes with the drawing library has no other letters
            return
        font = ImageFont.load_default(_LETTERS)
        tall = _LETTERS + 4  # above the box, so that nothing in it is hidden, where there is room
        at = (min(x0 + 3, max(self.image.width - 4 - pen.textlength(label, font=font), 0.0)), max(y0 - tall, 2.0))
        left, top, right, bottom = pen.textbbox(at, label, font=font)
        pen.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=INK)
        pen.text(at, label, font=font, fill=_colour(asked))


def _colour(asked: bool) -> str:
    return ASKED_COLOUR if asked else PAPER


def _drawn(frame: Frame, e: Explanation | None, scale: Limits) -> NDArray[np.uint8]:
    """The frame and its map, side by side."""
    height, width = frame.picture.size
    share = DISPLAY_SIZE / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    plain = np.asarray(frame.picture.pil().resize(size))
    shown = np.rint(dimmed(plain) * 255).astype(np.uint8)
    if e is not None:
        plain, shown = with_edge(plain, e), with_edge(replace(display(e), limits=scale).image(), e)
        plain = np.asarray(Image.fromarray(plain).resize(shown.shape[1::-1]))
    whole, beside = (_Brush(Image.fromarray(pixels), (height, width)) for pixels in (plain, shown))
    asked = [] if e is None else asked_boxes([e])
    placed = [p for p in frame.answers if p.place is not None]
    for answer in sorted(placed, key=lambda p: is_asked(p, asked)):  # what is asked for on top
        whole.box(answer.place or (), _told(answer), asked=is_asked(answer, asked))
    for box in asked:
        beside.box(tuple(box), "", asked=True)
        if not any(is_asked(p, [box]) for p in placed):  # a place where nothing is answered
            whole.box(tuple(box), "", asked=True)
    return np.concatenate([np.asarray(whole.image), np.asarray(beside.image)], 1)


def _told(answer: Prediction) -> str:
    return f"{answer.label} {answer.said()}"
