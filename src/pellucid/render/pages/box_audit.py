"""An audit of boxes as a card: the summary, each slice with its pictures, misses and false boxes, the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from pellucid.audit.boxes import BoxTable
from pellucid.audit.slices import WeakSlice
from pellucid.errors import MediaError
from pellucid.explanation import Record
from pellucid.media import read_image
from pellucid.render.pages.audit import named, section, slices_table
from pellucid.render.pages.card import Card
from pellucid.render.pages.figures import rows_table
from pellucid.render.pages.page import folded, paragraph, picture, spoken
from pellucid.render.pages.provenance import drawer
from pellucid.render.viewer.outlines import edge_runs

_SIDE, _SHOWN = 168, 6  # pixels of a picture, pictures of a finding
_TRUE, _ANSWERED = (20, 200, 60), (255, 140, 0)
_LEGEND = "Green: what is there. Orange: what is answered. The one that is meant is drawn thick; a number is its score."


class OfBoxes(Protocol):
    """What the card is made of; see `results.box_audit`."""

    table: BoxTable
    sources: list[str]
    labels: list[str]
    slices: list[WeakSlice]
    record: Record
    notes: list[str]

    @property
    def sure_slices(self) -> list[WeakSlice]:
        """Those beyond chance."""

    def lines(self) -> Any:
        """The summary."""

    def rows(self) -> list[dict[str, Any]]:
        """One row an object or box."""

    def by_class(self) -> list[dict[str, Any]]:
        """One row a class."""


def box_audit_card(found: OfBoxes, title: str, *, file: str = "") -> Card:
    """An audit of boxes as a part of a page.

    Args:
        found: by the audit.
        title: heading.
        file: where it is saved, if it is.
    """
    t, rows = found.table, found.rows()
    lines = list(found.lines())
    parts = [paragraph(line) for line in lines] + [paragraph(note, warn=True) for note in found.notes]
    parts.append(paragraph(_LEGEND))
    for s in found.sure_slices:
        wrong = [i for i in s.members if rows[i]["verdict"] == s.fault]
        parts.append(section(s.name, paragraph(s.line), _row(found, rows, wrong)))
    size = t.properties[:, 4]
    for name, verdict, order in (
        ("Missed, the largest first", "missed", -size),
        ("Misplaced", "misplaced", t.overlaps),
        ("False, the surest first", "false", -t.scores),
    ):
        members = [int(i) for i in np.argsort(order, kind="stable") if rows[i]["verdict"] == verdict]
        if members:
            parts.append(section(name, _row(found, rows, members)))
    if len(t):
        parts.append(section("Classes", rows_table(found.by_class())))
    parts.append(section("What was tested", folded("Slices", slices_table(found.slices))))
    parts.append(drawer(found.record, file))
    return Card(title, lines[0], "".join(parts))


def _row(found: OfBoxes, rows: Sequence[Mapping[str, Any]], members: Sequence[int]) -> str:
    shown = [_figure(found, rows[i], i) for i in members[:_SHOWN]]
    more = len(members) - len(shown)
    return f'<div class="row">{"".join(shown)}</div>' + (paragraph(f"and {more} more, in the table") if more else "")


def _figure(found: OfBoxes, row: Mapping[str, Any], i: int) -> str:
    """What is around a box, with all boxes there, and what became of it below."""
    said = f"{row['verdict']}: {row['class']}"
    said += f" {row['score']:.2f}" if row["score"] == row["score"] else ""
    beside = f"<br>{spoken(row['fault'])}" if row["fault"] else ""
    pixels = _around(found, i)
    drawn = picture(pixels, said) if pixels is not None else ""
    return f"<figure>{drawn}<figcaption>{spoken(said)}{beside}{named(row['source'])}</figcaption></figure>"


def _around(found: OfBoxes, i: int) -> NDArray[np.uint8] | None:
    """The picture around a box, twice as wide; None where it cannot be opened again."""
    t = found.table
    try:
        image = read_image(found.sources[int(t.pictures[i])]).pil()
    except MediaError:
        return None
    x0, y0, x1, y1 = (float(v) for v in t.boxes[i])
    side = min(max(2 * max(x1 - x0, y1 - y0), 16.0), float(max(image.size)))
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    scale = _SIDE / side
    shown = image.crop((round(left), round(top), round(left + side), round(top + side))).resize((_SIDE, _SIDE))
    pen = ImageDraw.Draw(shown)
    same = np.flatnonzero(t.pictures == t.pictures[i])
    answered = t.are("right", "false")
    for j in sorted(same, key=lambda j: j == i):
        edges = [(float(v) - start) * scale for v, start in zip(t.boxes[j], (left, top) * 2, strict=True)]
        colour, width = _ANSWERED if answered[j] else _TRUE, 4 if j == i else 1
        if t.shapes.size:
            _outline(pen, t.shapes[j], edges, colour, width)
        else:
            pen.rectangle(edges, outline=colour, width=width)
    return np.asarray(shown)


def _outline(
    pen: ImageDraw.ImageDraw, shape: NDArray[np.bool_], edges: Sequence[float], colour: tuple[int, int, int], width: int
) -> None:
    """The edge of a region that a grid `(S, S)` over its box tells of, in pixels of the picture."""
    x0, y0, x1, y1 = edges
    x, y = np.linspace(x0, x1, shape.shape[1] + 1), np.linspace(y0, y1, shape.shape[0] + 1)
    rows, columns = edge_runs(shape)
    for c, start, stop in columns:
        pen.line((x[c], y[start], x[c], y[stop]), fill=colour, width=width)
    for r, start, stop in rows:
        pen.line((x[start], y[r], x[stop], y[r]), fill=colour, width=width)
