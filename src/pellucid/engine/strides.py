"""Gradients in plain strides, in front of normalisations that read them wrongly otherwise.

On the CPU torch (up to 2.14 at least) gives a wrong gradient of a batch or instance normalisation, without a word,
where three things meet: one sample, an input in the usual order, and a gradient whose channels run fastest, as it comes
from tokens (`flatten(2).transpose(1, 2)`). The first stride of such a gradient says nothing about its order. A copy in
plain order is read rightly, whatever the input's.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from pellucid.engine.hooks import Hooks


def straighten_gradients(module: nn.Module, hooks: Hooks) -> None:
    """Hand plain gradients to the normalisations of a model, as long as the hooks are there."""
    for part in module.modules():
        if isinstance(part, _BatchNorm | _InstanceNorm):
            hooks.behind(part, _watch)


def _watch(_part: nn.Module, _args: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.requires_grad and output.ndim > 3 and len(output) == 1:
        output.register_hook(plain)  # type: ignore[no-untyped-call]


def plain(g: Tensor) -> Tensor:
    """A gradient of one sample, copied where its strides leave its order open."""
    return g if g.stride(0) == g.numel() or g.is_contiguous() else g.contiguous()
