"""Models that a function of the user's own builds, named `module:function` where a command names a model.

Only what a person types is ever imported: a record keeps the name, but nothing that reads a record runs it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pellucid.errors import ModelError
from pellucid.media import Plan
from pellucid.models.checkpoints import fit_names, load_into, read_weights
from pellucid.models.model import VisionModel
from pellucid.models.sources.loading import load, made_for, wrap
from pellucid.models.sources.registry import SOURCES, find_source, near_misses


def is_entry(name: str) -> bool:
    """Whether a model's name is `module:function` rather than `source:name`."""
    module, colon, function = name.partition(":")
    return (
        bool(colon)
        and module not in SOURCES
        and function.isidentifier()
        and all(part.isidentifier() for part in module.split("."))
    )


def model_of(name: str, folder: str | Path = "", **asked: Any) -> VisionModel:
    """A model as a command names it: by `module:function` (looked for in the folder first), or as `load` takes it.

    Args:
        name: either.
        folder: where a module is looked for first.
        asked: what `load` takes besides. Of an entry that is `device`, `weights` (loaded into what it builds),
            `per_frame`, `frames` and `per_slice`; where it builds a bare module also `labels`, `scores`, `output`,
            `task`.

    Raises:
        ModelError: there is no such model or function, it fails, or it says already what is asked.
    """
    if not is_entry(name):
        return load(name, **asked)
    return _made(name, str(folder), **{key: value for key, value in asked.items() if value not in (None, False)})


def _made(
    entry: str,
    folder: str,
    *,
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    per_frame: str | None = None,
    frames: Plan | str | int | None = None,
    per_slice: str | None = None,
    **meaning: Any,
) -> VisionModel:
    made = _called(entry, folder)
    if "random_weights" in meaning:
        raise ModelError(f"{entry} says what its weights are: leave out --random-weights.")
    if isinstance(made, str):
        made = load(made)
    if isinstance(made, VisionModel) and meaning:
        options = ", ".join(f"--{key}" for key in meaning)
        raise ModelError(f"{entry} gives a model that says this for itself: leave out {options}.")
    model = made if isinstance(made, VisionModel) else wrap(made, **meaning)
    if weights is not None:
        load_into(model.module, fit_names(read_weights(weights), model.module), weights)
    if device is not None:
        model.module.to(device)
    if not model.source:
        model = replace(model, name=entry)
    return made_for(model, per_frame, frames, per_slice)


def _called(entry: str, folder: str) -> Any:
    name, colon, function = entry.partition(":")
    if not colon:
        raise ModelError(f"{entry!r} names no function: write module:function.")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        build = getattr(import_module(name), function)
    except (ImportError, AttributeError) as error:
        unknown = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        if unknown and near_misses(entry):
            find_source(entry)  # a slip in a source's or a model's name
        raise ModelError(f"{entry!r} can't be imported ({error}): run from the folder that holds it.") from error
    try:
        return build()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{entry} raised {type(error).__name__}: {error}") from error
