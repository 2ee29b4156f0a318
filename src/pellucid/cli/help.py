"""The help of every command in the reader's language, and the option that names it, which any command takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, TypeVar

import typer

from pellucid.cli.usage import speak, speak_of
from pellucid.errors import PellucidError
from pellucid.language import choose, chosen, printable

_FLAG = "--lang"
C = TypeVar("C")


def without_language(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--lang`, wherever it stands; from now on what is printed is in that language.

    Raises:
        PellucidError: a language that is not known.
    """
    language, rest = _taken(arguments)
    try:
        choose(language)
        chosen()  # what the environment says is looked at too
    except PellucidError:
        choose("en")
        raise
    return rest


def speaking(app: typer.Typer) -> Callable[..., object]:
    """The command line in the language chosen."""
    whole = in_language(typer.main.get_command(app))
    if chosen() != "en" or "typer.rich_utils" in sys.modules:  # which is loaded to draw help, and not before
        speak(import_module("typer.rich_utils"))
    return whole


def in_language(command: C) -> C:
    """A command, the help of it and of those below it in the language chosen."""
    if chosen() != "en":
        for each in _all(command):
            each.help = printable(" ".join((each.help or "").partition("\n\n")[0].split()))
            for parameter in each.params:
                if getattr(parameter, "help", None):
                    parameter.help = printable(parameter.help)
            speak_of(each)
    return command


def _all(command: Any) -> Iterator[Any]:
    """A command and those below it, as they are listed."""
    yield command
    for name in getattr(command, "commands", ()):
        yield from _all(command.get_command(None, name))


def _taken(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """What `--lang` says, and the other arguments; behind `--` nothing is an option."""
    language: str | None = None
    rest: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--":
            return language, [*rest, word, *left]
        if word == _FLAG:
            language = left.pop(0) if left else ""
        elif word.startswith(f"{_FLAG}="):
            language = word.partition("=")[2]
        else:
            rest.append(word)
    return language, rest
