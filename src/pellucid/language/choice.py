"""Which language is shown: chosen in so many words, or by PELLUCID_LANG, or by the system's locale."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pellucid.errors import PellucidError

LANGUAGES = {"en": "English", "zh": "中文"}
_LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")  # in the order of POSIX: the first that is set decides

_chosen: list[str] = []
_here: ContextVar[str] = ContextVar("language")  # of one answer among many, such as a page of a server


def choose(language: str | None) -> None:
    """Show everything in this language from now on; None: what the environment says.

    Raises:
        PellucidError: a language that is not known.
    """
    _chosen[:] = [] if language is None else [_known(language, "--lang")]


@contextmanager
def restored() -> Iterator[None]:
    """Whatever is chosen inside is forgotten outside."""
    before = list(_chosen)
    try:
        yield
    finally:
        _chosen[:] = before


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Inside, in this thread or task alone, everything is shown in this language, whatever is chosen for the process.

    Raises:
        PellucidError: a language that is not known.
    """
    before = _here.set(_known(language, "lang"))
    try:
        yield
    finally:
        _here.reset(before)


def chosen() -> str:
    """The language shown, `en` or `zh`.

    Raises:
        PellucidError: PELLUCID_LANG names a language that is not known (an unknown locale means English).
    """
    if language := _here.get(""):
        return language
    if _chosen:
        return _chosen[0]
    if named := os.environ.get("PELLUCID_LANG"):
        return _known(named, "PELLUCID_LANG")
    found = next(filter(None, map(os.environ.get, _LOCALE)), "")
    return _code(found) if _code(found) in LANGUAGES else "en"


def _code(name: str) -> str:
    """`zh` of zh, zh-CN, zh_CN.UTF-8; Chinese is written in simplified characters."""
    return name.partition(".")[0].replace("_", "-").partition("-")[0].lower()


def _known(name: str, asked: str) -> str:
    if (code := _code(name)) in LANGUAGES:
        return code
    raise PellucidError(f"{asked} names no language that is known ({name}): take {' or '.join(LANGUAGES)}.")
