"""The heat maps of one picture as one HTML page: how far each may be believed, and how to get it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from pellucid.explanation import Explanation
from pellucid.render.figure import panel
from pellucid.render.pages.page import Page, article, figure_svg, folded, paragraph, table
from pellucid.render.paper.colour import number


def heatmap_page(explanations: Sequence[Explanation], title: str) -> str:
    """The page of explanations of one picture, in the order given."""
    first = explanations[0]
    page = Page(title, style="main>svg{background:#fff;border-radius:10px;margin-bottom:1rem}")
    said = ", ".join(f"{p.label} {p.probability:.0%}" for p in first.prediction[:3])
    page.say(f"{first.record.model['name']}{f': {said}' if said else ''}")
    page.add(figure_svg(panel(explanations)))
    for e in explanations:
        page.add(_card(e))
    return str(page)


def _card(e: Explanation) -> str:
    where = f", layer {e.layer}" if e.layer else ""
    line = e.quality.line if e.quality else "not checked: how far this map may be believed was not measured"
    rows: dict[str, Any] = {
        "target": e.target,
        "picture": e.name,
        "values": f"{number(float(e.attribution.min()))} to {number(float(e.attribution.max()))}, as they are",
        **{name.replace("_", " "): number(float(value)) for name, value in e.facts.items()},
    }
    record = json.dumps({"record": e.record.__dict__}, indent=2, ensure_ascii=False, default=str)
    return article(
        f"{e.method}{where}",
        paragraph(line, kind="line", warn=e.quality is not None and not e.quality.verdict.startswith("faithful")),
        *(paragraph(remark, kind="line") for remark in e.remarks),
        *(paragraph(note, kind="line", warn=True) for note in e.notes),
        table(rows),
        folded("Record", f"<pre>{escape(record)}</pre>"),
    )
