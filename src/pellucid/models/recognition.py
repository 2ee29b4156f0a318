"""What a model's output means where nobody has declared it: by its structure, its configuration, and what it answers.

Nothing is guessed from a name alone. Logits of several columns that nothing speaks against are taken for those of
classes that exclude each other, and a single column that has labels for one logit, as most classifiers are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine import leave_no_trace, unwrap
from pellucid.engine.run import run_model
from pellucid.errors import ModelError, TargetError
from pellucid.models.parts import parts
from pellucid.models.reading import IN_DOUBT, Reading, exclusive

_NOISE_SEED = 0
_SAME = 1e-4
_LARGEST = 30.0  # logit that is met: its sigmoid is within single precision of 0 or 1
_SHARED, _LIKELY = 0.4, 0.8  # of the softmax and of the sigmoid, for each of two labels
_UNCHANGED = ("View", "Reshape", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "Alias", "Select", "Slice", "Unsafe")
_PROBLEMS = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "none",
}  # what transformers calls them


def settle(
    reading: Reading, module: nn.Module, inputs: Tensor, output: Any, labels: Sequence[str] | None = None
) -> Reading:
    """A reading with all that was not declared recognised, from the output `output` for `inputs`.

    An output that holds no class scores leaves it as it is: functions of the output need none. The model runs once
    more, on noise, only where all scores lie between 0 and 1, and where one number has one label.

    Raises:
        ModelError: what was declared does not fit the output.
    """
    if reading.output is not None and isinstance(output, Tensor):
        raise ModelError(f"The model returns a tensor, which has no part {reading.output!r}: leave out output=.")
    try:
        reading = reading.located(output, labels, len(inputs))
        scores = reading.tensor(output)
    except TargetError as error:
        if reading.output is not None:
            raise ModelError(str(error)) from error
        return reading
    if not scores.is_floating_point() or scores.ndim > 3:
        return reading
    width = scores.shape[-1] if scores.ndim > 1 else 1
    if reading.scores == "softmax" and width == 1:
        raise ModelError("One column of scores has no softmax, which is over classes: say scores='sigmoid' or 'none'.")
    kind = reading.scores or _configured(module, width, labels) or _beside(output, reading)
    if kind is None and bool(((scores >= 0) & (scores <= 1)).all()):
        kind = _bounded(reading, module, inputs, scores)
    doubt = reading.doubt
    if kind is None and width == 1:
        doubt = _number(reading, module, inputs, scores, labels)
    elif kind is None and scores.ndim == 2 and bool(_shared(scores, module).all()):
        doubt = IN_DOUBT.doubt
    kind = kind or ("none" if doubt else "sigmoid" if width == 1 else "softmax")
    two = width == 1 and labels is not None and len(labels) == 2
    return replace(reading, scores=kind, pair=two and (kind != "none" or bool(doubt)), doubt=doubt)


def doubts(
    reading: Reading, module: nn.Module, output: Any, count: int, labels: Sequence[str] | None = None
) -> list[bool]:
    """For each of so many inputs, whether `settle` would leave open, by its row alone, what its scores mean.

    Args:
        reading: as it was declared.
    """
    scores = reading.found(output, count, labels)
    if reading.scores is not None or scores is None or scores.shape[1] == 1:
        return [False] * count
    if _configured(module, scores.shape[1], labels) or _beside(output, reading.located(output, labels, count)):
        return [False] * count
    rows: list[bool] = _shared(scores, module).tolist()
    return rows


def configuration(module: nn.Module) -> Any:
    """The configuration that a model of transformers carries, through whatever is wrapped around it; None without."""
    while True:
        found = getattr(module, "config", None)
        if hasattr(found, "id2label"):
            return found
        inner = getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            return None
        module = inner


def configured_labels(module: nn.Module) -> list[str] | None:
    """The class names in the configuration of a model of transformers; None where it holds none but `LABEL_0`, ..."""
    names = getattr(configuration(module), "id2label", None)
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        return None
    labels = [str(names[i]) for i in range(len(names))]
    return None if labels == [f"LABEL_{i}" for i in range(len(names))] else labels


def _configured(module: nn.Module, width: int, labels: Sequence[str] | None) -> str | None:
    """What the model's own configuration says; a single number without a name is what regression answers."""
    config = configuration(module)
    if config is None:
        return None
    known = _PROBLEMS.get(str(getattr(config, "problem_type", None)))
    if known == "softmax" and width == 1:
        return None
    if known is None and width == 1 and (labels is None or len(labels) == 1):
        return "none"
    return known


