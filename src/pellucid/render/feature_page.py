"""Feature images as one HTML page: every picture inside it, every text escaped, no script, nothing fetched."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image

from pellucid.features.exemplars import Exemplar
from pellucid.features.feature_image import UnitPicture
from pellucid.render.colour import number
from pellucid.render.features import crop, in_context
from pellucid.render.rgb import Pixels, rgb

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1e23;--quiet:#666c75;--card:#fff;--page:#f4f5f6;--rule:#e1e4e8;--warn:#a34700}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--quiet:#a2a8b0;--card:#1d2025;--page:#131519;--rule:#31353c;
--warn:#f0a05a}}
*{box-sizing:border-box}body{margin:0;padding:2rem clamp(1rem,4vw,4rem);background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem;margin:0}header p{color:var(--quiet);margin:.2rem 0;
max-width:70ch}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:1.5rem;margin-top:1.5rem}
article{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:1rem}
h2{font-size:1rem;margin:0 0 .6rem}
.row{display:flex;gap:.6rem;align-items:flex-start}.made{width:42%;flex:none}.made img{width:100%;border-radius:4px;
display:block;margin-bottom:.3rem}.seen{display:grid;grid-template-columns:repeat(4,1fr);gap:.35rem;flex:1}
figure{margin:0}figure img{width:100%;border-radius:3px;display:block}figcaption{font-size:.72rem;
color:var(--quiet);overflow:hidden;text-overflow:ellipsis;white-space:nowrap}p.line{margin:.7rem 0 0;font-size:.9rem}
p.warn{color:var(--warn)}table{margin-top:.6rem;font-size:.8rem;color:var(--quiet);border-collapse:collapse}
td{padding:.05rem .8rem .05rem 0}summary{cursor:pointer;color:var(--quiet);font-size:.8rem;margin-top:.5rem}
""".strip()


def feature_page(units: Sequence[UnitPicture], about: str) -> str:
    """The page of some units, in the order given."""
    model = str(units[0].record.model.get("name") or "model")
    title = units[0].objective if len(units) == 1 else f"{len(units)} units"
    cards = "\n".join(_card(unit) for unit in units)
    head = escape(f"{title}, {model}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{head}</title>'
        f"<style>{_STYLE}</style></head><body><header><h1>{head}</h1><p>{escape(about)}</p>"
        "<p>Large: made by gradient ascent. Small: what the unit looks at in the natural pictures that score highest, "
        "and the whole picture under the unit’s map. A made picture shows what could excite the unit; natural ones "
        f"show what does.</p></header><main>\n{cards}\n</main></body></html>\n"
    )


def _card(unit: UnitPicture) -> str:
    made = "".join(f"{_image(rgb(p), f'made for {unit.objective}')}" for p in unit.pictures)
    top = unit.natural.top if unit.natural else ()
    seen = "".join(_exemplar(e) for e in top)
    warn = "" if unit.quality.verdict == "agrees" else " warn"
    notes = "".join(f'<p class="line warn">{escape(note)}</p>' for note in unit.notes)
    return (
        f'<article><h2>{escape(unit.objective)}</h2><div class="row"><div class="made">{made}</div>'
        f'<div class="seen">{seen}</div></div><p class="line{warn}">{escape(unit.quality.line)}</p>{notes}'
        f"{_figures(unit)}</article>"
    )


def _exemplar(e: Exemplar) -> str:
    name, said = e.origin.name, escape(f"{e.origin.name}, {number(e.score)}")
    part, whole = (
        _image(crop(e), f"what the unit looks at in {name}"),
        _image(in_context(e), f"{name} under the unit’s map"),
    )
    return f"<figure>{part}{whole}<figcaption>{said}</figcaption></figure>"


def _figures(unit: UnitPicture) -> str:
    """All measured figures, folded."""
    rows = {"objective reached": unit.reached} | dict(unit.facts) | dict(unit.quality.figures)
    if unit.quality.standing is not None:
        rows |= {f"standing: {k}": v for k, v in unit.quality.standing.as_dict().items()}
    if unit.quality.choice is not None:
        rows |= {f"forced choice: {k}": v for k, v in unit.quality.choice.as_dict().items()}
    cells = "".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(number(float(v)))}</td></tr>"
        for k, v in rows.items()
        if math.isfinite(float(v))
    )
    return f"<details><summary>All figures</summary><table>{cells}</table></details>"


def _image(pixels: Pixels, text: str) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88, subsampling=0)
    data = b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(text, quote=True)}" src="data:image/jpeg;base64,{data}">'
