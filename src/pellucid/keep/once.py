"""What is asked several times while the files of one result are written is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_FOUND: ContextVar[dict[tuple[str, int], tuple[Any, Any]] | None] = ContextVar("found_while_writing", default=None)


@contextmanager
def computing_once() -> Iterator[None]:
    """Within, `once` keeps what it computes; nothing that it is computed of may change."""
    token = _FOUND.set(_FOUND.get() or {})
    try:
        yield
    finally:
        _FOUND.reset(token)


def once(what: str, of: object, compute: Callable[[], T]) -> T:
    """What `compute` gives for an object: within `computing_once` for the first time only, elsewhere each time."""
    found = _FOUND.get()
    if found is None:
        return compute()
    key = (what, id(of))
    if key not in found:
        found[key] = (of, compute())  # the object is held: its id is its own as long as the answer is kept
    result: T = found[key][1]
    return result
