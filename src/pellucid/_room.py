"""Rooms that share their name with a verb: `pl.importance` is the room of that name, and is called as the verb."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A module that is called as the verb of its name, which lives above it, in `pellucid.verbs`."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        verb = self.__name__.rpartition(".")[2]
        return getattr(import_module(f"pellucid.verbs.{verb}"), verb)(*args, **settings)


def called_as_verb(name: str) -> None:
    """Let the module called `name` be called."""
    sys.modules[name].__class__ = _Room
