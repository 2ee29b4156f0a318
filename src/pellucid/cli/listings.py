"""`pellucid methods`, `models` and `layers`: what there is to choose from."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli import options
from pellucid.cli.console import say

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pellucid.models.model import VisionModel
    from pellucid.models.probe import Score


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under columns; one line a row where no terminal reads them."""
    from rich.console import Console
    from rich.table import Table

    from pellucid.language.speech import printable

    made = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        made.add_column(
            printable(column), no_wrap=i == 0, overflow="fold"
        )  # names are there to be copied: whole, on one line
    for row in rows:
        made.add_row(row[0], *map(printable, row[1:]))
    width = None if sys.stdout.isatty() else 1000  # one line a row for programs
    Console(width=width, markup=False, emoji=False, highlight=False).print(made)


def methods(as_json: options.Json = False) -> None:
    """List the methods: family, what they need, their cost in passes, their paper."""
    from pellucid.heatmaps import METHODS

    rows = [(m.name, m.family, m.needs, m.cost, m.paper) for m in METHODS.values()]
    columns = ("method", "family", "needs", "cost", "paper")
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    else:
        table(columns, rows)


def models(
    search: Annotated[str, typer.Argument(help="Only names that hold this text.")] = "",
    as_json: options.Json = False,
) -> None:
    """List the sources of models, or the models whose name holds a text."""
    from pellucid.models.sources import SOURCES

    found = {
        source: [n if source == "embedded" else f"{source}:{n}" for n in about.names() if search in n]
        for source, about in SOURCES.items()
    }
    if as_json:
        print(json.dumps(found, indent=2))
    elif search:
        say("\n".join(name for names in found.values() for name in names) or f"No model's name holds {search!r}.")
    else:
        rows = [
            (names[0] if names else f"{source}:FILE", str(len(names) or "any"), SOURCES[source].about)
            for source, names in found.items()
        ]
        table(("for example", "models", "what"), rows)
        say("`pellucid models TEXT` lists the names that hold a text; --weights FILE loads weights of your own.")


def _question(vision: VisionModel) -> tuple[Score | None, Hashable]:
    """By what score `explain` finds a layer where nothing is asked, None being the largest class, and its kind."""
    from pellucid.models.targets import TopClass

    if vision.task is None or not vision.task.by_frame:
        return None, "output"
    target = vision.task.asked(TopClass())
    return target.typical.score, frozenset({target.kind})


def layers(
    model: options.ModelArgument = options.DEFAULT_MODEL,
    weights: options.Weights = None,
    random_weights: options.RandomWeights = False,
    as_json: options.Json = False,
) -> None:
    """List the layers of a model that can be explained, with how their output reads; the default is marked."""
    import torch

    from pellucid.models.layers import best_layer
    from pellucid.models.layers import layers as find

    vision = options.load_model(model, weights, random_weights, None, "cpu")
    inputs = torch.zeros(1, vision.preprocess.channels, *vision.preprocess.input_size)
    score, key = _question(vision.settled(inputs, vision.outputs(inputs)))
    found, best = find(vision.module, inputs, score, key=key), best_layer(vision.module, inputs, score, key=key)
    if as_json:
        entries = [
            {
                "layer": x.name,
                "class": x.kind,
                "layout": x.layout.kind,
                "grid": x.layout.grid,
                "channels": x.layout.channels,
                "prefix": x.layout.prefix,
                "live cells": x.coverage,
                "default": x == best,
            }
            for x in found
        ]
        print(json.dumps(entries, indent=2))
        return
    rows = [(x.name, x.kind, str(x.layout), f"{x.coverage:.0%}", "default" if x == best else "") for x in found]
    table(("layer", "module", "reads as", "live cells", ""), rows)
