"""Targets on the scores of classes: one, each sample's own, the model's own choice, one rather than another."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.errors import ModelError, TargetError
from pellucid.models.reading import Reading
from pellucid.models.targets.base import TARGETS, Labels, Target, target


def label_of(index: int, labels: Labels) -> str:
    """The name of a class, or `class 7` where there is none."""
    return labels[index] if labels is not None and 0 <= index < len(labels) else f"class {index}"


def check_named(labels: Labels, classes: int) -> None:
    """Raises ModelError for labels that leave some of so many classes without a name: they are another model's."""
    if labels is not None and len(labels) < classes:
        raise ModelError(
            f"The model has {classes} classes, and labels for {len(labels)} of them: give a label for each, in its own "
            "order."
        )


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
    names = list(dict.fromkeys([*_near_forms(index), *containing, *(labels[plain.index(n)] for n in near)]))
    hint = f"did you mean {', '.join(repr(n) for n in names)}?" if names else "give a class number instead."
    raise TargetError(f"The model has no class {index!r}; {hint}")


def _near_forms(text: str) -> list[str]:
    """How kinds of targets are written whose word stands, or almost, where the text begins."""
    word = text.partition(":")[0].strip().lower()
    forms = [TARGETS[near].form for near in difflib.get_close_matches(word, TARGETS, n=1, cutoff=0.8)]
    return [form for form in forms if form]


def _plain(label: str) -> str:
    return label.strip().lower().replace("_", " ").replace("-", " ")


@dataclass(frozen=True)
class ScoresTarget(Target):
    """A target made of the scores of classes, as a `Reading` finds them in an output of whatever structure.

    Attributes:
        reading: what the output means; whatever it leaves open is taken from each output.
    """

    reading: Reading = field(default=Reading(), kw_only=True, compare=False, repr=False)

    def read_by(self, reading: Reading) -> Target:
        """This target on outputs that are read so."""
        return self if self.reading.settled else replace(self, reading=reading)

    def _scores(self, output: Any) -> Tensor:
        return self.reading.class_scores(output)

    def _probabilities(self, output: Any) -> Tensor:
        return self.reading.probabilities(self._scores(output))


