"""Readable models that `pellucid distill` saved."""

from __future__ import annotations

from importlib import import_module

from pellucid.errors import ModelError
from pellucid.models.sources.registry import Built, source


@source("readable", "what `pellucid distill` saved: readable:FILE, or just FILE")
def build(name: str, classes: int | None, pretrained: bool) -> Built:
    """A saved readable model on its network."""
    if not pretrained:
        raise ModelError("A readable model holds its own weights: leave out --weights and --random-weights.")
    opening = import_module("pellucid.interpretable.opening")  # above this room: it asks this one for its network
    found: Built = opening.open_surrogate(name)
    return found
