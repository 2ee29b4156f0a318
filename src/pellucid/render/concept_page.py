"""All concepts of a bank in one HTML file that needs nothing else: pictures inside it, every text escaped."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from html import escape
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.concepts.bank import Bank, Group
from pellucid.render.colour import number
from pellucid.render.concept_tiles import exemplars
from pellucid.render.concepts import facts, summary

_WIDE = 160  # pixels of a picture

_STYLE = """
:root { --ink:#1b1e23; --quiet:#666c75; --line:#e3e5e8; --for:#b2202f; --against:#2a6cab; --warn:#a34700; }
* { box-sizing:border-box }
body { margin:0; background:#f6f7f8; color:var(--ink); font:15px/1.45 system-ui, sans-serif }
main { max-width:1280px; margin:0 auto; padding:28px 20px 60px } h1 { font-size:24px; margin:0 0 4px }
.about, .facts, figcaption { color:var(--quiet); font-size:13px } .note { color:var(--warn) }
input { width:100%; padding:8px 12px; margin:16px 0; border:1px solid var(--line); border-radius:8px; font:inherit }
section { background:#fff; border:1px solid var(--line); border-radius:12px; padding:16px 18px; margin:0 0 16px }
h2 { font-size:17px; margin:0 } h2 span { color:#9aa0a8; margin-right:8px }
.row { display:flex; gap:10px; overflow-x:auto; padding-top:10px } figure { margin:0; width:136px; flex:none }
figure img { width:136px; border-radius:6px; display:block; margin-bottom:4px } img.crop { height:136px }
figcaption { overflow:hidden; text-overflow:ellipsis; white-space:nowrap }
.bars { display:grid; grid-template-columns:minmax(90px,210px) 1fr max-content; gap:3px 10px; margin-top:8px;
  font-size:13px; align-items:center; max-width:760px }
.track { position:relative; height:9px; background:#e9ebee; border-radius:2px }
.track i { position:absolute; height:100% }
.track b { position:absolute; top:4px; height:1px; background:var(--ink) }
.track u { position:absolute; top:-2px; bottom:-2px; width:1px; background:var(--ink) }
"""
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
    head = "".join(f'<div class="about">{escape(line)}</div>' for line in lines)
    head += "".join(f'<div class="note">⚠ {escape(note)}</div>' for note in bank.notes)
    cards = "\n".join(_card(bank, k, rank + 1, pictures) for rank, k in enumerate(ranking))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main>'
        f'<h1>{escape(title)}</h1>{head}<input placeholder="a class, a name, a number" aria-label="find a concept">'
        f"{cards}</main><script>{_FILTER}</script></body></html>\n"
    )


def _card(bank: Bank, k: int, rank: int, pictures: int) -> str:
    name = f"{bank.names[k]} (concept {k}, {bank.named_by[k]})" if bank.names[k] else f"concept {k}"
    shown = "".join(
        f'<figure><img class="crop" alt="where the concept is strongest" src="{_image(e.crop)}">'
        f'<img alt="where the concept is in the picture" src="{_image(e.whole)}">'
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


def _image(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.resize((_WIDE, round(_WIDE * image.height / image.width))).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
