"""One HTML file that needs nothing else: a style, pictures inside it, every text escaped, nothing fetched."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.language import chosen, translated
from pellucid.render.viewer.assets import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

_CODE = re.compile(r"`([^`]+)`")


class Page:
    """A page under way: a title, a few lines, articles.

    Args:
        title: heading and name of the page; escaped, like every text given here.
        script: the module that it runs, which no other script may join; none by default.
    """

    def __init__(self, title: str, *, script: str = "") -> None:
        self.title, self._script = title, script
        self._head: list[str] = []
        self._parts: list[str] = []

    def say(self, text: str, *, warn: bool = False) -> None:
        """A line under the heading."""
        self._head.append(paragraph(text, warn=warn))

    def add(self, markup: str) -> None:
        """A part of the page, as markup that is escaped already."""
        self._parts.append(markup)

    def __str__(self) -> str:
        title, body = spoken(self.title), "\n".join(self._parts)
        script = f'<script type="module">{self._script}</script>' if self._script else ""
        return (
            f'<!doctype html>\n<html lang="{chosen()}"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(self._script)}">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{title}</title>'
            f"<style>{style()}</style></head><body><header><h1>{title}</h1>{''.join(self._head)}</header>"
            f"<main>\n{body}\n</main>{script}</body></html>\n"
        )


def _policy(script: str) -> str:
    """What the page may do: show what is inside it, run its one script, ask no host for anything."""
    runs = f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    return f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src {runs}"


def spoken(text: str) -> str:
    """A text in the reader's language, escaped."""
    return escape(translated(text))


def prose(text: str) -> str:
    """A text in the reader's language; what stands between backticks is marked as code."""
    return _CODE.sub(r"<code>\1</code>", spoken(text))


def article(title: str, *parts: str) -> str:
    """A card of markup under a heading."""
    return f"<article><h2>{spoken(title)}</h2>{''.join(parts)}</article>"


def paragraph(text: str, *, kind: str = "", warn: bool = False) -> str:
    """A text as a paragraph; a warning stands out in colour and by its sign."""
    classes = " ".join(filter(None, (kind, "warn" if warn else "")))
    return f"<p{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}>{'⚠ ' if warn else ''}{prose(text)}</p>"


def table(rows: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """Names and what they are."""
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    cells = "".join(f"<tr><th>{spoken(str(n))}</th><td>{spoken(str(v))}</td></tr>" for n, v in pairs)
    return f"<table>{cells}</table>"


def folded(title: str, markup: str) -> str:
    """What is shown on demand."""
    return f"<details><summary>{spoken(title)}</summary>{markup}</details>"


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
    return f'<img{of} alt="{spoken(text)}" src="data:image/{kind};base64,{data}">'


def figure_svg(figure: Figure) -> str:
    """A figure as SVG: the same text for the same figure, with no date inside; text stays text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "pellucid", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"<\?xml.*?<svg", "<svg", buffer.getvalue(), count=1, flags=re.S)