def _publishes_classifiers(module: nn.Module) -> bool:
    """Whether the network comes from a library whose classifiers are trained on classes that exclude each other."""
    return unwrap(module).__class__.__module__.partition(".")[0] in ("timm", "torchvision")


def _shared(scores: Tensor, module: nn.Module) -> Tensor:
    """For each input `(N,)`, whether two labels are likely by their sigmoids and share the softmax between them."""
    if _publishes_classifiers(module):
        return torch.zeros(len(scores), dtype=torch.bool)
    top = scores.float().topk(2, dim=1)
    shared = scores.float().softmax(1).gather(1, top.indices).amin(1) >= _SHARED
    return shared & (top.values.sigmoid().amin(1) >= _LIKELY)


def _number(
    reading: Reading, module: nn.Module, inputs: Tensor, scores: Tensor, labels: Sequence[str] | None
) -> bool | str:
    """Why a single number is no logit; False where nothing speaks against it."""
    if labels is None:
        return "number"
    seen = [scores]
    if len(labels) == 1:  # "age", or "ill": two labels are of a decision
        seen += [] if (answer := _on_noise(reading, module, inputs)) is None else [answer.detach()]
    return "size" if any(float(each.abs().max()) > _LARGEST for each in seen) else False


def _beside(output: Any, reading: Reading) -> str | None:
    """What the probabilities prove that an output holds beside its logits."""
    scores = reading.tensor(output)
    if isinstance(output, Tensor) or scores.ndim != 2:
        return None
    z = scores.float()
    others = [p.tensor.float() for p in parts(output) if p.tensor.shape == z.shape and p.tensor is not scores]
    for kind, made in (("softmax", z.softmax(1)), ("sigmoid", z.sigmoid())):
        if any(torch.allclose(o, made, atol=_SAME) for o in others):
            return kind
    return None


def _bounded(reading: Reading, module: nn.Module, inputs: Tensor, scores: Tensor) -> str | None:
    """`probabilities`, if scores between 0 and 1 are bound to lie there: on noise, and by what was computed last."""
    sums = scores.ndim > 1 and scores.shape[-1] > 1 and exclusive(scores)
    answer = _on_noise(reading, module, inputs)
    if answer is None:  # the inputs alone speak
        return "probabilities" if sums else None
    if not bool(((answer >= 0) & (answer <= 1)).all()):
        return None
    proven = _last_function(answer) in ("sigmoid", "softmax")
    return "probabilities" if proven or (sums and exclusive(answer)) else None


def _on_noise(reading: Reading, module: nn.Module, inputs: Tensor) -> Tensor | None:
    """The scores of one input of noise, with their graph; None of a model that takes no noise."""
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    noise = torch.randn((1, *inputs.shape[1:]), generator=generator).to(inputs)
    module = unwrap(module)
    try:
        with leave_no_trace(module), torch.enable_grad():
            return reading.tensor(run_model(module, noise.requires_grad_()))
    except (ModelError, TargetError):
        return None


def _last_function(answer: Tensor) -> str:
    """Name of the function that made a tensor, by its graph, past whatever only lays it out anew."""
    node: Any = answer.grad_fn
    while node is not None:
        name = type(node).__name__
        if not name.startswith(_UNCHANGED):
            return str(name.partition("Backward")[0].lower())
        node = node.next_functions[0][0] if node.next_functions else None
    return ""
