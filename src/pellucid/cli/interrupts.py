"""Ctrl-C that somebody's extension has swallowed is made up for.

Python raises KeyboardInterrupt wherever it is just then. Where that is a function which C++ of another library called
(matplotlib's, for a transform), it is cleared there, or another error takes its place.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_came = False


@contextmanager
def noted() -> Iterator[None]:
    """Inside, it is noted that an interrupt came, besides that KeyboardInterrupt is raised.

    Raises:
        KeyboardInterrupt: one came, and another error came of it.
    """
    global _came  # noqa: PLW0603 - a process has one keyboard
    _came = False
    usual = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if usual:
        signal.signal(signal.SIGINT, _note)
    try:
        yield
    except Exception as error:  # what an interrupted extension made of it
        if _came and not isinstance(error, BrokenPipeError):
            raise KeyboardInterrupt from error
        raise
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _came = False


def came() -> bool:
    """Whether one has come."""
    return _came


def raise_lost() -> None:
    """Between two steps of work.

    Raises:
        KeyboardInterrupt: one has come, and the work went on.
    """
    if _came:
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    global _came  # noqa: PLW0603 - a process has one keyboard
    _came = True
    signal.default_int_handler(number, frame)
