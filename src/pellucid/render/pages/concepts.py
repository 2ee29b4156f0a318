"""All concepts of a bank as a card: their pictures, what they do to the answer, a field to find one."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import isfinite

import numpy as np

from pellucid.concepts.bank import Bank, Group
from pellucid.explanation import Record
from pellucid.render.concept_tiles import exemplars
from pellucid.render.concepts import facts, summary, what
from pellucid.render.pages.card import Card
from pellucid.render.pages.page import paragraph, picture, spoken
from pellucid.render.pages.provenance import drawer
from pellucid.render.paper.colour import number

_WIDE, _PICTURES = 160, 8  # pixels of a picture; exemplars of a concept, at most


def concept_card(bank: Bank, title: str, *, record: Record | None = None, file: str = "", top: int = 100) -> Card:
    """The whole bank, the most important concept first.

    Args:
        bank: the concepts.
        title: what they were found in.
        record: provenance.
        file: where they are saved, if they are.
        top: concepts shown, at most.
    """
    ranking = bank.ranking()[:top]
    about = what(bank)
    lines = [about, *summary(bank)] + ([f"the {top} most important are shown"] if len(bank) > top else [])
    parts = [paragraph(line) for line in lines] + [paragraph(note, warn=True) for note in bank.notes]
    hint, find = spoken("a class, a name, a number"), spoken("find a concept")
    parts.append(f'<input data-filter=".concept" placeholder="{hint}" aria-label="{find}">')
    parts += [_concept(bank, k, rank + 1) for rank, k in enumerate(ranking)]
    if record is not None:
        parts.append(drawer(record, file))
    return Card(title, about, "".join(parts))


def _concept(bank: Bank, k: int, rank: int) -> str:
    name = f"{bank.names[k]} (concept {k}, {bank.named_by[k]})" if bank.names[k] else f"concept {k}"
    shown = "".join(
        f"<figure>{picture(e.crop, 'where the concept is strongest', wide=_WIDE, css='crop')}"
        f"{picture(e.whole, 'where the concept is in the picture', wide=_WIDE)}"
        f"<figcaption>{escape(e.answer)}</figcaption></figure>"
        for e in exemplars(bank, k, _PICTURES)
    )
    return (
        f'<section class="concept"><h3><span>{rank}</span>{spoken(name)}</h3>'
        f'<div class="facts">{spoken(facts(bank, k))}</div>{_bars(bank, k)}<div class="row">{shown}</div></section>'
    )


def _bars(bank: Bank, k: int) -> str:
    """What the concept adds to the answer: over all pictures, and in the classes where that is most."""
    if bank.whole is None:
        return ""
    groups = sorted(bank.groups, key=lambda g: -abs(g.values[k]))[:5]
    rows = [bank.whole, *groups]
    ends = np.array([[g.values[k], g.low[k], g.high[k]] for g in rows])
    low, high = min(0.0, float(np.nanmin(ends))), max(0.0, float(np.nanmax(ends)))
    span = (high - low) or 1.0

    def share(value: float) -> float:
        return 100 * (value - low) / span

    return f'<div class="bars">{"".join(_bar_row(g, k, share) for g in rows)}</div>'


def _bar_row(group: Group, k: int, share: Callable[[float], float]) -> str:
    value, low, high = (float(a[k]) for a in (group.values, group.low, group.high))
    left, right = sorted((share(0.0), share(value)))
    side = "for" if value > 0 else "against"
    shapes = '<rect class="track" x="0" y="2" width="100" height="8"/>' + _rect(side, left, right - left, 2, 8)
    text = f"{'+' if value > 0 else ''}{number(value)}"
    if isfinite(low):
        shapes += _rect("mark", share(low), share(high) - share(low), 5.5, 1)
        text += f" [{number(low)}, {number(high)}]"
    shapes += _rect("mark", share(0.0) - 0.1, 0.2, 0, 12)
    track = f'<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>'
    label = f"{group.name}, {group.count} picture{'s' * (group.count != 1)}"
    return f"<span>{spoken(label)}</span>{track}<span>{escape(text)}</span>"


def _rect(css: str, x: float, width: float, y: float, height: float) -> str:
    return f'<rect class="{css}" x="{x:.2f}" y="{y:g}" width="{width:.2f}" height="{height:g}"/>'
