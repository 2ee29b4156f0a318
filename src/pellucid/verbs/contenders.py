"""`auto` among the methods of an evaluation: of each family that suits the model, who is worth measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.errors import MethodError, PellucidError
from pellucid.heatmaps import Method
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target
from pellucid.verbs.advise import advise
from pellucid.verbs.auto import Auto
from pellucid.verbs.choices import as_methods
from pellucid.verbs.inputs import Input, prepared

_OPEN = (
    "grad-cam",
    "layer-cam",
    "hires-cam",
    "grad-cam-elementwise",
    "eigen-cam",
    "input-x-gradient",
    "smooth-grad",
    "deep-lift",
    "integrated-gradients",
    "attn-lrp",
    "attention-relevance",
    "occlusion",
)
_CLOSED = ("occlusion", "rise")  # where a model shows its answers alone


def contenders(model: VisionModel, inputs: Input | Sequence[Input], target: Target, seed: int = 0) -> list[Method]:
    """Methods of different families that suit a model and a target, told by `advise` from the first input.

    Raises:
        MethodError: none does.
    """
    first = next((item for _, item in prepared(model, inputs) if not isinstance(item, PellucidError)), None)
    entries = advise(model, target, inputs=None if first is None else first.x).entries
    suits = {e.method for e in entries if e.verdict != "refused"}
    names = [n for n in _OPEN if n in suits]
    names += [n for n in _CLOSED if n in suits and n not in names and len(names) < len(_CLOSED)]
    if not names:
        raise MethodError(
            "auto finds no method that suits this model and target: name some; `pellucid advise` says why."
        )
    return as_methods(names, seed=seed)


def with_contenders(
    named: dict[str, Any], model: VisionModel, inputs: Input | Sequence[Input], target: Target
) -> dict[str, Any]:
    """Whoever was named, the contenders in the place of `auto`; nobody twice."""
    found: dict[str, Any] = {}
    for name, given in named.items():
        if isinstance(given, Auto):
            found |= {
                m.name: m for m in contenders(model, inputs, target, given.seed) if m.name not in {*found, *named}
            }
        else:
            found[name] = given
    return found
