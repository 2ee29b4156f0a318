"""A readable model as SVG, and as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.interpretable.distilled import Surrogate
from pellucid.render.pages.page import Page, figure_svg, picture, table

Way = tuple[NDArray[np.uint8], Sequence[int], str]
"""A picture, the nodes it comes through, its answer."""

_STYLE = """
main{max-width:1500px}main>svg{background:#fff;border-radius:10px}
.ways{display:flex;flex-wrap:wrap;gap:8px}
.ways button{border:2px solid var(--rule);background:var(--card);color:inherit;padding:3px;cursor:pointer}
.ways button:hover,.ways button:focus,.ways button[aria-pressed=true]{border-color:#b2202f}
.ways img{display:block;width:72px}
.on path{stroke:#b2202f!important;stroke-width:3!important}
"""
_SCRIPT = """
document.querySelectorAll('.ways button').forEach(b=>b.addEventListener('click',()=>{
document.querySelectorAll('.on').forEach(e=>e.classList.remove('on'));
document.querySelectorAll('.ways button').forEach(o=>o.setAttribute('aria-pressed',o===b));
b.dataset.path.split(' ').forEach(n=>['edge-','node-'].forEach(k=>{const e=document.getElementById(k+n);
if(e)e.classList.add('on')}))}))
"""


def readable_page(s: Surrogate, figure: Figure, ways: Sequence[Way]) -> str:
    """The page; every text in it is escaped.

    Args:
        s: the readable model.
        figure: its sheet.
        ways: pictures whose way through a tree can be shown.
    """
    page = Page(f"{s.into} for {s.name}", style=_STYLE, script=_SCRIPT if ways else "")
    page.say(f"{s.card.line}.")
    for note in [*s.notes, *s.card.notes]:
        page.say(note, warn=True)
    page.add(figure_svg(figure))
    if ways:
        page.add(f'<h2>Which way does a picture go?</h2><div class="ways">{"".join(map(_button, ways))}</div>')
    page.add(f"<h2>In words</h2><pre>{escape(str(s.head))}</pre><h2>Card</h2>{_table(s)}")
    return str(page)


def _button(way: Way) -> str:
    pixels, path, label = way
    return (
        f'<button type="button" aria-pressed="false" data-path="{" ".join(map(str, path))}">'
        f"{picture(pixels, label, kind='png')}{escape(label)}</button>"
    )


def _table(s: Surrogate) -> str:
    card = s.card
    rows: list[tuple[str, Any]] = [
        ("agreement with the teacher" if s.taught else "right", card.agreement),
        *((name, value) for name, value in card.baselines.items()),
        ("R2 of log-probabilities", card.r2),
        ("divergence, nats", card.divergence),
        ("right", card.accuracy if s.taught else None),
        ("the teacher right", card.teacher_accuracy),
        ("same answer from resampled data", None if card.stability is None else f"{card.stability:.2f}"),
        (card.unit, card.complexity),
        ("held-out pictures", card.count),
    ]
    return table((n, v) for n, v in rows if v is not None)
