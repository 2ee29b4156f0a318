"""Target: WHAT is explained, one scalar per sample, apart from how it is explained.

A target is a callable, model output -> scores `(N,)`. Any function of that shape is one; the classes here know
the usual ones by name.
"""

from __future__ import annotations

import difflib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout
from pellucid.models.parts import advised, described
from pellucid.models.reading import Reading

Labels = Sequence[str] | None


class Target(ABC):
    """What score is explained. Subclasses are frozen dataclasses; `bind` resolves names before use."""

    layers: tuple[str, ...] = ()  # read inside the network, beside its output
    probability_name: ClassVar[str] = "score"

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

    @property
    def kind(self) -> Hashable:
        """What the choice of a layer depends on: all targets on the output share one."""
        return "output"

    def name(self, labels: Labels) -> str:
        """How people call it."""
        return str(self)

    def spec(self) -> str | None:
        """The text that `parse_target` reads back; None if there is none."""
        return None


def _label(index: int, labels: Labels) -> str:
    return labels[index] if labels is not None and 0 <= index < len(labels) else f"class {index}"


def resolve_class(index: int | str, labels: Labels) -> int:
    """A class by index, or by label with near misses."""
    if isinstance(index, int):
        return index
    if labels is None:
        raise TargetError(
            f"The model has no labels, so {index!r} means nothing: give the class as a number, or labels."
        )
    wanted = _plain(index)
    plain = [_plain(label) for label in labels]
    same = [i for i, label in enumerate(labels) if label == index] or [i for i, p in enumerate(plain) if p == wanted]
    if len(same) > 1:
        raise TargetError(
            f"{len(same)} classes are called {index!r}: give the number, {' or '.join(map(str, same[:6]))}."
        )
    if same:
        return same[0]
    containing = [labels[i] for i, label in enumerate(plain) if wanted in label.split()][:6]
    near = difflib.get_close_matches(wanted, plain, n=4, cutoff=0.6)
    names = list(dict.fromkeys([*containing, *(labels[plain.index(n)] for n in near)]))
    hint = f"did you mean {', '.join(repr(n) for n in names)}?" if names else "give a class number instead."
    raise TargetError(f"The model has no class {index!r}; {hint}")


def _plain(label: str) -> str:
    return label.strip().lower().replace("_", " ").replace("-", " ")


@dataclass(frozen=True)
class ClassTarget(Target):
    """A target made of the scores of classes, as a `Reading` finds them in the output.

    Attributes:
        reading: what the output means; whatever it leaves open is taken from each output.
    """

    reading: Reading = field(default=Reading(), kw_only=True, compare=False, repr=False)
    probability_name: ClassVar[str] = "probability"

    def read_by(self, reading: Reading) -> Target:
        """This target on outputs that are read so."""
        return self if self.reading.settled else replace(self, reading=reading)

    def _scores(self, output: Any) -> Tensor:
        return self.reading.class_scores(output)

    def _probabilities(self, output: Any) -> Tensor:
        return self.reading.probabilities(self._scores(output))


def _column(scores: Tensor, index: Tensor | int) -> Tensor:
    top = int(index.max() if isinstance(index, Tensor) else index)
    low = int(index.min() if isinstance(index, Tensor) else index)
    if top >= scores.shape[1] or low < -scores.shape[1]:
        raise TargetError(f"Class {top if top >= 0 else low} is out of range: the model has {scores.shape[1]} classes.")
    if isinstance(index, Tensor):
        return scores.gather(1, index.to(scores.device)[:, None] % scores.shape[1])[:, 0]
    return scores[:, index]


