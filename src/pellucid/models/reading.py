"""Reading: what a model's output means. Which tensor holds the scores, and what makes probabilities of them.

Everything that takes an output for class scores asks a `Reading`. It is declared (`pl.wrap(..., scores=, output=)`) or
recognised (`models/recognition.py`), and written into records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ModelError, TargetError
from pellucid.models.parts import (
    Part,
    advised,
    cornered,
    described,
    lists_boxes,
    nothing_to_explain,
    parts,
    structured,
    taken,
)

SCORES = ("softmax", "sigmoid", "probabilities", "none")

_SUM = 5e-3  # how far from 1 the probabilities of a row may add up: black boxes round what they answer
_SAME = 1e-4  # between probabilities and those made of the logits beside them


_DOUBTS = {
    "labels": "Two labels are each likely by themselves and share the softmax between them, so it is open whether they "
    "exclude each other: scores are shown instead of probabilities. Say pl.wrap(module, scores='sigmoid') if several "
    "labels may be true at once, else scores='softmax'.",
    "number": "The model answers one number and has no labels, so it is open whether it is a logit or a measured "
    "value: the number is shown, and no probability. Say pl.wrap(module, scores='sigmoid') of a logit, "
    "labels=[negative, positive] of one that decides between two, else scores='none'.",
    "size": "The model answers one number, of a size that logits do not have, so it is taken for a measured value: the "
    "number is shown, and no probability. Say pl.wrap(module, scores='sigmoid') if it is a logit, else scores='none'.",
}


@dataclass(frozen=True)
class Reading:
    """How an output is read as scores of classes.

    Attributes:
        output: the part that holds the scores, by name or number (`logits`, `1`, `heads.0`); None where the output is
            a tensor, or the part is still to be found.
        scores: what they are: logits of one class among all (`softmax`), logits of labels that do not exclude each
            other (`sigmoid`), `probabilities` already, or plain values (`none`); None is not yet recognised.
        pair: one number decides between two labels, of which the second is the positive one.
        doubt: False; or why scores are taken for plain values. `labels`: they may be logits of a softmax or of labels
            that do not exclude each other, and on the inputs that were seen the two say different things. `number`:
            one number, which may be a logit or a measured value. `size`: one number, too large for a logit.

    Raises:
        ModelError: there are no such scores.
    """

    output: str | None = None
    scores: str | None = None
    pair: bool = False
    doubt: bool | str = False

    def __post_init__(self) -> None:
        if self.scores is not None and self.scores not in SCORES:
            raise ModelError(f"Scores are {', '.join(SCORES[:-1])} or {SCORES[-1]}, not {self.scores!r}.")

    @classmethod
    def declared(cls, scores: str | None, output: str | int | None) -> Reading:
        """As a user says it."""
        return cls(None if output is None else str(output), scores)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to recognise."""
        return self.scores is not None

    @property
    def bounded(self) -> bool:
        """Whether its values are probabilities."""
        return self.scores != "none"

    @property
    def notes(self) -> list[str]:
        """What the reader of a result must know."""
        if not self.doubt:
            return []
        return [_DOUBTS["labels" if self.doubt is True else str(self.doubt)]]  # True: as earlier records say it

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reading:
        """The inverse of `as_dict`."""
        return cls(**values)

    def tensor(self, output: Any) -> Tensor:
        """The tensor of scores in an output, as it is.

        Raises:
            TargetError: no part, or more than one, can be taken for it.
        """
        if isinstance(output, Tensor):
            return output
        if self.output is None:
            return chosen(output).tensor
        found = taken(output, self.output)
        if found is None:
            raise TargetError(
                f"The model's output has no tensor {self.output!r}; it is {described(output)}: name one of its parts "
                "with pl.wrap(module, output=...)."
            )
        return found

    def class_scores(self, output: Any) -> Tensor:
        """`(N, classes)`, in single precision; two columns, of opposite sign, for one logit between two labels.

        Raises:
            TargetError: the output holds no such scores.
        """
        scores = self.tensor(output)
        if scores.ndim > 2:
            raise TargetError(no_class_scores(output, f"has shape {tuple(scores.shape)}"))
        scores = (scores if scores.ndim == 2 else scores.reshape(-1, 1)).float()
        if not self.pair or scores.shape[1] != 1:
            return scores
        other = 1 - scores if self.scores == "probabilities" else -scores
        return torch.cat([other, scores], 1)

    def located(self, output: Any, labels: Sequence[str] | None = None, count: int | None = None) -> Reading:
        """This reading with the part that holds the scores, if that is still to be found (see `chosen`)."""
        if self.output is not None or isinstance(output, Tensor):
            return self
        return replace(self, output=chosen(output, labels, count).name)

    def found(self, output: Any, count: int, labels: Sequence[str] | None = None) -> Tensor | None:
        """`class_scores` of so many inputs, of a model with these labels; None where the output holds none."""
        try:
            scores = self.located(output, labels, count).class_scores(output)
        except TargetError:
            return None
        return scores if len(scores) == count else None

    def probabilities(self, scores: Tensor) -> Tensor:
        """Of class scores `(N, classes)`: their probabilities; plain values as they are."""
        kind = self._kind(scores)
        return scores.softmax(1) if kind == "softmax" else scores.sigmoid() if kind == "sigmoid" else scores

    def excludes(self, scores: Tensor) -> bool:
        """Whether of these class scores `(N, classes)` one alone is the answer."""
        return self._kind(scores) in ("softmax", "probabilities")

    def between(self, scores: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The probability `(N,)` of one class among two alone, `a` and `b` being their columns of the class scores.

        Of plain values it is their difference.
        """
        if self.pair and self.scores == "sigmoid":
            return a.sigmoid()
        kind = self._kind(scores)
        if kind == "probabilities":
            return a / (a + b).clamp(min=torch.finfo(a.dtype).tiny)
        return a - b if kind == "none" else (a - b).sigmoid()

    def _kind(self, scores: Tensor) -> str:
        """What class scores are, where nothing was recognised by what they themselves show."""
        if self.scores is not None:
            return self.scores
        if scores.shape[1] == 1:
            return "sigmoid"
        return "probabilities" if exclusive(scores) else "softmax"


IN_DOUBT = Reading(scores="none", doubt="labels")
"""Of an input whose scores leave open if labels exclude each other."""


def exclusive(scores: Tensor) -> bool:
    """Whether each row is of probabilities of which one must come true: none negative, and their sum is 1."""
    return bool((scores >= 0).all()) and bool(((scores.sum(-1) - 1).abs() <= _SUM).all())


def no_class_scores(output: Any, seen: str) -> str:
    """The sentence for an output without class scores; `seen` says what it has in their place."""
    own = (
        "pass a target of your own, a function from the output to one score per sample, such as "
        f"target={advised(output)}."
    )
    axes = max((p.tensor.ndim for p in parts(output) if p.scores), default=0)
    if axes == 3:
        return (
            f"The model's output {seen}, not (N, classes): if it is a detector, name how its numbers are read, "
            f"task='boxes:yolox' or another head; else {own}"
        )
    if axes > 3:
        return (
            f"The model's output {seen}, not (N, classes): if it gives a class to each place, say so, task='regions'; "
            f"else {own}"
        )
    return f"The model's output {seen}, not (N, classes): {own}"


def chosen(output: Any, labels: Sequence[str] | None = None, count: int | None = None) -> Part:
    """The part of an output that must be its scores.

    Args:
        output: of any structure.
        labels: of the model: scores have a column for each.
        count: of inputs: scores have a row for each.

    Raises:
        TargetError: there is none, or more than one.
    """
    if structured(output):
        told = [each["boxes"] for each in output] if lists_boxes(output) else []
        if not all(cornered(torch.as_tensor(boxes)) for boxes in told):
            raise TargetError(
                f"The model answers {described(output)}, and some of its boxes end before they begin: let it answer "
                f"edges, (x0, y0, x1, y1), or pass a function of the output, such as target={advised(output)}."
            )
        raise TargetError(no_class_scores(output, f"is {described(output)}"))
    every = [p for p in parts(output) if p.scores]
    if not every:
        raise TargetError(nothing_to_explain(output))
    named = [p for p in every if p.name == "logits"]
    if named:
        return named[0]
    conventional = _has_conventions(output)
    if conventional:  # the outputs of transformers call scores logits, and embeddings by other names
        every = [p for p in every if "logits" in p.name]
    flat = [p for p in every if p.tensor.ndim == 2 and (count is None or len(p.tensor) == count)]
    if labels is not None and not conventional:
        flat = [p for p in flat if fits(p.tensor.shape[1], labels)]
    if not flat:
        deep = [p for p in every if p.tensor.ndim == 3]
        single = [p for p in every if p.tensor.ndim == 1 and (count is None or len(p.tensor) == count)]
        if len(every) == 1 and len(deep or single) == 1:  # a sequence of scores, or one score a sample
            return (deep or single)[0]
        raise TargetError(no_class_scores(output, f"is {described(output)}"))
    found = flat[0] if len(flat) == 1 else _logits_among(flat)
    if found is None:
        raise TargetError(
            f"The model's output is {described(output)}, and more than one of these may be class scores: say which, "
            f"pl.wrap(module, output={_argument(flat[0].name)}), or pass a function of it, target={advised(output)}."
        )
    return found


def _argument(name: str) -> str:
    return name if name.isdecimal() else repr(name)


def fits(width: int, labels: Sequence[str]) -> bool:
    """Whether scores of that width belong to these labels: a column for each, or one between two."""
    return width == len(labels) or (width == 1 and len(labels) == 2)


def _has_conventions(output: Any) -> bool:
    return isinstance(output, Mapping) and hasattr(output, "to_tuple")


def _logits_among(flat: Sequence[Part]) -> Part | None:
    """The logits of which all the other parts are copies or probabilities, if there are such."""
    shapes = {p.tensor.shape for p in flat}
    if len(shapes) > 1 or len(flat) > 3:
        return None
    for part, *others in permutations(flat):
        z = part.tensor.float()
        made = (z, z.softmax(1), z.sigmoid())
        if all(any(torch.allclose(o.tensor.float(), m, atol=_SAME) for m in made) for o in others):
            return part
    return None
