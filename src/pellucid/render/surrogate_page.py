"""A readable model as SVG, and as one HTML page that needs nothing else."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pellucid.interpretable.distilled import Surrogate

Way = tuple[NDArray[np.uint8], Sequence[int], str]
"""A picture, the nodes it comes through, its answer."""

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b1e23;margin:2em auto;max-width:1500px;padding:0 1em}
svg{max-width:100%;height:auto}
pre{background:#f4f5f7;padding:1em;overflow:auto}
.ways{display:flex;flex-wrap:wrap;gap:8px}
.ways button{border:2px solid #e9ebee;background:#fff;padding:3px;cursor:pointer}
.ways button:hover,.ways button:focus,.ways button[aria-pressed=true]{border-color:#b2202f}
.ways img{display:block;width:72px}
.on path{stroke:#b2202f!important;stroke-width:3!important}
table{border-collapse:collapse}
td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #e9ebee}
"""
_SCRIPT = """
document.querySelectorAll('.ways button').forEach(b=>b.addEventListener('click',()=>{
document.querySelectorAll('.on').forEach(e=>e.classList.remove('on'));
document.querySelectorAll('.ways button').forEach(o=>o.setAttribute('aria-pressed',o===b));
b.dataset.path.split(' ').forEach(n=>['edge-','node-'].forEach(k=>{const e=document.getElementById(k+n);
if(e)e.classList.add('on')}))}))
"""


def figure_svg(figure: Figure) -> str:
    """A figure as SVG: the same text for the same figure, with no date inside; text stays text."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "pellucid", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"<\\?xml.*?<svg", "<svg", buffer.getvalue(), count=1, flags=re.S)


def surrogate_page(s: Surrogate, figure: Figure, ways: Sequence[Way]) -> str:
    """The page; every text in it is escaped.

    Args:
        s: the readable model.
        figure: its sheet.
        ways: pictures whose way through a tree can be shown.
    """
    title = escape(f"{s.into} for {s.name}")
    buttons = "".join(
        f'<button type="button" aria-pressed="false" data-path="{" ".join(map(str, path))}">'
        f'<img alt="{escape(label, quote=True)}" src="data:image/png;base64,{_png(pixels)}">{escape(label)}</button>'
        for pixels, path, label in ways
    )
    choose = f'<h2>Which way does a picture go?</h2><div class="ways">{buttons}</div>' if ways else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(s.card.line)}.</p>{_notes(s)}{figure_svg(figure)}{choose}"
        f"<h2>In words</h2><pre>{escape(str(s.head))}</pre><h2>Card</h2>{_table(s)}"
        f"<script>{_SCRIPT if ways else ''}</script></html>"
    )


def _notes(s: Surrogate) -> str:
    return "".join(f"<p>&#9888; {escape(note)}</p>" for note in [*s.notes, *s.card.notes])


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
    cells = "".join(f"<tr><th>{escape(n)}</th><td>{escape(str(v))}</td></tr>" for n, v in rows if v is not None)
    return f"<table>{cells}</table>"


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return b64encode(buffer.getvalue()).decode()
