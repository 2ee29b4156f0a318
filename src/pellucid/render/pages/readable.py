"""A readable model as a card: its sheet, the ways of pictures through it, its words and its measured fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.interpretable.distilled import Surrogate
from pellucid.render.pages.card import Card
from pellucid.render.pages.page import figure_svg, paragraph, picture, spoken, table
from pellucid.render.pages.provenance import drawer

Way = tuple[NDArray[np.uint8], Sequence[int], str]
"""A picture, the nodes it comes through, its answer."""


def readable_card(s: Surrogate, figure: Figure, ways: Sequence[Way], file: str = "") -> Card:
    """The card of a readable model.

    Args:
        s: the readable model.
        figure: its sheet.
        ways: pictures whose way through a tree can be shown.
        file: where it is saved, if it is.
    """
    parts = [paragraph(f"{s.card.line}."), *(paragraph(note, warn=True) for note in [*s.notes, *s.card.notes])]
    parts.append(figure_svg(figure))
    if ways:
        which = spoken("Which way does a picture go?")
        parts.append(f'<h3>{which}</h3><div class="ways">{"".join(map(_button, ways))}</div>')
    parts.append(
        f"<h3>{spoken('In words')}</h3><pre>{spoken(str(s.head))}</pre><h3>{spoken('Card')}</h3>{_table(s)}"
        f"{drawer(s.record, file)}"
    )
    return Card(f"{s.into} learned from {s.name}", s.card.line, "".join(parts))


def _button(way: Way) -> str:
    pixels, path, label = way
    return (
        f'<button type="button" aria-pressed="false" data-path="{" ".join(map(str, path))}">'
        f"{picture(pixels, label, kind='png')}{escape(label)}</button>"
    )


def _table(s: Surrogate) -> str:
    card = s.card
    rows: list[tuple[str, Any]] = [
        ("agreement with the teacher" if s.taught else "answers right", card.agreement),
        *((name, value) for name, value in card.baselines.items()),
        ("R2 of log-probabilities", card.r2),
        ("divergence, nats", card.divergence),
        ("answers right", card.accuracy if s.taught else None),
        ("the teacher right", card.teacher_accuracy),
        ("same answer from resampled data", None if card.stability is None else f"{card.stability:.2f}"),
        (card.unit, card.complexity),
        ("held-out pictures", card.count),
    ]
    return table((n, v) for n, v in rows if v is not None)
