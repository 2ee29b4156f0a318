"""All concepts of a bank in one HTML file that needs nothing else: pictures inside it, every text escaped."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import isfinite

import numpy as np

from pellucid.concepts.bank import Bank, Group
from pellucid.render.concept_tiles import exemplars
from pellucid.render.concepts import facts, summary
from pellucid.render.pages.page import Page, picture
from pellucid.render.paper.colour import number

_WIDE = 160  # pixels of a picture

_STYLE = """
main{max-width:1280px}input{width:100%;padding:8px 12px;margin:0 0 16px;border:1px solid var(--rule);border-radius:8px;
font:inherit;background:var(--card);color:inherit}h2 span{color:#9aa0a8;margin-right:8px}
.row{display:flex;gap:10px;overflow-x:auto;padding-top:10px}figure{width:136px;flex:none}
figure img{width:136px;border-radius:6px;display:block;margin-bottom:4px}img.crop{height:136px}
.bars{display:grid;grid-template-columns:minmax(90px,210px) 1fr max-content;gap:3px 10px;margin-top:8px;
font-size:13px;align-items:center;max-width:760px}
.track{position:relative;height:9px;background:var(--rule);border-radius:2px}.track i{position:absolute;height:100%}
.track b{position:absolute;top:4px;height:1px;background:var(--ink)}
.track u{position:absolute;top:-2px;bottom:-2px;width:1px;background:var(--ink)}
""".strip()
_FILTER = """
const box = document.querySelector('input');
box.oninput = () => document.querySelectorAll('section').forEach(
  s => s.hidden = !s.textContent.toLowerCase().includes(box.value.toLowerCase()));
"""


def page(bank: Bank, title: str, *, pictures: int = 8, top: int = 100) -> str:
    """The whole bank, the most important concept first.

    Args:
        bank: the concepts.
        title: what they were found in.
        pictures: exemplars of each, at most.
        top: concepts shown, at most.
    """
    ranking = bank.ranking()[:top]
    about = (
        f"{len(bank)} concepts by {bank.dictionary.name} in {bank.count} pictures, layer {bank.layer} ({bank.layout})"
    )
    lines = [about, *summary(bank)] + ([f"the {top} most important are shown"] if len(bank) > top else [])
    made = Page(title, style=_STYLE, script=_FILTER)
    for line in lines:
        made.say(line)
    for note in bank.notes:
        made.say(note, warn=True)
    made.add('<input placeholder="a class, a name, a number" aria-label="find a concept">')
    for rank, k in enumerate(ranking):
        made.add(_card(bank, k, rank + 1, pictures))
    return str(made)


def _card(bank: Bank, k: int, rank: int, pictures: int) -> str:
    name = f"{bank.names[k]} (concept {k}, {bank.named_by[k]})" if bank.names[k] else f"concept {k}"
    shown = "".join(
        f"<figure>{picture(e.crop, 'where the concept is strongest', wide=_WIDE, css='crop')}"
        f"{picture(e.whole, 'where the concept is in the picture', wide=_WIDE)}"
        f"<figcaption>{escape(e.answer)}</figcaption></figure>"
        for e in exemplars(bank, k, pictures)
    )
    return (
        f"<section><h2><span>{rank}</span>{escape(name)}</h2>"
        f'<div class="facts">{escape(facts(bank, k))}</div>{_bars(bank, k)}<div class="row">{shown}</div></section>'
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
    colour = "var(--for)" if value > 0 else "var(--against)"
    track = f'<i style="left:{left:.2f}%;width:{right - left:.2f}%;background:{colour}"></i>'
    text = f"{'+' if value > 0 else ''}{number(value)}"
    if isfinite(low):
        track += f'<b style="left:{share(low):.2f}%;width:{share(high) - share(low):.2f}%"></b>'
        text += f" [{number(low)}, {number(high)}]"
    track += f'<u style="left:{share(0.0):.2f}%"></u>'
    label = f"{group.name}, {group.count} picture{'s' * (group.count != 1)}"
    return f'<span>{escape(label)}</span><span class="track">{track}</span><span>{escape(text)}</span>'
