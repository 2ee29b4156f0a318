"""Functions of one value: what they are called, and rules that lead through them whatever their formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.backward import Call, Rule, carrier
from pellucid.engine.spelling import words

SQUASHING = words("sigmoid tanh hardsigmoid logsigmoid log_sigmoid softsign erf")
GATES = words("sigmoid hardsigmoid")
ACTIVATIONS = SQUASHING | words("""
    gelu silu hardswish elu selu celu leaky_relu prelu mish softplus rrelu hardshrink softshrink tanhshrink
""")
"""Activations that are no rectifiers."""

POINTWISE = ACTIVATIONS | words("exp log log2 log10 log1p expm1 sqrt square pow abs sin cos")
"""Functions of one value each."""


@dataclass(frozen=True)
class Pass(Rule):
    """Relevance goes through as it is: `g y / x` of `y = f(x)` (Bach et al. 2015, doi:10.1371/journal.pone.0130140)."""

    def __call__(self, call: Call) -> Any:
        """The activation's value; None for functions of several values."""
        live = call.live()
        if live != [0]:
            return None
        with torch.no_grad():
            value = call.answer()
        x = call.args[0]
        if not isinstance(value, Tensor) or value.shape != x.shape:
            return None
        return call.rerouted(value, [0], lambda g: (carrier(value).div(carrier(x)).mul_(g),), keeps=True)
