"""One HTML file that needs nothing else: a style, pictures inside it, every text escaped, nothing fetched."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1e23;--quiet:#666c75;--card:#fff;--page:#f4f5f6;--rule:#e1e4e8;--for:#b2202f;
--against:#2a6cab;--warn:#a34700}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--quiet:#a2a8b0;--card:#1d2025;--page:#131519;--rule:#31353c;
--for:#e8737f;--against:#77b1e6;--warn:#f0a05a}}
*{box-sizing:border-box}body{margin:0;padding:2rem clamp(1rem,4vw,4rem);background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem;margin:0}h2{font-size:1rem;margin:0 0 .6rem}
header p{color:var(--quiet);margin:.2rem 0;max-width:80ch}main{margin-top:1.5rem}
article,section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:1rem;margin:0 0 1rem}
figure{margin:0}figcaption,.facts{font-size:.8rem;color:var(--quiet)}figcaption{overflow:hidden;
text-overflow:ellipsis;white-space:nowrap}p.line{margin:.7rem 0 0;font-size:.9rem}.warn{color:var(--warn)}
table{border-collapse:collapse;font-size:.85rem;margin-top:.6rem}td,th{padding:.15em .8em .15em 0;text-align:left;
border-bottom:1px solid var(--rule);font-weight:400}summary{cursor:pointer;color:var(--quiet);font-size:.8rem;
margin-top:.5rem}pre{overflow:auto;font-size:.8rem}img,svg{max-width:100%;height:auto}
""".strip()


class Page:
    """A page under way: a title, a few lines, articles.

    Args:
        title: heading and name of the page; escaped, like every text given here.
        style: what this kind of page adds to the style.
        script: what it can do; none by default.
    """

    def __init__(self, title: str, *, style: str = "", script: str = "") -> None:
        self.title, self._style, self._script = title, style, script
        self._head: list[str] = []
        self._parts: list[str] = []

    def say(self, text: str, *, warn: bool = False) -> None:
        """A line under the heading."""
        self._head.append(paragraph(text, warn=warn))

    def add(self, markup: str) -> None:
        """A part of the page, as markup that is escaped already."""
        self._parts.append(markup)

    def __str__(self) -> str:
        title, script = escape(self.title), f"<script>{self._script}</script>" if self._script else ""
        body = "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{title}</title>'
            f"<style>{_STYLE}{self._style}</style></head><body><header><h1>{title}</h1>{''.join(self._head)}</header>"
            f"<main>\n{body}\n</main>{script}</body></html>\n"
        )


def article(title: str, *parts: str) -> str:
    """A card of markup under a heading."""
    return f"<article><h2>{escape(title)}</h2>{''.join(parts)}</article>"


def paragraph(text: str, *, kind: str = "", warn: bool = False) -> str:
    """A text as a paragraph; a warning stands out in colour and by its sign."""
    classes = " ".join(filter(None, (kind, "warn" if warn else "")))
    return f"<p{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}>{'⚠ ' if warn else ''}{escape(text)}</p>"


def table(rows: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """Names and what they are."""
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    cells = "".join(f"<tr><th>{escape(str(n))}</th><td>{escape(str(v))}</td></tr>" for n, v in pairs)
    return f"<table>{cells}</table>"


def folded(title: str, markup: str) -> str:
    """What is shown on demand."""
    return f"<details><summary>{escape(title)}</summary>{markup}</details>"


def picture(pixels: Pixels, text: str, *, kind: Literal["jpeg", "png"] = "jpeg", wide: int = 0, css: str = "") -> str:
    """A picture, inside the page.

    Args:
        pixels: `(H, W, 3)`.
        text: what is seen, for those who cannot see it.
        kind: `png` where edges must stay sharp.
        wide: resized to so many pixels' width; 0: as it is.
        css: class names.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if wide:
        image = image.resize((wide, max(1, round(wide * image.height / image.width))))
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **({"quality": 88, "subsampling": 0} if kind == "jpeg" else {}))
    data = b64encode(buffer.getvalue()).decode()
    of = f' class="{css}"' if css else ""
    return f'<img{of} alt="{escape(text, quote=True)}" src="data:image/{kind};base64,{data}">'


def figure_svg(figure: Figure) -> str:
    """A figure as SVG: the same text for the same figure, with no date inside; text stays text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "pellucid", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"<\?xml.*?<svg", "<svg", buffer.getvalue(), count=1, flags=re.S)
