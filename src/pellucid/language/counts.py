"""Numbers of things, in words."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: float, thing: str) -> str:
    """`1 forward`, `2 forwards`, `1 pass`, `0 passes`, `2 boxes`.

    Args:
        count: how many.
        thing: the word for one of them.
    """
    ending = "" if count == 1 else "es" if thing.endswith(("s", "x")) else "s"
    return f"{count} {thing}{ending}"


def chance(p: float) -> str:
    """`p < 0.001`, `p = 0.012`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def some(names: Iterable[str], most: int = 3) -> str:
    """`a, b, c`, or `a, b, c, ...` where there are more.

    Args:
        names: of things.
        most: are named.
    """
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
