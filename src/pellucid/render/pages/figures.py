"""Results whose card is their figure and their numbers: importance, activations, atlases, concept tests, any other."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.explanation import Prediction, Record
from pellucid.render.pages import texts
from pellucid.render.pages.card import Card
from pellucid.render.pages.heatmaps import said
from pellucid.render.pages.page import folded, paragraph, prose, spoken
from pellucid.render.pages.provenance import drawer
from pellucid.render.paper.colour import number
from pellucid.render.save import figure_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 60  # of a table inside a page
_HEADS = {"low": "interval from", "high": "interval to"}  # columns whose names say too little by themselves


def figure_card(
    caption: str,
    figure: Figure,
    *,
    record: Record | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
    notes: Iterable[str] = (),
    prediction: Sequence[Prediction] = (),
    file: str = "",
) -> Card:
    """The card of a result that is a figure.

    Args:
        caption: what the figure shows, in words.
        figure: the result drawn.
        record: provenance.
        rows: its numbers.
        notes: what a reader must know.
        prediction: what the model said of the input, if there is one.
        file: where it is saved, if it is.
    """
    data = b64encode(figure_png(figure, 110)).decode()
    title = caption.splitlines()[0]
    parts = [
        f'<img class="sheet" alt="{spoken(caption)}" src="data:image/png;base64,{data}">',
        *(paragraph(note, kind="line", warn=True) for note in notes),
        said(prediction),
        folded(texts.VALUES, rows_table(rows)) if rows else "",
        drawer(record, file) if record is not None else "",
    ]
    return Card(title, record.model_name if record else "", "".join(parts))


def rows_table(rows: Sequence[Mapping[str, Any]], most: int = _ROWS) -> str:
    """Plain rows as a table; the first ones where there are many."""
    names = list(rows[0])
    head = "".join(f'<th scope="col">{spoken(_HEADS.get(str(n), str(n)))}</th>' for n in names)
    body = "".join(f"<tr>{''.join(f'<td>{prose(_cell(row.get(n)))}</td>' for n in names)}</tr>" for row in rows[:most])
    rest = paragraph(f"{len(rows) - most} further rows", kind="facts") if len(rows) > most else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{rest}'


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if math.isnan(value) else number(value)
    return "" if value is None else str(value)