@dataclass(frozen=True)
class ClassTarget(ScoresTarget):
    """A target that is one of the model's answers, so that it can be ahead of the others."""

    def lead(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor | None:
        """By how much its class is ahead of the best of the others; where classes do not exclude each other, by how
        much its probability is above one half.
        """
        scores, own = self._scores(output), self(output)
        if not self.reading.excludes(scores):
            return None if self.reading.scores == "none" else self.probability(output, watched) - 0.5
        if scores.shape[1] < 2:
            return None
        best, then = scores.topk(2, dim=1).values.unbind(1)
        return own - torch.where(own == best, then, best)


def _column(scores: Tensor, index: Tensor | int) -> Tensor:
    top = int(index.max() if isinstance(index, Tensor) else index)
    low = int(index.min() if isinstance(index, Tensor) else index)
    if top >= scores.shape[1] or low < -scores.shape[1]:
        raise TargetError(f"Class {top if top >= 0 else low} is out of range: the model has {scores.shape[1]} classes.")
    if isinstance(index, Tensor):
        return scores.gather(1, index.to(scores.device)[:, None] % scores.shape[1])[:, 0]
    return scores[:, index]


@target("class", form="CLASS")
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
        return self.index if isinstance(self.index, str) else label_of(self.index, labels)

    def spec(self) -> str:
        """The index or label."""
        return str(self.index)

    @classmethod
    def read(cls, text: str) -> Class | None:
        """A number or a label: any text at all."""
        return cls(index_or_label(text))

    @classmethod
    def of(cls, value: Any) -> Class | None:
        """A whole number, numpy's and torch's among them."""
        if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 and _whole(value):
            value = int(value)
        return cls(int(value)) if _is_index(value) else None


@target("label", form="label:LABEL")
@dataclass(frozen=True)
class LabelTarget(Class):
    """One label of several that may be true together: `label:effusion`; a number is a label's number."""

    def spec(self) -> str:
        """`label:LABEL`."""
        return f"label:{self.index}"

    @classmethod
    def read(cls, text: str) -> LabelTarget | None:
        """`label:LABEL`."""
        word, colon, name = text.partition(":")
        return cls(index_or_label(name)) if word == "label" and colon and name.strip() else None

    @classmethod
    def of(cls, value: Any) -> Class | None:
        """None: a bare number is a class."""
        return None


@target("value", form="value:NAME")
@dataclass(frozen=True)
class ValueTarget(Class):
    """One of the numbers that a model measures, by its name or number: `value:steering`."""

    def probability(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """The number itself."""
        return self(output)

    def spec(self) -> str:
        """`value:NAME`."""
        return f"value:{self.index}"

    @classmethod
    def read(cls, text: str) -> ValueTarget | None:
        """`value:NAME`."""
        word, colon, name = text.partition(":")
        return cls(index_or_label(name)) if word == "value" and colon and name.strip() else None

    @classmethod
    def of(cls, value: Any) -> Class | None:
        """None: a bare number is a class."""
        return None


@target("classes")
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
        return ", ".join(label_of(i, labels) for i in self.indices)

    @classmethod
    def of(cls, value: Any) -> PerSample | None:
        """N whole numbers, in a sequence or a tensor.

        Raises:
            TargetError: a tensor of anything else.
        """
        if isinstance(value, Tensor | np.ndarray):
            if not _whole(value) or value.ndim > 1:
                shape = tuple(value.shape)
                raise TargetError(f"A tensor of targets holds N integers; got {value.dtype} of shape {shape}.")
            value = value.tolist()
        whole = isinstance(value, Sequence) and not isinstance(value, str) and all(_is_index(v) for v in value)
        return cls(tuple(int(v) for v in value)) if whole else None


@target("top", form="top[:RANK]")
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

    @classmethod
    def read(cls, text: str) -> TopClass | None:
        """`top` or `top:RANK`."""
        word, _, rank = text.partition(":")
        return cls(int(rank or 0)) if word == "top" and (text == word or rank.isdecimal()) else None

    @classmethod
    def of(cls, value: Any) -> TopClass | None:
        """Nothing asked for is the top class."""
        return cls() if value is None else None

    def __str__(self) -> str:
        return "top class" if self.rank == 0 else f"class of rank {self.rank}"


@target("contrast", form="A>B")
@dataclass(frozen=True)
class Contrast(ClassTarget):
    """Why `a` rather than `b`: `y[:, a] - y[:, b]`; as a probability, that of `a` among the two."""

    a: int | str
    b: int | str

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

    def lead(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """The difference itself."""
        return self(output)

    def name(self, labels: Labels) -> str:
        """`a rather than b`."""
        return f"{Class(self.a).name(labels)} rather than {Class(self.b).name(labels)}"

    def spec(self) -> str:
        """`a>b`."""
        return f"{self.a}>{self.b}"

    @classmethod
    def read(cls, text: str) -> Contrast | None:
        """`a>b`."""
        a, contrast, b = text.partition(">")
        return cls(index_or_label(a), index_or_label(b)) if contrast else None


def index_or_label(text: str) -> int | str:
    """A class as it is written: a number, or a label."""
    text = text.strip()
    return int(text) if text.removeprefix("-").isdecimal() else text


def _is_index(value: object) -> bool:
    """A whole number, numpy's among them; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _whole(values: Tensor | np.ndarray[Any, Any]) -> bool:
    """Whether a tensor or an array holds whole numbers, of which True and False are none."""
    if isinstance(values, np.ndarray):
        return bool(np.issubdtype(values.dtype, np.integer))
    return not values.is_floating_point() and not values.is_complex() and values.dtype != torch.bool
