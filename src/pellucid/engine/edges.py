"""Layers that pass no gradient on: a quantised layer may compute in integers, which autograd does not follow.

A network with such a layer has a gradient all the same, where something goes round the layer, and it is a wrong one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pellucid.engine.hooks import Behind, Hooks
from pellucid.engine.misfit import OUTPUTS_ONLY
from pellucid.errors import ModelError


def watch_edges(module: nn.Module, hooks: Hooks) -> None:
    """Refuse a pass with a graph in which a quantised layer passes no gradient on, as long as the hooks are there.

    Layers of plain weights cost nothing: only a network that holds others is looked at.
    """
    parts = [(name, part) for name, part in module.named_modules() if not isinstance(part, torch.jit.ScriptModule)]
    if not any(map(quantised, (part for _, part in parts))):
        return
    for name, part in parts:
        if next(part.children(), None) is None:
            hooks.behind(part, _refusal(name))


def quantised(part: nn.Module) -> bool:
    """Whether a layer holds weights of a kind of their own (torchao), or packed ones (torch.ao)."""
    own = any(type(p) not in (nn.Parameter, Tensor) for p in part._parameters.values() if p is not None)
    return own or type(part).__module__.startswith("torch.ao.nn") or hasattr(part, "_packed_params")


def _refusal(name: str) -> Behind:
    def refuse(_part: nn.Module, args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and _with_graph(args) and not _with_graph(output):
            raise ModelError(
                f"The quantised layer {name!r} passes no gradient on, so a gradient would miss all that goes through "
                f"it: {OUTPUTS_ONLY}, or explain a float copy of the model."
            )

    return refuse


def _with_graph(values: Any) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in tree_leaves(values))
