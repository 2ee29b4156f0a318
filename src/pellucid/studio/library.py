"""All results in the studio's folder, found by what their records say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shelved:
    """A saved result, as a list tells of it.

    Attributes:
        id: made here, out of where it is.
        file: its `.json`.
        kind: what it is.
        name: of its input.
        model, method, target, verdict: of its record; empty where there is none.
        created: when, as its record says.
        source: the name that a registry of models may know it by.
        problem: why it cannot be shown; empty where it can.
    """

    id: str
    file: Path
    kind: str
    name: str
    model: str
    method: str
    target: str
    verdict: str
    created: str
    source: str = ""
    problem: str = ""


class Library:
    """The results below a folder; files that did not change are not read again.

    Args:
        home: the folder; jobs' folders are in it.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._known: dict[Path, tuple[float, Shelved | None]] = {}

    def all(self) -> list[Shelved]:
        """Every result, the newest first."""
        files = [f for pattern in ("*.json", "*/*.json") for f in self._home.glob(pattern)]
        found = [self._shelved(f) for f in files if not f.parent.name.startswith(".")]
        return sorted((s for s in found if s is not None), key=lambda s: s.created, reverse=True)

    def get(self, id: str) -> Shelved | None:
        """A result by its id."""
        return next((s for s in self.all() if s.id == id), None)

    def of_job(self, id: str) -> list[Shelved]:
        """The results of a job."""
        files = sorted((self._home / id).glob("*.json"))
        return [s for s in map(self._shelved, files) if s is not None]

    def find(self, text: str = "", **wanted: str) -> list[Shelved]:
        """Results that hold a text, and whose `model`, `method` or `verdict` is as wanted."""
        low = text.casefold()
        return [
            s
            for s in self.all()
            if low in f"{s.name} {s.model} {s.method} {s.target} {s.kind}".casefold()
            and all(getattr(s, key) == value for key, value in wanted.items() if value)
        ]

    def _shelved(self, file: Path) -> Shelved | None:
        try:
            changed = file.stat().st_mtime
        except OSError:
            return None
        if self._known.get(file, (0.0, None))[0] != changed:
            self._known[file] = (changed, _read(file, self._home))
        return self._known[file][1]


def _read(file: Path, home: Path) -> Shelved | None:
    try:
        meta: Any = json.loads(file.read_bytes())
        format = str(meta["format"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not format.startswith("pellucid-") or not file.with_name(f"{file.name[:-5]}.npz").exists():
        return None
    id = hashlib.sha256(file.relative_to(home).as_posix().encode()).hexdigest()[:16]
    record = meta.get("record") or {}

    def told(part: str, key: str) -> str:
        value = record.get(part)
        return str(value.get(key) or "") if isinstance(value, dict) else ""

    quality = meta.get("quality")
    source = (record.get("model") or {}).get("source") if isinstance(record.get("model"), dict) else None
    return Shelved(
        id,
        file,
        format.removeprefix("pellucid-").partition("/")[0],
        told("input", "name") or file.stem,
        told("model", "name"),
        told("method", "name"),
        str(meta.get("target") or record.get("target") or ""),
        str(quality.get("verdict") or "") if isinstance(quality, dict) else "",
        str(record.get("created") or ""),
        str(source.get("name") or told("model", "name")) if isinstance(source, dict) else "",
    )
