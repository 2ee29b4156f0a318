"""Shells: modules that share all they have with others, so that a network can be changed without being written to."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pellucid.errors import ModelError

UNSOUND = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError, ModelError)
"""What a network that was changed may raise if it cannot be run that way."""

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def hooked(module: nn.Module) -> bool:
    """Whether somebody has hooks on a module."""
    return any(getattr(module, name, None) for name in HOOKS)


def plain_weights(conv: nn.Module) -> bool:
    """Whether a convolution's weights are its own, rather than computed from others at each pass."""
    return conv._parameters.keys() == {"weight", "bias"}


def shell(module: nn.Module) -> nn.Module:
    """A module that shares all it has with another, but for what is set in its `vars`.

    Never by `setattr`: some modules, such as compiled ones, hand attributes on to the module that they wrap.
    """
    shell = module.__class__.__new__(module.__class__)
    vars(shell).update(vars(module))
    vars(shell)["_compiled_call_impl"] = None
    return shell


def copied(module: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The module with some of its parts replaced: the containers on the way to them are shells, the rest is shared."""
    if module in replaced:
        return replaced[module]
    parts = {name: None if part is None else copied(part, replaced) for name, part in module._modules.items()}
    if all(part is module._modules[name] for name, part in parts.items()):
        return module
    twin = shell(module)
    vars(twin)["_modules"] = parts
    return twin
