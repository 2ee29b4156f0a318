"""What the framework says of itself, of wrong usage above all, in the reader's language.

Its texts are given to the catalogue here, since they stand in no source of Pellucid's. They are put into the module
that draws them, and out again when the language is English.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from pellucid.language import chosen, printable
from pellucid.language.breaks import line_starts

_CONSTANTS = {
    "ARGUMENTS_PANEL_TITLE": "Arguments",
    "OPTIONS_PANEL_TITLE": "Options",
    "COMMANDS_PANEL_TITLE": "Commands",
    "ERRORS_PANEL_TITLE": "Error",
    "RICH_HELP": "Try [blue]'{command_path} {help_option}'[/] for help.",
    "DEFAULT_STRING": "[default: {}]",
    "REQUIRED_LONG_STRING": "[required]",
}
_HELP = "Show this message and exit."
ERRORS = (
    "No such option: {0}", "No such option: {0} (Possible options: {1})", "No such option: {0} Did you mean {1}?",
    "No such command {0}.", "No such command {0}. Did you mean {1}?", "Missing command.", "Missing argument {0}.",
    "Missing option {0}.", "Option {0} requires an argument.", "Option {0} does not take a value.",
    "Got unexpected extra argument ({0})", "Got unexpected extra arguments ({0})",
    "Got unexpected extra argument(s) ({0})", "Invalid value for {0}: {1}", "{0} is not a valid integer.",
    "{0} is not a valid float.", "{0} is not a valid int.", "{0} is not in the range {1}.",
    "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid number, unable to parse string as a number",
    "Input should be greater than or equal to {0}", "Input should be less than or equal to {0}",
)  # fmt: skip
"""Sentences of wrong usage, in the versions of the framework that are known."""


def speak(panels: ModuleType) -> None:
    """Let the module that draws help and errors do so in the language chosen."""
    for name, text in _CONSTANTS.items():
        setattr(panels, name, printable(text))
    _wrap(panels, "rich_format_error", _told)
    _wrap(panels, "_make_rich_text", _unbroken)


def speak_of(command: Any) -> None:
    """The same for a command: its usage line, and the option that shows its help."""
    usage, option = command.get_usage, command.get_help_option

    def told(context: Any) -> str:
        said = printable("Usage")
        return str(usage(context)).replace("Usage: ", "Usage: " if said == "Usage" else f"{said}：", 1)

    def helped(context: Any) -> Any:
        found = option(context)
        if found is not None:
            found.help = printable(_HELP)
        return found

    command.get_usage, command.get_help_option = told, helped


def _wrap(panels: ModuleType, name: str, by: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a function of the module in ours, once; a version of the framework without it stays as it is."""
    there = getattr(panels, name, None)
    if there is not None and not hasattr(there, "inner"):
        ours = by(there)
        ours.inner = there  # type: ignore[attr-defined]
        setattr(panels, name, ours)


def _told(draw: Callable[..., None]) -> Callable[..., None]:
    """Wrong usage, its sentence translated."""

    def told(error: Any) -> None:
        sentence = printable(error.format_message())
        error.format_message = lambda: sentence
        draw(error)

    return told


def _unbroken(make: Callable[..., Any]) -> Callable[..., Any]:
    """Texts whose lines end where Chinese may break: without spaces, the framework would cut them off."""

    def made(**given: Any) -> Any:
        text = make(**given)
        return text if chosen() == "en" or not hasattr(text, "divide") else _Broken(text)

    return made


class _Broken:
    """A text of rich's that breaks its lines beside Chinese characters."""

    def __init__(self, text: Any) -> None:
        self._text = text

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.cells import cell_len

        for line in self._text.divide(line_starts(self._text.plain, options.max_width, cell_len)):
            line.rstrip()
            line.overflow = "fold"  # a name longer than the line
            yield line

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        return self._text.__rich_measure__(console, options)
