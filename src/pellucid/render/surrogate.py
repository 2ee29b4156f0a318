"""A readable model on one sheet: its card at the left, itself beside it, where it disagrees with its teacher below.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.interpretable.distilled import Surrogate
from pellucid.interpretable.fidelity import Fidelity, Interval
from pellucid.interpretable.frontier import Point
from pellucid.render.paper.page import GAP, MARGIN, head
from pellucid.render.paper.sheet import FAINT, FOR, INK, QUIET, TRACK, WARNING, Column, Sheet
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE
from pellucid.render.surrogate_bodies import body, body_width

Pixels = NDArray[np.uint8]
_SIDE, _THUMB = 3.3, 0.62  # inches
_SHOWN = 10  # disagreements


@dataclass(frozen=True)
class Gallery:
    """Pictures for the sheet.

    Attributes:
        picture: number of a picture -> a square of it.
        words: column -> squares of what it is about.
        path: nodes of a tree to draw bold.
    """

    picture: Callable[[int], Pixels]
    words: Mapping[int, Sequence[Pixels]] = field(default_factory=dict)
    path: Sequence[int] = ()


def surrogate_figure(s: Surrogate, gallery: Gallery) -> Figure:
    """The sheet of a readable model."""
    width = max(body_width(s), 7.5)
    sheet = Sheet(2 * MARGIN + _SIDE + GAP + width)
    at = Column(MARGIN, MARGIN, _SIDE, (_SIDE, _SIDE))
    y = head(sheet, f"{s.into} learned from {s.name}", "", at, _SIDE)
    y = _card(sheet, s, at.down(y))
    y = _front(sheet, s.front, s.card.unit, at.down(y + 0.15))
    left = _disagreements(sheet, s, gallery, at.down(y + 0.1))
    right = Column(MARGIN + _SIDE + GAP, MARGIN, width, (width, width))
    title = "what it says" if not s.taught else f"what it says, in place of {_teacher(s)}"
    top = head(sheet, title, "", right, width)
    bottom = body(sheet, s, gallery.words, gallery.picture, gallery.path, right.down(top))
    return sheet.finish(max(left, bottom) + MARGIN)


def _teacher(s: Surrogate) -> str:
    return str(s.record.method["parameters"].get("teacher") or "its teacher")


def _card(sheet: Sheet, s: Surrogate, at: Column) -> float:
    """The figures, each as a dot with its interval on a track from 0 to 1; where they end."""
    card, y = s.card, at.y
    y += sheet.line(f"{card.complexity} {card.unit}", at.x, y, TITLE, bold=True)
    y += sheet.line(f"measured on {card.count} pictures it has not seen", at.x, y, TEXT, colour=QUIET) + 0.06
    for name, interval, strong in _figures(card, s.taught):
        y = _track(sheet, name, interval, at.down(y), strong=strong)
    y += sheet.line(f"divergence from the teacher {card.divergence} nats", at.x, y, SMALL, colour=QUIET)
    for note in [*s.notes, *card.notes]:
        sheet.line("⚠", at.x, y + 0.04, TEXT, colour=WARNING)
        y += 0.04 + sheet.paragraph(note, at.x + 0.15, y + 0.04, at.width - 0.15, TEXT, colour=WARNING)
    return y


def _figures(card: Fidelity, taught: bool) -> list[tuple[str, Interval, bool]]:
    rows = [("agrees with the teacher" if taught else "answers right", card.agreement, True)]
    rows += [(f"  {name}", b, False) for name, b in card.baselines.items()]
    rows += [("R² of log-probabilities", card.r2, False)]
    if card.accuracy and taught:
        rows += [("answers right", card.accuracy, True)]
    if card.teacher_accuracy:
        rows += [("  the teacher", card.teacher_accuracy, False)]
    if card.stability is not None:
        rows += [("same answer from resampled data", Interval(card.stability, np.nan, np.nan), False)]
    return rows


def _track(sheet: Sheet, name: str, value: Interval, at: Column, *, strong: bool) -> float:
    ink = INK if strong else QUIET
    inset = 0.1 * name.startswith(" ")
    sheet.line(name.strip(), at.x + inset, at.y, TEXT, colour=ink, bold=strong, width=at.width - 0.4 - inset)
    sheet.line(f"{value.value:.2f}", at.x + at.width, at.y, TEXT, colour=ink, bold=strong, align="right")
    y = at.y + 0.15
    sheet.box(at.x, y, at.width, 0.03, colour=TRACK)

    def place(v: float) -> float:
        return at.x + at.width * min(max(v, 0.0), 1.0)

    if np.isfinite(value.low):
        sheet.box(place(value.low), y, max(place(value.high) - place(value.low), 0.01), 0.03, colour=FAINT)
    sheet.box(place(value.value) - 0.02, y - 0.02, 0.04, 0.07, colour=FOR if strong else QUIET)
    return y + 0.1


def _front(sheet: Sheet, front: Sequence[Point], unit: str, at: Column) -> float:
    """Agreement against complexity; where it ends."""
    if len(front) < 2:
        return at.y
    y = at.y + sheet.line("complexity against agreement", at.x, at.y, TEXT, bold=True) + 0.05
    tall, left = 1.25, at.x + 0.3
    wide = at.width - 0.35
    sizes = np.log([max(p.complexity, 1) for p in front])
    low = min(p.agreement - p.error for p in front)
    high = max(p.agreement + p.error for p in front)
    span = (high - low) or 1.0

    def place(i: int, value: float) -> tuple[float, float]:
        across = (sizes[i] - sizes.min()) / ((sizes.max() - sizes.min()) or 1.0)
        return left + wide * across, y + tall * (1 - (value - low) / span)

    sheet.box(left, y + tall, wide, 0.01, colour=FAINT)
    for value in (low, high):
        sheet.line(f"{value:.2f}", left - 0.05, place(0, value)[1] - 0.05, SMALL, colour=FAINT, align="right")
    sheet.stroke([place(i, p.agreement) for i, p in enumerate(front)], colour=FAINT)
    for i, p in enumerate(front):
        (x, top), (_, end) = place(i, p.agreement + p.error), place(i, p.agreement - p.error)
        sheet.stroke([(x, top), (x, end)], colour=FOR if p.chosen else FAINT)
        here = place(i, p.agreement)
        size = 0.09 if p.chosen else 0.06
        sheet.box(here[0] - size / 2, here[1] - size / 2, size, size, colour=FOR if p.chosen else QUIET)
        if p.chosen or i in (0, len(front) - 1):
            align = "left" if i == 0 else ("right" if i == len(front) - 1 else "center")
            sheet.line(f"{p.complexity:.0f}", here[0], y + tall + 0.03, SMALL, colour=INK, align=align)  # type: ignore[arg-type]
    y += tall + 0.16
    return y + sheet.line(f"{unit}; red: chosen (bars: one standard error)", at.x, y, SMALL, colour=FAINT)


def _disagreements(sheet: Sheet, s: Surrogate, gallery: Gallery, at: Column) -> float:
    """Held-out pictures on which it does not say what the teacher says; where they end."""
    wrong = s.card.wrong
    if not wrong:
        return at.y
    y = at.y + sheet.line(f"{len(wrong)} of {s.card.count} where they differ", at.x, at.y, TEXT, bold=True) + 0.05
    columns = int((at.width + 0.08) // (_THUMB + 0.08))
    found = s.probabilities().argmax(1)
    for n, i in enumerate(wrong[:_SHOWN]):
        x = at.x + (n % columns) * (_THUMB + 0.08)
        if n and n % columns == 0:
            y += _THUMB + 0.3
        sheet.image(gallery.picture(i), x, y, _THUMB, _THUMB)
        teacher = s.labels[int(s.answers[i].argmax())]
        sheet.line(s.labels[int(found[i])], x, y + _THUMB + 0.02, SMALL, colour=FOR, width=_THUMB)
        sheet.line(f"not {teacher}", x, y + _THUMB + 0.12, SMALL, colour=QUIET, width=_THUMB)
    return y + _THUMB + 0.3
