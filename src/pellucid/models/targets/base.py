"""Target: WHAT is explained, one scalar per sample, apart from how it is explained.

A target is a callable, model output -> scores `(N,)`. Any function of that shape is one; the kinds in this package know
the usual ones by name. A kind is a class in a file of its own, entered by `@target` under the word that its text begins
with (`unit:...`); nothing else needs to know it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.media.geometry import Geometry
from pellucid.media.picture import Picture
from pellucid.models.reading import Reading
from pellucid.registry import Registry

Labels = Sequence[str] | None

_CORNERS = 4  # numbers of the longest place


class Met(NamedTuple):
    """Another picture, as the model met it."""

    picture: Picture
    x: Tensor  # (C, h, w), as the model takes it
    geometry: Geometry
    output: Any  # of this one picture


class Target(ABC):
    """What score is explained. Subclasses are frozen dataclasses; `bind` resolves names before use."""

    layers: tuple[str, ...] = ()  # read inside the network, beside its output
    form: ClassVar[str] = ""  # how its text is written

    @property
    def files(self) -> tuple[str, ...]:
        """What it opens beside the input: paths, or names such as `sample:cat`."""
        return ()

    @abstractmethod
    def __call__(self, output: Any) -> Tensor:
        """Model output -> scores `(N,)`."""

    def score(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """Scores `(N,)` from the output and from the activations of `layers`."""
        return self(output)

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Target:
        """This target for this model and batch, with names resolved."""
        return self

    def read_by(self, reading: Reading) -> Target:
        """This target on outputs that are read so; one that is bound to a reading already keeps it."""
        return self

    def freeze(self, output: Any) -> Target:
        """This target with whatever it takes from the output (the top class) fixed to what `output` says."""
        return self

    def select(self, rows: Tensor) -> Target:
        """This target for a batch made of the samples `rows` `(M,)` of the bound one, repeated at will."""
        return self

    def probability(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """A bounded version of the score where one exists, for curves: `(N,)`; by default the score itself."""
        return self.score(output, watched)

    def lead(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor | None:
        """By how much the target is what the model answers: above 0 where it is, `(N,)`; None: it is no answer."""
        return None

    @property
    def kind(self) -> Hashable:
        """What the choice of a layer depends on: all targets on the output share one."""
        return "output"

    @property
    def way(self) -> Hashable:
        """What the choice of a layer for this target alone depends on."""
        return self.kind

    @property
    def typical(self) -> Target:
        """The question by which layers are chosen for this one, so that all of a kind on one model share a layer.

        Where it were this very question, the map of one box would hang on which others it is asked with.
        """
        return self

    @property
    def others(self) -> tuple[Picture, ...]:
        """The pictures beside the explained one that it speaks of, once it has `met` them."""
        return ()

    def met(self, answer: Callable[[str], Met]) -> Target:
        """This target with what the model answers to other pictures that it speaks of, by their sources."""
        return self

    def placed(self, geometries: Sequence[Geometry]) -> Target:
        """This target with places given in the original pictures' pixels brought to the model's input."""
        return self

    def marks(self) -> dict[str, Tensor]:
        """What to draw over the picture, for each sample, of a frozen target on the model's input: `box` `(N, 4)`."""
        return {}

    def remarks(self, output: Any, labels: Labels) -> list[list[str]]:
        """Of a frozen target, for each sample, what the output on the untouched picture says about it besides."""
        return []

    def name(self, labels: Labels) -> str:
        """How people call it."""
        return str(self)

    def __str__(self) -> str:
        return self.spec() or repr(self)

    def spec(self) -> str | None:
        """The text that `parse_target` reads back; None if there is none."""
        return None

    @classmethod
    def read(cls, text: str) -> Target | None:
        """The target that a text of this kind stands for; None where the text is of another kind.

        Raises:
            TargetError: it is of this kind, and wrong.
        """
        return None

    @classmethod
    def of(cls, value: Any) -> Target | None:
        """The target that a value other than a text (a number, a function) stands for; None where it is no such."""
        return None


TargetLike = Target | int | str | Tensor | np.ndarray[Any, Any] | Sequence[int] | Callable[[Any], Tensor] | None

K = TypeVar("K", bound=type[Target])
TARGETS: Registry[type[Target]] = Registry("kind of target", error=TargetError)
"""Kinds of targets by the word that their text begins with; those without one stand under a word of their own."""


def target(word: str, *, form: str = "") -> Callable[[K], K]:
    """Enter a kind of target.

    Args:
        word: what its text begins with, up to a colon.
        form: how it is written, for people: `unit:LAYER:CHANNEL`; empty where it has no text.
    """

    def enter(kind: K) -> K:
        TARGETS[word] = kind
        kind.form = form
        return kind

    return enter


def parse_target(text: str) -> Target:
    """A target from text: `281`, `tabby`, `a>b`, `top`, `top:1`, or a word of `TARGETS` with what follows its colon.

    Raises:
        TargetError: it is empty, or wrong for its kind.
    """
    text = text.strip()
    if not text:
        raise TargetError("A target is empty: give a class number, a label, `a>b`, `top` or `unit:LAYER:CHANNEL`.")
    word = re.match(r"\w+", text)
    named = TARGETS.get(word[0]) if word else None
    for kind in (*([named] if named else []), *_latest_first()):
        if (found := kind.read(text)) is not None:
            return found
    raise TargetError(f"{text!r} is no target: write one as {', '.join(k.form for k in TARGETS.values() if k.form)}.")


def _latest_first() -> list[type[Target]]:
    """The kinds in the order in which they are asked: classes came first, and take what no other reads."""
    return list(TARGETS.values())[::-1]


_PLACE = re.compile(r"@\s*-?[\d.]+(?:,\s*-?[\d.]+)*$")
_NUMBER = re.compile(r"\s*-?[\d.]+\s*(?:mm)?\s*(?:[/>].*)?$")


def split_targets(text: str) -> list[str]:
    """Texts of several targets, `tabby,box:dog@1,2,3,4/left,281`, one by one; a place after `@` keeps its commas.

    A place has four numbers, or two or three (`region:road@120,40`, `region:brain@-12,30,44mm`) where none follows.
    """
    parts: list[str] = []
    for piece in text.split(","):
        open_place = (
            bool(parts)
            and _PLACE.search(parts[-1]) is not None
            and parts[-1].rpartition("@")[2].count(",") < _CORNERS - 1
        )
        if open_place and _NUMBER.match(piece):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return parts


def as_target(target: TargetLike) -> Target:
    """Whatever names a target, as a `Target`: None (top class), int, text, N ints, or a callable.

    Raises:
        TargetError: it names none.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        return parse_target(target)
    for kind in _latest_first():
        if (found := kind.of(target)) is not None:
            return found
    raise TargetError(
        f"{target!r} is no target: give a class, a label, N classes, a Target, or a function of the output."
    )
