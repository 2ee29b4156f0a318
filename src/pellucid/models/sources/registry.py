"""The places that models come from: `@source` enters one under its scheme."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pellucid.errors import ModelError
from pellucid.models import embedded
from pellucid.models.clips import ClipPreprocessing
from pellucid.models.preprocess import Preprocessing
from pellucid.models.sources import libraries
from pellucid.registry import Registry

AnyPreprocessing = Preprocessing | ClipPreprocessing
Built = tuple[nn.Module, AnyPreprocessing, Sequence[str] | None]


@dataclass(frozen=True)
class Source:
    """A place models come from.

    Attributes:
        scheme: what stands before the colon in a model's name.
        about: one line for people.
        build: (name, number of classes or None, with its published weights) -> module, preprocessing, labels.
        names: the names it knows.
    """

    scheme: str
    about: str
    build: Callable[[str, int | None, bool], Built]
    names: Callable[[], list[str]]


Build = Callable[[str, int | None, bool], Built]
SOURCES: Registry[Source] = Registry("source of models", error=ModelError)


def source(scheme: str, about: str, names: Callable[[], list[str]] = list) -> Callable[[Build], Build]:
    """Enter a function that builds models (see `Source`).

    Args:
        scheme: what stands before the colon.
        about: one line for people.
        names: the names it knows.
    """

    def enter(build: Build) -> Build:
        SOURCES[scheme] = Source(scheme, about, build, names)
        return build

    return enter


def find_source(name: str) -> tuple[Source, str]:
    """The source that a model's name means, and the name that it knows the model by.

    Raises:
        ModelError: there is none; near misses are listed.
    """
    scheme, colon, short = name.partition(":")
    if name == embedded.NAME:
        return SOURCES["embedded"], name
    if colon and scheme in SOURCES and scheme != "embedded":
        return SOURCES[scheme], short
    if Path(f"{name.removesuffix('.json').removesuffix('.npz')}.json").is_file():
        return SOURCES["readable"], name
    hints = near_misses(name)
    raise ModelError(
        f"There is no model {name!r}; "
        + (f"did you mean {', '.join(map(repr, hints))}?" if hints else "models are named as `pellucid models` shows.")
    )


def near_misses(name: str) -> list[str]:
    """Names of models like this one."""
    scheme, colon, short = name.partition(":")
    hints = difflib.get_close_matches(name, [embedded.NAME], cutoff=0.6)
    if colon:
        hints += [f"{s}:{short}" for s in difflib.get_close_matches(scheme, SOURCES, n=1) if s != "embedded"]
    hints += [
        f"timm:{n}" for n in difflib.get_close_matches(short if colon else name, libraries.timm().list_models(), n=3)
    ]
    return list(dict.fromkeys(hints))
