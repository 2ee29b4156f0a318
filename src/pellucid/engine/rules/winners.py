"""Sums and means by what excites them: shares that are never negative, as among the inputs of a layer.

Zhang et al. 2016 (arXiv:1608.00507, sec. 3.2) take activations behind rectifiers, where shares in proportion are
positive anyway. Sums of residual branches and means of a convolution's answer are of both signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.backward import Call, Rule, carrier

MEANS = ("mean", "sum", *(f"{kind}avg_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3)))
"""What adds values up by weights above 0."""


@dataclass(frozen=True)
class Winners(Rule):
    """Of a sum of signals what excites it takes all, `s+ / (sum of s+)`; by sizes where nothing does.

    Constants win nothing.
    """

    def __call__(self, call: Call) -> Any:
        """The sum; None where a summand is named."""
        live = call.live()
        if not live or any(isinstance(p, Tensor) for p in call.kwargs.values()):
            return None
        with torch.no_grad():
            y = call.answer()
        given = [call.args[k].detach() for k in live]

        def won(g: Tensor) -> list[Tensor]:
            with torch.no_grad():
                R = carrier(y) * g
                parts = [_alone(call, k).expand_as(y) for k in live]
                plus = [p.clamp(min=0) for p in parts]
                excited = torch.stack(plus).any(0)
                shares = [p.where(excited, carrier(q).abs()) for p, q in zip(plus, parts, strict=True)]
                whole = torch.stack(shares).sum(0)
                sent = [(R * s / whole).sum_to_size(x.shape) for s, x in zip(shares, given, strict=True)]
                return [h / carrier(x) for h, x in zip(sent, given, strict=True)]

        return call.rerouted(y, live, won)


def _alone(call: Call, place: int) -> Tensor:
    """What one summand adds to a sum of two."""
    summands = [
        0 if not isinstance(a, Tensor) else a.detach() if k == place else torch.zeros_like(a)
        for k, a in enumerate(call.args[:2])
    ]
    answer: Tensor = call.answer(*summands, *call.args[2:])
    return answer


@dataclass(frozen=True)
class Excited(Rule):
    """A mean, or a product with weights above 0, by the values above 0; by sizes where there are none."""

    def __call__(self, call: Call) -> Any:
        """The answer; None where two factors depend on the picture, or weights are of both signs."""
        live = call.live()
        if len(live) != 1:
            return None
        weights = [a for k, a in enumerate(call.args) if isinstance(a, Tensor) and k != live[0]]
        if any(bool(w.numel()) and float(w.detach().min()) < 0 for w in weights):
            return None
        with torch.no_grad():
            y = call.answer()
        x = call.args[live[0]].detach()

        def answer(leaf: Tensor) -> Tensor:
            with torch.enable_grad():
                found: Tensor = call.answer(*(leaf if k == live[0] else a for k, a in enumerate(call.args)))
            return found

        def won(g: Tensor) -> tuple[Tensor]:
            R = carrier(y) * g
            plus, size = (t.requires_grad_() for t in (x.clamp(min=0), carrier(x).abs()))
            z, sizes = answer(plus), answer(size)
            excited = z.detach() > 0
            (up,) = torch.autograd.grad(z, plus, (R / z.detach()).where(excited, 0))
            (rest,) = torch.autograd.grad(sizes, size, (R / carrier(sizes)).where(~excited, 0))
            return ((plus.detach() * up + size.detach() * rest) / carrier(x),)

        return call.rerouted(y, live, won)
