"""How results are shown, and what their files are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pellucid.explanation import Explanation


def slug(text: str) -> str:
    """A text as part of a file name."""
    kept = "".join(c if c.isalnum() or c in "-_+" else "-" for c in text.strip())
    short = "-".join(part for part in kept.split("-") if part).encode()[:80]  # systems limit a name's bytes
    return short.decode(errors="ignore") or "input"


def unused(name: str, taken: set[str], between: str = "-", alike: Callable[[str], str] = str.casefold) -> str:
    """`name`, numbered if it is taken; then it is taken too.

    Args:
        name: of a file, which may not be that of another in upper or lower case; or whatever `alike` makes of names.
        taken: names that are, as `alike` makes them.
        between: what stands between a name and its number.
        alike: makes one of names that may not stand beside each other.
    """
    candidates = (name if i == 1 else f"{name}{between}{i}" for i in range(1, len(taken) + 2))
    found = next(c for c in candidates if alike(c) not in taken)
    taken.add(alike(found))
    return found


def names_of_inputs(folder: str | Path, sources: Iterable[str]) -> set[str]:
    """The names in `folder` that are those of the pictures explained, so that no panel is written over one."""
    home = Path(folder).resolve()
    pictures = [path for path in map(Path, sources) if path.suffix.casefold() == ".png"]
    return {path.stem.casefold() for path in pictures if path.resolve().parent == home}


def file_names(group: Sequence[Explanation]) -> list[str]:
    """A name for each explanation of one picture: its method, with its target where several were asked."""
    several = len({e.target for e in group}) > 1
    taken: set[str] = set()
    return [unused(slug(e.method) + (f".{slug(e.target)}" if several else ""), taken) for e in group]
