"""The commands, each with the line that lists it.

A command's file is imported when it is called: the list of commands needs none, nor does a slip in a name.
"""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from pellucid.cli.help import in_language

COMMANDS = {
    "explain": "Show where a model looked, and measure whether the answer can be trusted.",
    "evaluate": (
        "Say which explanation to believe on these inputs: measured, ranked beside blind anchors, with error bars."
    ),
    "importance": "Say how much each part of a picture, or of the model, matters.",
    "visualize": (
        "Show what units have learned: a picture made for each, natural exemplars, and how far to believe them."
    ),
    "audit": (
        "Find where a model goes wrong and on what evidence: slices, wrong reasons tested by exchange, doubtful data."
    ),
    "compare": (
        "Say what changed from one model to another: answers, slices, calibration, evidence; paired, and tested."
    ),
    "repair": "Learn anew without the wrong reasons that an audit finds, and prove it on other pictures.",
    "concepts": "Find the concepts of a layer in many pictures, and measure them beside random ones.",
    "tcav": "Test whether a class's score rises towards concepts, more than towards random pictures.",
    "distill": "Learn a model that a person can read, and measure how far it can be believed.",
    "methods": "List the methods: family, what they need, their cost in passes, their paper.",
    "advise": "Say which methods suit a network and a target, why, and at what cost.",
    "models": "List the sources of models, or the models whose name holds a text.",
    "layers": "List the layers of a model that can be explained, with how their output reads; the default is marked.",
    "more": "Continue a saved explanation of a sampling method: the longer run's result, at the price of the rest.",
    "report": "Write saved results of every kind into one HTML file that opens anywhere, without a network.",
    "verify": "Recompute a saved result, or all in a report, from its record; where one differs the exit code is 1.",
    "studio": "Open the studio: upload, explain, compare and look up results in a browser on this machine.",
    "doctor": "Report versions, devices, memory, and which extras are installed.",
    "batch": (
        "Explain a whole data set: `pellucid batch FOLDER --method grad-cam --out DIR`. It can be stopped and "
        "resumed at any point; `status`, `resume`, `retry-failed`, `merge` and `export` look after what ran."
    ),
}
"""name -> the first paragraph of the command's help."""
_FILES = dict.fromkeys(("methods", "models", "layers"), "listings")  # the others have their command's name


def command(name: str) -> Any:
    """The command of that name, its file imported, its help in the language chosen."""
    file = import_module(f"pellucid.cli.{_FILES.get(name, name)}")
    made = getattr(file, "app", None)  # of a command with others below it
    if made is None:
        made = typer.Typer(add_completion=False)
        made.command(name)(getattr(file, name))
    return in_language(typer.main.get_command(made))


class _Imported(UserDict[str, Any]):
    """Commands by name: what is looked up is imported."""

    def __getitem__(self, name: str) -> Any:
        return command(name)


class Listed(TyperGroup):
    """Commands that are listed by a name and a line, and imported when they are called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._lines = self.commands
        self.commands = _Imported(self._lines)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the list."""
        return list(self._lines)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the list shows."""
        return self._lines.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """What is called."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed if name is None else self.commands[name], rest


app = typer.Typer(
    name="pellucid",
    cls=Listed,
    help="Explain computer vision models, and measure whether the explanations can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _line() -> None:
    """Stands for a command in the list."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(_line)
