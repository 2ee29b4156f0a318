"""What opens a picture or a clip again, from anywhere: the text that records keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

STILLS = frozenset(("sample", "samples", "digits", "window"))
"""What stands before the colon of a picture that is no file."""

VOLUMES = frozenset(("series", "time", "volume"))
"""The same of a volume: one series of a folder, one moment of a file, one that a package brings."""

SCHEMES: dict[str, Callable[[str], Any]] = {}
"""What stands before the colon of a clip that is no file -> what makes `Footage` of the text behind it."""


def scheme(source: str | os.PathLike[str]) -> str:
    """What stands before the colon, if it is known: `sample`, `digits`, `suite`; empty for a path."""
    prefix, colon, _ = os.fspath(source).partition(":")
    return prefix if colon and (prefix in STILLS or prefix in VOLUMES or prefix in SCHEMES) else ""


def windowed(source: str) -> tuple[str, str]:
    """The window and the file of `window:bone:FILE`; `auto` and the text itself where no window is named."""
    prefix, colon, rest = source.partition(":")
    window, second, file = rest.partition(":")
    return (window, file) if prefix == "window" and colon and second else ("auto", source)


def address(source: str | os.PathLike[str]) -> str:
    """The text that opens a source from any folder: a file, folder or glob in full, anything with a scheme as it is.

    Empty for what was made in memory, whose source is empty.
    """
    text = os.fspath(source)
    nowhere = not text or "\0" in text  # no file's name holds a zero: whoever opens it says so
    return text if nowhere or scheme(text) else str(Path(text).expanduser().resolve())
