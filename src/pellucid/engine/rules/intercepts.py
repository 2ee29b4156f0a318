"""Where a score comes from that no input carries: what each function adds to its own linear part.

Around its input a function is `y = J x + b`. The gradient leads `J x` on, and `b g`, its share of the score, stays at
the function: a layer's bias, the constant in a sum, the bend of an activation. All shares and `x g` at the input sum to
the score, on any network (Srinivas & Fleuret 2019, arXiv:1905.00780, sec. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.backward import Call, Rule
from pellucid.engine.rules.layers import Affine, straight_line
from pellucid.engine.rules.pointwise import GATES, POINTWISE
from pellucid.engine.rules.products import constant_part
from pellucid.engine.strides import plain

_STRAIGHT = ("relu", "leaky_relu")  # `f(x) = x f'(x)` everywhere
_OF_ONE = POINTWISE | GATES | {"relu", "relu6", "hardtanh", "rsqrt", "reciprocal"}  # one value each, by themselves

Kept = Callable[[str, Tensor], None]
"""(function, share of the score at each place of its answer) -> noted."""


@dataclass(frozen=True)
class Intercept(Rule):
    """Base: another rule, or the function itself, and a note of what its answer takes for itself."""

    keep: Kept = field(repr=False)
    rule: Rule | None = None

    def __call__(self, call: Call) -> Any:
        """The rule's answer, or the function's own; None where there is nothing to note."""
        own = self.own(call)
        answer = None if self.rule is None else self.rule(call)
        if own is None:
            return answer
        if answer is None:
            answer = call.answer()
        if isinstance(answer, Tensor) and answer.requires_grad:
            answer.register_hook(lambda g: self.keep(call.name, own.to(g) * g))  # type: ignore[no-untyped-call]
        return answer

    def own(self, call: Call) -> Tensor | None:
        """`b`, of the answer's shape or what expands to it."""
        return None


@dataclass(frozen=True)
class Bias(Intercept):
    """The bias of a layer with weights."""

    def own(self, call: Call) -> Tensor | None:
        """Along the channels."""
        if not Affine.fits(call):
            return None
        layer = Affine(call)
        bias: Tensor | None = layer.bias
        if bias is not None and call.name.startswith("conv"):
            bias = bias.reshape(-1, *[1] * (layer.weight.ndim - 2))
        return bias


@dataclass(frozen=True)
class Constant(Intercept):
    """What a sum, or a normalisation by fixed statistics, answers to an input of zeros."""

    def own(self, call: Call) -> Tensor | None:
        """Its constant part; of a normalisation what it shifts each channel by."""
        line = straight_line(call) if call.name == "batch_norm" and call.live() == [0] else None
        return constant_part(call) if line is None else line[1].reshape(-1, *[1] * (call.args[0].ndim - 2))


@dataclass(frozen=True)
class Shift(Intercept):
    """The bias of a normalisation by the picture's own statistics, whose spread is held fixed by another rule."""

    def own(self, call: Call) -> Tensor | None:
        """Along the channels; not for the root mean square, which has none."""
        place = {"group_norm": 3, "layer_norm": 3, "native_layer_norm": 3, "instance_norm": 4}.get(call.name)
        bias = None if place is None else call.argument(place, "bias")
        if not isinstance(bias, Tensor):
            return None
        last = call.name in ("layer_norm", "native_layer_norm")
        return bias.detach() if last else bias.detach().reshape(-1, *[1] * (call.args[0].ndim - 2))


@dataclass(frozen=True)
class Degree(Intercept):
    """A product of `k` signals, whose gradient counts it `k` times; a quotient, whose denominator counts less one."""

    def __call__(self, call: Call) -> Any:
        """The product, which notes `(1 - k) y`; None for what is linear."""
        live = call.live()
        degree = (1 if 0 in live else 0) - (1 if 1 in live else 0) if call.name == "div" else len(live)
        if degree == 1:
            return None
        answer: Tensor = call.answer()
        own = (1 - degree) * answer.detach()
        answer.register_hook(lambda g: self.keep(call.name, own * g))  # type: ignore[no-untyped-call]
        return answer


@dataclass(frozen=True)
class Bend(Rule):
    """Any other function: `y - J x`, with `J x` out of the gradient's own gradient."""

    keep: Kept = field(repr=False)

    def __call__(self, call: Call) -> Any:
        """The answer, led back plainly; None for what answers several tensors."""
        live = call.live()
        if not live:
            return None
        if call.name in _STRAIGHT and live == [0]:
            return call.answer()
        leaves, found = call.local(live)
        value: Any = found
        if not isinstance(value, Tensor) or not value.requires_grad:
            return None
        with torch.enable_grad():
            if call.name in _OF_ONE and len(leaves) == 1 and leaves[0].shape == value.shape:
                return self._of_one(call, live, leaves[0], value)
            away = torch.zeros_like(value, requires_grad=True)
            slopes = torch.autograd.grad(value, leaves, away, create_graph=True, allow_unused=True)
            along = sum((x.detach() * s).sum() for x, s in zip(leaves, slopes, strict=True) if s is not None)
            straight = torch.autograd.grad(along, away)[0] if isinstance(along, Tensor) else torch.zeros_like(value)
        return self._led(call, live, leaves, value, straight)

    def _of_one(self, call: Call, live: Sequence[int], leaf: Tensor, value: Tensor) -> Tensor:
        """Of a function of each value by itself, whose slope says both what is led back and what bends."""
        (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
        x, y = leaf.detach(), value.detach()

        def back(g: Tensor) -> tuple[Tensor]:
            sent = slope * g
            self.keep(call.name, (y * g).addcmul_(x, sent, value=-1))
            return (sent,)

        return call.rerouted(y, live, back)

    def _led(
        self, call: Call, live: Sequence[int], leaves: Sequence[Tensor], value: Tensor, straight: Tensor
    ) -> Tensor:
        """The answer `y`, led back plainly; `straight` is its `J x`."""
        y = value.detach()

        def back(g: Tensor) -> tuple[Tensor, ...]:
            self.keep(call.name, (y - straight) * g)
            sent = torch.autograd.grad(value, leaves, plain(g), retain_graph=True, allow_unused=True)
            return tuple(torch.zeros_like(x) if h is None else h for x, h in zip(leaves, sent, strict=True))

        return call.rerouted(y, live, back)
