"""Feature images as a card: what was made, what nature offers, how far it may be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pellucid.features.exemplars import Exemplar
from pellucid.features.feature_image import UnitPicture
from pellucid.render.features import crop, in_context
from pellucid.render.pages.card import Card
from pellucid.render.pages.page import folded, paragraph, picture, spoken, table
from pellucid.render.pages.provenance import drawer
from pellucid.render.paper.colour import number
from pellucid.render.paper.rgb import rgb


def feature_card(units: Sequence[UnitPicture], about: str, file: str = "") -> Card:
    """The card of some units, in the order given."""
    title = units[0].objective if len(units) == 1 else f"{len(units)} units"
    name = units[0].record.model_name
    verdicts = list(dict.fromkeys(u.quality.verdict for u in units))
    parts = [paragraph(about), paragraph(_READ), f'<div class="units">{"".join(map(_unit, units))}</div>']
    return Card(
        f"{title}, {name}",
        about,
        "".join(parts) + drawer(units[0].record, file),
        ", ".join(verdicts),
        verdicts == ["agrees"],
    )


_READ = (
    "Large: made by gradient ascent. Small: what the unit looks at in the natural pictures that score highest, and the "
    "whole picture under the unit’s map. A made picture shows what could excite the unit; natural ones show what does."
)


def _unit(unit: UnitPicture) -> str:
    made = "".join(picture(rgb(p), f"made for {unit.objective}") for p in unit.pictures)
    seen = "".join(_exemplar(e) for e in (unit.natural.top if unit.natural else ()))
    return (
        f'<section class="unit"><h3>{spoken(unit.objective)}</h3>'
        f'<div class="row"><div class="made">{made}</div><div class="seen">{seen}</div></div>'
        f"{paragraph(unit.quality.line, kind='line', warn=unit.quality.verdict != 'agrees')}"
        f"{''.join(paragraph(note, kind='line', warn=True) for note in unit.notes)}{_figures(unit)}</section>"
    )


def _exemplar(e: Exemplar) -> str:
    name, said = e.origin.name, escape(f"{e.origin.name}, {number(e.score)}")
    part, whole = (
        picture(crop(e), f"what the unit looks at in {name}"),
        picture(in_context(e), f"{name} under the unit’s map"),
    )
    return f"<figure>{part}{whole}<figcaption>{said}</figcaption></figure>"


def _figures(unit: UnitPicture) -> str:
    """All measured figures, folded."""
    rows = {"objective reached": unit.reached} | dict(unit.facts) | dict(unit.quality.figures)
    if unit.quality.standing is not None:
        rows |= {f"standing: {k}": v for k, v in unit.quality.standing.as_dict().items()}
    if unit.quality.choice is not None:
        rows |= {f"forced choice: {k}": v for k, v in unit.quality.choice.as_dict().items()}
    known = {k: number(float(v)) for k, v in rows.items() if math.isfinite(float(v))}
    return folded("All figures", table(known))
