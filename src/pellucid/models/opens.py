"""What a model opens to whoever explains it, and what that needs: outputs, gradients, layers.

A module says it by an attribute `opens`; without one, everything is open.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from pellucid.engine import unwrap
from pellucid.errors import ModelError

Need = Literal["outputs", "gradients", "layers"]

EVERYTHING: frozenset[Need] = frozenset(get_args(Need))
OUTPUTS: frozenset[Need] = frozenset({"outputs"})
GRADIENTS: frozenset[Need] = frozenset({"outputs", "gradients"})
LAYERS: frozenset[Need] = frozenset({"outputs", "layers"})

_ELSEWHERE = {"a clip", "a box", "a region", "a pair"}  # what the input or the target must be, not the model


def opens(module: nn.Module) -> frozenset[Need]:
    """What a network opens; an adapter opens what the network inside it does."""
    stated = getattr(unwrap(module), "opens", None)
    return stated if isinstance(stated, frozenset) else EVERYTHING


def needed(said: str) -> frozenset[Need]:
    """What a method needs that says it needs `gradients, a layer`: whatever is no output and no gradient is inside."""
    words = set(said.split(", ")) - _ELSEWHERE
    plain = {word for word in EVERYTHING if word in words}
    return frozenset(plain | ({"layers"} if words - plain else set()))


def require_layers_open(module: nn.Module, so: str) -> None:
    """Refuse a model that shows no layers; `so` goes on the sentence: `there is no atlas of one`.

    Raises:
        ModelError: it shows none.
    """
    if "layers" not in opens(module):
        raise ModelError(f"A black box shows no layers, so {so}: load the network itself.")
