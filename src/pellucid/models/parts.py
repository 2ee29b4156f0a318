"""The tensors inside a model's output, whatever holds them, each with the way to it as one writes it in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_DEPTH = 4
_SHOWN = 4  # parts that a sentence names


@dataclass(frozen=True)
class Part:
    """A tensor inside an output.

    Attributes:
        name: what `pl.wrap(output=...)` takes: names and numbers with dots between (`logits`, `1`, `heads.0`).
        way: how Python gets to it from the output: `.logits`, `[1]`, `['heads'][0]`.
        tensor: the tensor itself.
    """

    name: str
    way: str
    tensor: Tensor

    @property
    def scores(self) -> bool:
        """Whether it holds floating numbers."""
        return self.tensor.is_floating_point()


def parts(output: Any) -> list[Part]:
    """All tensors in a tensor, mapping, sequence, dataclass, or object with attributes, in order."""
    return list(_walk(output, (), "", _DEPTH))


def _walk(output: Any, name: tuple[str, ...], way: str, depth: int) -> Iterator[Part]:
    if isinstance(output, Tensor):
        yield Part(".".join(name), way, output)
    elif depth:
        for key, step, value in _members(output):
            yield from _walk(value, (*name, str(key)), way + step, depth - 1)


def _members(output: Any) -> Iterator[tuple[str | int, str, Any]]:
    """Key, step in Python, and value of what an output holds."""
    if isinstance(output, Mapping):
        for key, value in output.items():
            attribute = isinstance(key, str) and key.isidentifier() and getattr(output, key, None) is value
            yield key, f".{key}" if attribute else f"[{key!r}]", value
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from ((key, f".{key}", getattr(output, key)) for key in output._fields)
    elif isinstance(output, list | tuple):
        yield from ((i, f"[{i}]", value) for i, value in enumerate(output))
    elif dataclasses.is_dataclass(output):
        yield from ((f.name, f".{f.name}", getattr(output, f.name)) for f in dataclasses.fields(output))
    elif hasattr(output, "__dict__") and not isinstance(output, type):
        yield from ((key, f".{key}", value) for key, value in vars(output).items() if not key.startswith("_"))


def taken(output: Any, name: str) -> Tensor | None:
    """The tensor of that name inside an output; a tensor is its own only part."""
    if isinstance(output, Tensor):
        return output
    return next((part.tensor for part in parts(output) if part.name == name), None)


def lists_pictures(output: Any) -> bool:
    """Whether it is a list with a mapping of findings for each picture, as detectors answer."""
    return isinstance(output, list) and bool(output) and all(isinstance(each, Mapping) for each in output)


BOXES = ("boxes", "labels", "scores")


def speaks_of_boxes(output: Any) -> bool:
    """Whether it is a mapping of boxes `(N, M, 4)`, labels and scores."""
    if not isinstance(output, Mapping) or not all(isinstance(output.get(key), Tensor) for key in BOXES):
        return False
    boxes: Tensor = output["boxes"]
    return boxes.ndim == 3 and boxes.shape[-1] == 4 and output["scores"].shape == boxes.shape[:2]


def lists_boxes(output: Any) -> bool:
    """Whether it is a list with boxes, labels and scores for each picture."""
    return lists_pictures(output) and all(set(BOXES) <= set(each) for each in output)


def cornered(boxes: Tensor) -> bool:
    """Whether all of these `(..., 4)` end at or behind where they begin, as edges `(x0, y0, x1, y1)` do."""
    return bool((boxes[..., 2:] >= boxes[..., :2]).all())


def structured(output: Any) -> bool:
    """Whether it says itself what its tensors are, and none of them is a row of class scores."""
    kind = type(output)
    return lists_pictures(output) or speaks_of_boxes(output) or bool(getattr(kind, "structured", False))


def described(output: Any) -> str:
    """What an output is, in words: `a dict of y['out'] (1, 4, 64, 64) and y['aux'] (1, 4, 64, 64)`."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, str | bytes | int | float) or output is None:
        return repr(output)[:40]
    found = parts(output)
    kind = type(output).__name__
    if not found:
        return f"{_article(kind)} {kind} without a tensor"
    named = [f"y{p.way} {tuple(p.tensor.shape)}" for p in found[:_SHOWN]]
    if len(found) > _SHOWN:
        named.append(f"{len(found) - _SHOWN} more")
    return f"{_article(kind)} {kind} of {', '.join(named[:-1])}{' and ' if len(named) > 1 else ''}{named[-1]}"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in tuple("aeio") else "a"


def nothing_to_explain(output: Any) -> str:
    """The sentence for an output that holds no number."""
    return (
        f"The model returns {described(output)}, so there is no score to explain: let it return its scores, a tensor "
        "(N, classes)."
    )


def advised(output: Any) -> str:
    """A function of an output to one score for each sample, as one writes it, that works on this output."""
    if lists_pictures(output):
        inside = next((p for p in parts(output[0]) if p.scores and p.tensor.ndim == 1), None)
        inside = inside or next((p for p in parts(output[0]) if p.scores), None)
        return f"lambda y: torch.stack([found{inside.way if inside else ''}.sum() for found in y])"
    floats = [p for p in parts(output) if p.scores]
    best = next((p for p in floats if p.name.endswith("logits")), None) or next(
        (p for p in floats if p.tensor.ndim > 1), floats[0] if floats else None
    )
    if best is None:
        return "lambda y: y[:, 0]"
    shape = best.tensor.shape
    if len(shape) < 2:
        return f"lambda y: y{best.way}.reshape(-1)"
    axes = ", ".join(str(i) for i in range(1, len(shape) - 1))
    pooled = "" if len(shape) == 2 else f".mean({axes})" if len(shape) == 3 else f".mean(({axes}))"
    return f"lambda y: y{best.way}[:, {min(3, shape[1] - 1)}]{pooled}"
