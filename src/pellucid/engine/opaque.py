"""Models whose layers nobody can read: compiled by TorchScript, or flattened into one graph by `torch.export`."""

from __future__ import annotations

import torch
from torch import fx, nn

from pellucid.engine.hooks import takes_hooks
from pellucid.errors import LayerError

_ORIGINAL = (
    "which runs no hooks, so its layers can't be read: use a method that needs none, such as saliency, "
    "integrated-gradients, occlusion or rise, or explain the original module, or "
    "pl.Unscripted(module) where it is TorchScript"
)


def require_layers(module: nn.Module) -> None:
    """Raises LayerError for a model whose layers can't be read."""
    if isinstance(module, torch.jit.ScriptModule):
        raise LayerError(f"The model is a TorchScript module, {_ORIGINAL}.")
    if _flattened(module):
        raise LayerError(
            f"The model is a program of torch.export, {_ORIGINAL} (torch.export.unflatten(program) has layers again)."
        )


def inside_script(module: nn.Module, name: str) -> bool:
    """Whether the layer called `name` lies inside of a TorchScript module, where no hook is heard, or is one that takes
    no hook.

    A traced part itself is called from Python, and heard; one that was scripted, or loaded from a file, takes none.
    """
    part, above = module.get_submodule(name), module.get_submodule(name.rpartition(".")[0])
    return isinstance(above, torch.jit.ScriptModule) or not takes_hooks(part)


def require_readable(module: nn.Module, name: str) -> None:
    """Raises LayerError for a layer inside of a TorchScript part of a model."""
    if inside_script(module, name):
        raise LayerError(f"Layer {name!r} lies inside of TorchScript, {_ORIGINAL}, or name a layer outside of it.")


def _flattened(module: nn.Module) -> bool:
    """Whether an exported program calls no layer: each operation stands in one graph."""
    return isinstance(module, fx.GraphModule) and all(
        node.op != "call_module" or node.target == "_guards_fn" for node in module.graph.nodes
    )
