"""The heat maps of one input as a card: the viewer, what the model said, how far each map may be believed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from pellucid.explanation import Explanation, Prediction
from pellucid.language import counted
from pellucid.render.figure import caption
from pellucid.render.pages import texts
from pellucid.render.pages.card import Card
from pellucid.render.pages.page import folded, paragraph, spoken, table
from pellucid.render.pages.provenance import drawer
from pellucid.render.pages.trust import trust
from pellucid.render.paper.colour import number
from pellucid.render.viewer.plain import data_uri
from pellucid.render.viewer.view import still, view


def heatmap_card(
    explanations: Sequence[Explanation], files: Sequence[str] = (), media: str | None = None, *, raw: bool = True
) -> Card:
    """The card of explanations of one input, in the order given.

    Args:
        explanations: at least one.
        files: where each is saved, if it is.
        media: address of the original; None puts it into the page.
        raw: whether the raw values are in the page; else each map is a picture.
    """
    first = explanations[0]
    named = list(files) or [""] * len(explanations)
    maps = [e for e in explanations if e.kind == "map"]
    shown = ""
    if maps:
        shown = view(maps, media) if raw else "".join(map(_static, maps))
    trusted = "".join(_trusted(e, file) for e, file in zip(explanations, named, strict=True))
    parts = [shown, said(first.prediction), f'<div class="trusts">{trusted}</div>']
    verdicts = [e.quality.verdict if e.quality else "" for e in explanations]
    known = [v for v in verdicts if v]
    verdict = ", ".join(dict.fromkeys(known)) or texts.NOT_MEASURED
    return Card(caption(explanations), _line(explanations), "".join(parts), verdict, set(verdicts) == {"faithful"})


def _line(explanations: Sequence[Explanation]) -> str:
    first = explanations[0]
    answers = ", ".join(f"{p.label} {p.said()}" for p in first.prediction[:2])
    return f"{first.record.model.get('name') or 'model'}: {answers or 'no class scores'}"


def said(prediction: Sequence[Prediction]) -> str:
    """What the model answered, as bars."""
    if not prediction:
        return ""
    rows = "".join(
        f'<tr><th>{escape(p.label)}</th><td><meter min="0" max="1" value="{_share(p):.4f}"></meter></td>'
        f"<td>{spoken(p.said(1))}</td></tr>"
        for p in prediction[:5]
    )
    return f'<h3>{spoken(texts.SAID)}</h3><table class="said">{rows}</table>'


def _share(p: Prediction) -> float:
    return p.probability if p.probability == p.probability else 0.0


def _passes(e: Explanation, way: str) -> str:
    count = e.record.run.get(f"{way}s")
    return f"unknown {way}s" if count is None else counted(count if isinstance(count, int) else round(count, 1), way)


def _trusted(e: Explanation, file: str) -> str:
    where = f", layer {e.layer}" if e.layer else ""
    rows: dict[str, Any] = {
        "values": f"{number(float(e.attribution.min()))} to {number(float(e.attribution.max()))}, as they are",
        **{name.replace("_", " "): number(float(value)) for name, value in e.facts.items()},
        "passes": ", ".join(_passes(e, way) for way in ("forward", "backward")),
    }
    ranking = ""
    if e.kind == "channels":
        ranking = folded(texts.VALUES, table((f"channel {k}", number(v)) for k, v in e.ranking()[:20]))
    return (
        f"<section><h3>{spoken(f'{e.method} for {e.target}{where}')}</h3>{trust(e)}"
        f"{''.join(paragraph(remark, kind='line') for remark in e.remarks)}"
        f"{''.join(paragraph(note, kind='line', warn=True) for note in e.notes)}{table(rows)}{ranking}"
        f"{drawer(e.record, file)}</section>"
    )


def _static(e: Explanation) -> str:
    text = spoken(f"{e.name}: {e.method} for {e.target}")
    return f'<img alt="{text}" src="{data_uri(still(e, 200), "jpeg")}">'
