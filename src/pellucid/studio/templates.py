"""Pages out of templates; every value is escaped, every text goes through `_`, which finds it in the catalogue."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pellucid.language import LANGUAGES, chosen, translated


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("pages")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["_"] = translated
    made.filters["moment"] = _moment
    return made


def render(name: str, **values: Any) -> str:
    """A template with its values."""
    return _environment().get_template(name).render(language=chosen(), languages=LANGUAGES, **values)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
