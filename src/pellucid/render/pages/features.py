"""Feature images as one HTML page: every picture inside it, every text escaped, no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pellucid.features.exemplars import Exemplar
from pellucid.features.feature_image import UnitPicture
from pellucid.render.features import crop, in_context
from pellucid.render.pages.page import Page, article, folded, paragraph, picture, table
from pellucid.render.paper.colour import number
from pellucid.render.paper.rgb import rgb

_STYLE = """
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:1.5rem}article{margin:0}
.row{display:flex;gap:.6rem;align-items:flex-start}.made{width:42%;flex:none}.made img{width:100%;border-radius:4px;
display:block;margin-bottom:.3rem}.seen{display:grid;grid-template-columns:repeat(4,1fr);gap:.35rem;flex:1}
figure img{width:100%;border-radius:3px;display:block}
""".strip()


def feature_page(units: Sequence[UnitPicture], about: str) -> str:
    """The page of some units, in the order given."""
    model = str(units[0].record.model.get("name") or "model")
    title = units[0].objective if len(units) == 1 else f"{len(units)} units"
    page = Page(f"{title}, {model}", style=_STYLE)
    page.say(about)
    page.say(
        "Large: made by gradient ascent. Small: what the unit looks at in the natural pictures that score highest, "
        "and the whole picture under the unit’s map. A made picture shows what could excite the unit; natural ones "
        "show what does."
    )
    for unit in units:
        page.add(_card(unit))
    return str(page)


def _card(unit: UnitPicture) -> str:
    made = "".join(picture(rgb(p), f"made for {unit.objective}") for p in unit.pictures)
    seen = "".join(_exemplar(e) for e in (unit.natural.top if unit.natural else ()))
    return article(
        unit.objective,
        f'<div class="row"><div class="made">{made}</div><div class="seen">{seen}</div></div>',
        paragraph(unit.quality.line, kind="line", warn=unit.quality.verdict != "agrees"),
        *(paragraph(note, kind="line", warn=True) for note in unit.notes),
        _figures(unit),
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
