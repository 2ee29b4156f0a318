"""Layers that pass no gradient on: a quantised layer may compute in integers, which autograd does not follow.

A network with such a layer has a gradient all the same, where something goes round the layer, and it is a wrong one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_leaves

from pellucid.engine.hooks import Behind, Hooks
from pellucid.engine.misfit import OUTPUTS_ONLY
from pellucid.errors import ModelError

_NO_GRADIENT = "torch::autograd::WarnNotImplemented"


def watch_edges(module: nn.Module, hooks: Hooks) -> None:
    """Refuse a pass with a graph in which a quantised layer passes no gradient on, as long as the hooks are there.

    Layers of plain weights cost nothing: only a network that holds others is looked at.
    """
    parts = [(name, part) for name, part in module.named_modules() if not isinstance(part, torch.jit.ScriptModule)]
    if not any(map(quantised, (part for _, part in parts))):
        return
    for name, part in parts:
        if quantised(part) or next(part.children(), None) is None:
            hooks.behind(part, _refusal(name))


def quantised(part: nn.Module) -> bool:
    """Whether a layer holds weights of a kind of their own (torchao), or packed ones (torch.ao)."""
    own = any(type(p) not in (nn.Parameter, Tensor) for p in part._parameters.values() if p is not None)
    return own or type(part).__module__.startswith("torch.ao.nn") or hasattr(part, "_packed_params")


def _refusal(name: str) -> Behind:
    def refuse(_part: nn.Module, args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and _severed(args, output):
            raise ModelError(
                f"The quantised layer {name!r} passes no gradient on, so a gradient would miss all that goes through "
                f"it: {OUTPUTS_ONLY}, or explain a float copy of the model."
            )

    return refuse


def _severed(given: Any, output: Any) -> bool:
    """Whether what a layer was given has a graph, and none of its answer's graph leads back to it.

    An answer may have a graph that leads to the layer's weights alone, or one that ends in a function of which torch
    knows no gradient, and says so in a warning only.
    """
    starts = {get_gradient_edge(t).node for t in _with_graph(given)}
    if not starts:
        return False
    waiting = [get_gradient_edge(t).node for t in _with_graph(output)]
    seen = set(waiting)
    while waiting:
        node = waiting.pop(0)
        if node in starts:
            return False
        if node.name() == _NO_GRADIENT:
            continue
        following = [n for n, _ in node.next_functions if n is not None and n not in seen]
        seen.update(following)
        waiting += following
    return True


def _with_graph(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor) and value.requires_grad]
