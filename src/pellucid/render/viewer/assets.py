"""The viewer's script and style as texts: its modules linked into one, in the order in which they need each other."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

import numpy as np

from pellucid.language import chosen, translated
from pellucid.render.viewer.texts import VIEWER

COLOUR_MAPS = ("inferno", "viridis", "cividis", "RdBu_r", "PuOr")
"""What the viewer offers, all of them safe for colour-blind eyes: three from dark to light, two with a neutral zero."""

_STOPS = 65  # of each table; the viewer draws straight lines between them
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z]+)\.js";\n', re.M)


@cache
def style() -> str:
    """The style of pages, and of the viewer in them."""
    return _text("page.css") + _text("viewer.css")


def script() -> str:
    """The viewer, and what pages can do beside it, as one module that imports nothing."""
    return _script(chosen())


@cache
def _script(_language: str) -> str:
    written: dict[str, str] = {}
    _link("view", written)
    _link("pages", written)
    return "\n".join(written.values())


def _link(name: str, written: dict[str, str]) -> None:
    """Add a module behind those that it imports; all share one scope, so a name means one thing everywhere."""
    text = _made(name) or _text(f"{name}.js")
    for needed in _IMPORT.findall(text):
        if needed[1] not in written:
            _link(needed[1], written)
    written[name] = re.sub(r"^export ", "", _IMPORT.sub("", text), flags=re.M)


def _made(name: str) -> str:
    """Modules that are data."""
    if name == "texts":
        texts = {name: translated(text) for name, text in VIEWER.items()}
        return f"export const TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
    if name == "tables":
        return f"export const TABLES = {json.dumps({m: _table(m) for m in COLOUR_MAPS})};\n"
    return ""


def _table(name: str) -> str:
    """The stops of a colour map, six hexadecimal digits each; dark ends of diverging ones are left out."""
    from matplotlib import colormaps

    from pellucid.render.paper.colour import ENDS

    inner = ENDS if name in ("RdBu_r", "PuOr") else 0.0
    rgb = colormaps[name].resampled(2056)(np.linspace(inner, 1 - inner, _STOPS))[:, :3]
    return "".join(f"{round(255 * float(v)):02x}" for stop in rgb for v in stop)


def _text(name: str) -> str:
    return (files("pellucid.render.viewer") / name).read_text(encoding="utf-8")
