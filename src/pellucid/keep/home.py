"""Where things are kept that can be computed again: the one reader of `PELLUCID_CACHE`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "PELLUCID_CACHE"


def cache_folder(kind: str) -> Path | None:
    """The folder for one kind of thing (`exemplars`, `features`, `suites`); None where nothing is to be kept.

    `PELLUCID_CACHE` names the folder above it; `off`, or nothing at all, keeps nothing. Where it is not set, the folder
    is the system's own for such things: `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches` on macOS, `%LOCALAPPDATA%`
    on Windows, and in it `pellucid`.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return None if named.strip().casefold() in ("", "off") else Path(named).expanduser() / kind
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local") / "pellucid" / "Cache"
    elif sys.platform == "darwin":
        home = Path("~/Library/Caches/pellucid")
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pellucid"
    return home.expanduser() / kind