@dataclass(frozen=True)
class Class(ClassTarget):
    """The score of one class, by index or by label: `y[:, index]`."""

    index: int | str

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Class:
        """The label resolved to an index."""
        return replace(self, index=resolve_class(self.index, labels))

    def bound(self) -> int:
        """The index; `TargetError` while it is still a label."""
        if isinstance(self.index, str):
            raise TargetError(f"The class {self.index!r} is a label; labels are known only to a model with labels.")
        return self.index

    def __call__(self, output: Any) -> Tensor:
        """The class's column of the scores."""
        return _column(self._scores(output), self.bound())

    def probability(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """Its probability as the output is read: softmax, sigmoid, as it is; the score of plain values."""
        return _column(self._probabilities(output), self.bound())

    def name(self, labels: Labels) -> str:
        """The label."""
        return self.index if isinstance(self.index, str) else _label(self.index, labels)

    def spec(self) -> str:
        """The index or label."""
        return str(self.index)


@dataclass(frozen=True)
class PerSample(ClassTarget):
    """Another class for each sample of the batch."""

    indices: tuple[int, ...]

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> PerSample:
        """Checked against the batch."""
        if len(self.indices) != len(inputs):
            raise TargetError(
                f"{len(self.indices)} targets for {len(inputs)} inputs: give one target for all, or one for each."
            )
        return self

    def select(self, rows: Tensor) -> PerSample:
        """The classes of these samples."""
        return replace(self, indices=tuple(self.indices[r] for r in rows.tolist()))

    def __call__(self, output: Any) -> Tensor:
        """Each sample's own column."""
        scores = self._scores(output)
        # The layer probe runs one sample: any of the classes serves there.
        return _column(scores, torch.tensor(self.indices[: len(scores)], dtype=torch.long))

    def probability(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """The probability of each sample's own class, as the output is read."""
        return _column(self._probabilities(output), torch.tensor(self.indices, dtype=torch.long))

    def name(self, labels: Labels) -> str:
        """The labels."""
        return ", ".join(_label(i, labels) for i in self.indices)


@dataclass(frozen=True)
class TopClass(ClassTarget):
    """The class each sample is given by the model itself (`rank` 0: first, 1: second, ...)."""

    rank: int = 0

    def _top(self, scores: Tensor) -> Tensor:
        if self.rank >= scores.shape[1]:
            raise TargetError(f"There is no class of rank {self.rank}: the model has {scores.shape[1]} classes.")
        return scores.detach().topk(self.rank + 1, dim=1).indices[:, self.rank]

    def freeze(self, output: Any) -> PerSample:
        """The classes that come out on this rank, fixed."""
        return PerSample(tuple(self._top(self._scores(output)).tolist()), reading=self.reading)

    def __call__(self, output: Any) -> Tensor:
        """The score of the class that comes out on this rank."""
        scores = self._scores(output)
        return _column(scores, self._top(scores))

    def probability(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """Its probability, as the output is read."""
        return _column(self._probabilities(output), self._top(self._scores(output)))

    def spec(self) -> str:
        """`top` or `top:RANK`."""
        return f"top:{self.rank}" if self.rank else "top"

    def __str__(self) -> str:
        return "top class" if self.rank == 0 else f"class of rank {self.rank}"


@dataclass(frozen=True)
class Contrast(ClassTarget):
    """Why `a` rather than `b`: `y[:, a] - y[:, b]`; as a probability, that of `a` among the two."""

    a: int | str
    b: int | str
    probability_name: ClassVar[str] = "probability of the first of the two"

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Contrast:
        """Both labels resolved."""
        bound = replace(self, a=resolve_class(self.a, labels), b=resolve_class(self.b, labels))
        if bound.a == bound.b:
            raise TargetError(f"A contrast needs two classes; {self.a!r} and {self.b!r} are the same.")
        return bound

    def __call__(self, output: Any) -> Tensor:
        """Difference of the two logits."""
        a, b = Class(self.a).bound(), Class(self.b).bound()
        scores = self._scores(output)
        return _column(scores, a) - _column(scores, b)

    def probability(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """Of `a` among the two: of logits `sigmoid(y_a - y_b)`, the softmax over the two classes alone."""
        scores = self._scores(output)
        return self.reading.between(scores, *(_column(scores, Class(c).bound()) for c in (self.a, self.b)))

    def name(self, labels: Labels) -> str:
        """`a rather than b`."""
        return f"{Class(self.a).name(labels)} rather than {Class(self.b).name(labels)}"

    def spec(self) -> str:
        """`a>b`."""
        return f"{self.a}>{self.b}"


@dataclass(frozen=True)
class Unit(Target):
    """A unit inside the network: channel `channel` of `layer`, at one cell `position`, or its mean over the grid."""

    layer: str
    channel: int
    position: tuple[int, ...] | None = None
    layout: Layout | None = field(default=None, compare=False, repr=False)

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """The unit's layer."""
        return (self.layer,)

    @property
    def kind(self) -> Hashable:
        """Only layers before the unit's carry gradient to it."""
        return ("unit", self.layer)

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Unit:
        """The layout found, channel and position checked."""
        layout = describe(module, inputs, self.layer).layout
        if not 0 <= self.channel < layout.channels:
            raise TargetError(
                f"Layer {self.layer!r} has {layout.channels} channels; there is no channel {self.channel}."
            )
        if self.position is not None and (
            len(self.position) != len(layout.grid)
            or any(not 0 <= p < g for p, g in zip(self.position, layout.grid, strict=True))
        ):
            raise TargetError(
                f"Layer {self.layer!r} has a grid of {layout.grid}; there is no position {self.position}."
            )
        return replace(self, layout=layout)

    def __call__(self, output: Any) -> Tensor:
        """Not possible: a unit is read inside the network."""
        raise TargetError("A Unit target is read inside the network, not from its output; explain it with a method.")

    def score(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """The unit's activation."""
        assert self.layout is not None
        channel = self.layout.to_map(watched[self.layer])[:, self.channel].float()
        if self.position is None:
            return channel.flatten(1).mean(1)
        for p in self.position:
            channel = channel[:, p]
        return channel

    def spec(self) -> str:
        """`unit:LAYER:CHANNEL[:Y;X]` (commas part targets)."""
        at = "" if self.position is None else ":" + ";".join(map(str, self.position))
        return f"unit:{self.layer}:{self.channel}{at}"

    def __str__(self) -> str:
        at = "" if self.position is None else f" at {self.position}"
        return f"channel {self.channel} of {self.layer}{at}"


class _Same:
    """Stands for an object in a key, by identity, without keeping the object (and all it refers to) alive."""

    def __init__(self, thing: object) -> None:
        self._id = id(thing)
        try:
            self._ref: Callable[[], object] = weakref.ref(thing)
        except TypeError:
            self._ref = lambda: None  # never the same again

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Same) and self._ref() is not None and self._ref() is other._ref())


_MISTAKES = (TypeError, IndexError, KeyError, AttributeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Function(Target):
    """Any callable, model output -> scores `(N,)`."""

    function: Callable[[Any], Tensor]

    def __call__(self, output: Any) -> Tensor:
        """The function's scores, checked."""
        try:
            scores = self.function(output)
        except Exception as error:
            if type(error) not in _MISTAKES:  # what the function raises on purpose, or torch for want of memory
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            raise TargetError(
                f"The target failed on the model's output ({type(error).__name__}: {reason}): it gets the output as it "
                f"is, {described(output)}, and returns one score per sample, such as {advised(output)}."
            ) from error
        if not isinstance(scores, Tensor) or scores.ndim != 1:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise TargetError(f"The target returned {shape}; it must return one score per sample, a tensor (N,).")
        count = len(scores) if not isinstance(output, Tensor) else len(output) if output.ndim else 1
        if len(scores) != count:
            raise TargetError(
                f"The target returned {len(scores)} scores for {count} inputs; it must return one for each."
            )
        return scores.float()

    @property
    def kind(self) -> Hashable:
        """Functions may read any part of the output."""
        return _Same(self.function)

    def __str__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


TargetLike = Target | int | str | Tensor | np.ndarray[Any, Any] | Sequence[int] | Callable[[Any], Tensor] | None


def parse_target(text: str) -> Target:
    """A target from text: `281`, `tabby`, `a>b`, `top`, `top:1`, `step:T[:CLASS]`, `unit:LAYER:CHANNEL[:Y;X]`."""
    text = text.strip()
    if not text:
        raise TargetError("A target is empty: give a class number, a label, `a>b`, `top` or `unit:LAYER:CHANNEL`.")
    if text == "top" or (text.startswith("top:") and text[4:].isdecimal()):
        return TopClass(int(text[4:] or 0))
    if text.startswith("step:"):
        from pellucid.models.steps import parse_step

        return parse_step(text)
    if text.startswith("unit:"):
        return _parse_unit(text)
    a, contrast, b = text.partition(">")
    if contrast:
        return Contrast(_index(a), _index(b))
    return Class(_index(text))


def _index(text: str) -> int | str:
    text = text.strip()
    return int(text) if text.removeprefix("-").isdecimal() else text


def _parse_unit(text: str) -> Unit:
    parts = text.split(":")
    try:
        position = tuple(int(p) for p in parts[3].split(";")) if len(parts) > 3 else None
        return Unit(parts[1], int(parts[2]), position)
    except (IndexError, ValueError):
        raise TargetError(f"{text!r} is no unit: write unit:LAYER:CHANNEL or unit:LAYER:CHANNEL:Y;X.") from None


def _is_index(value: object) -> bool:
    """A whole number, numpy's among them; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_target(target: TargetLike) -> Target:
    """Whatever names a target, as a `Target`: None (top class), int, text, N ints, or a callable."""
    if target is None:
        return TopClass()
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        return parse_target(target)
    if _is_index(target):
        return Class(int(target))  # type: ignore[arg-type]
    if isinstance(target, np.ndarray):
        target = torch.from_numpy(target)
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.dtype == torch.bool or target.ndim > 1:
            shape = tuple(target.shape)
            raise TargetError(f"A tensor of targets holds N integers; got {target.dtype} of shape {shape}.")
        return Class(int(target)) if target.ndim == 0 else PerSample(tuple(target.tolist()))
    if callable(target):
        return Function(target)
    if isinstance(target, Sequence) and all(_is_index(t) for t in target):
        return PerSample(tuple(int(t) for t in target))
    raise TargetError(
        f"{target!r} is no target: give a class, a label, N classes, a Target, or a function of the output."
    )
