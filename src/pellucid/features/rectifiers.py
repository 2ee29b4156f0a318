"""Dead rectifiers: a way back for the gradient where a unit does not fire at all.

A unit behind a ReLU that is silent on the first grey noise has no gradient, and nothing ever changes. For such a
picture (and for no other) the backward pass of every rectifier that would stop its gradient altogether lets it through,
where following it would make the rectifier fire (the idea of lucid's "redirected ReLU"). The rule is at function level:
`functional.relu`, tensor methods, in-place and module rectifiers are all met, and no module is changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.engine.functions import Function, Functions

_RELU = (
    functional.relu,
    functional.relu_,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    torch.clamp_min,
    Tensor.clamp_min,
)
_CAPPED = (functional.relu6, functional.hardtanh, functional.hardtanh_)
_CLAMP = (torch.clamp, torch.clamp_min, torch.clip, Tensor.clamp, Tensor.clamp_, Tensor.clamp_min, Tensor.clip)
_SMOOTH_ENDS = (functional.hardswish, functional.hardsigmoid)


class _Redirected(torch.autograd.Function):
    """A rectifier's value, and its gradient redirected for the samples that it would leave without one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        """The value; the true slope and where the input lies are kept."""
        ctx.save_for_backward(x, slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """`g slope`; for a sample where that is zero everywhere, `g` where it leads back to the sloping part."""
        x, slope = ctx.saved_tensors
        g = grads[0]
        plain = g * slope
        dead = (plain.flatten(1) == 0).all(1).reshape(-1, *[1] * (g.ndim - 1))
        inward = torch.where(x <= 0, g > 0, g < 0)
        return torch.where(dead & inward, g, plain), None, None


class RedirectedRectifiers(Functions):
    """While this is on, rectifiers of whole batches `(N, ...)` pass redirected gradients; values are unchanged."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys((*_RELU, *_CAPPED, *_CLAMP, *_SMOOTH_ENDS), _redirected))


def _redirected(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    ruled = bool(args) and isinstance(args[0], Tensor) and args[0].requires_grad and args[0].ndim > 1
    if not ruled or not torch.is_grad_enabled():
        return function(*args, **kwargs)
    with torch.enable_grad():
        x = args[0].detach().clone().requires_grad_()
        value = function(x.clone(), *args[1:], **kwargs)
        (slope,) = torch.autograd.grad(value.sum(), x)
    redirected = _Redirected.apply(args[0].clone(), value.detach(), slope)
    return args[0].copy_(redirected) if _in_place(function, args, kwargs) else redirected


_INPLACE_ARGUMENT = {
    functional.relu: 1,
    functional.relu6: 1,
    functional.hardtanh: 3,
    functional.hardswish: 1,
    functional.hardsigmoid: 1,
}


def _in_place(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the call writes to its input: by its name, or by a flag."""
    at = _INPLACE_ARGUMENT.get(function, len(args))
    return function.__name__.endswith("_") or kwargs.get("inplace") is True or args[at : at + 1] == (True,)
