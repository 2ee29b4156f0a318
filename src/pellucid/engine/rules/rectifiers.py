"""Rectifiers in all their spellings, and what may lead back through them.

A rectifier follows its input on an interval and is flat outside; at the bounds themselves it is flat, whichever way it
is spelled (torch gives one half for `maximum`, and 0 or 1 for `clamp`, depending on its release).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from pellucid.engine.backward import Call, Rule

RECTIFIERS = (
    "relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold", "maximum", "minimum", "where", "max",
    "min", "fmax", "fmin",
)  # fmt: skip
"""Names of functions that are, or may be, rectifiers."""
DISGUISES = ("masked_fill", "mul", "add", "leaky_relu", "elu", "rrelu")
"""Names of functions that a rectifier may be written with, and that mostly are something else."""
_SLOPES = {"leaky_relu": ("negative_slope",), "elu": ("alpha",), "rrelu": ("lower", "upper")}


def follows(call: Call) -> tuple[int, Tensor] | None:
    """Of a call that is a rectifier: the place of its input, and where it follows the input; None for other calls."""
    live = call.live()
    name = call.name
    if len(live) != 1:
        return _of_its_size(call) if name == "add" and live == [0, 1] else None
    x: Any = call.args[live[0]]
    if name in ("relu", "relu6"):
        return live[0], (x > 0) & (x < 6) if name == "relu6" else x > 0
    if name == "hardtanh":
        return live[0], (x > call.argument(1, "min_val", -1.0)) & (x < call.argument(2, "max_val", 1.0))
    if name in ("clamp", "clamp_min", "clamp_max"):
        if live[0]:
            return None
        low = None if name == "clamp_max" else call.argument(1, "min")
        high = call.argument(1 if name == "clamp_max" else 2, "max")
        above = x > (-math.inf if low is None else low)
        return 0, above & (x < (math.inf if high is None else high))
    if name == "threshold":
        return live[0], x > call.argument(1, "threshold")
    if name in ("maximum", "fmax", "minimum", "fmin", "max", "min"):
        other = call.args[1 - live[0]] if len(call.args) == 2 else call.kwargs.get("other")
        if not isinstance(other, Tensor):
            return None
        return live[0], x > other if name in ("maximum", "fmax", "max") else x < other
    if name in _SLOPES and live == [0]:
        flat = all(call.argument(k, slope, 1.0) == 0 for k, slope in enumerate(_SLOPES[name], 1))
        return (0, x > 0) if flat else None
    if name == "masked_fill" and live == [0] and call.args[2] == 0:
        return _of_its_sign(0, x, call.args[1].logical_not())
    if name == "mul" and len(call.args) == 2 and isinstance(call.args[1 - live[0]], Tensor):
        return _of_its_sign(live[0], x, call.args[1 - live[0]])
    if name == "where" and live[0] > 0 and len(call.args) == 3:
        return live[0], (call.args[0] if live[0] == 1 else ~call.args[0]).expand_as(call.answer())
    return None


def _of_its_sign(place: int, x: Tensor, mask: Tensor) -> tuple[int, Tensor] | None:
    """What is kept by a mask of ones where it is above 0 is rectified; by any other mask it is not."""
    if mask.shape != x.shape or mask.requires_grad:
        return None
    on = x > 0
    kept = mask if mask.dtype == torch.bool else mask == 1
    if bool((kept ^ on).logical_and_(x != 0).any()) or bool((mask.to(x) != kept.to(x)).any()):
        return None
    return place, on


def _of_its_size(call: Call) -> tuple[int, Tensor] | None:
    """`x + |x|`, which is the rectifier twice."""
    if call.kwargs.get("alpha", 1) != 1:
        return None
    for place in (0, 1):
        x, node = call.args[place], call.args[1 - place].grad_fn
        if node is not None and node.name() == "AbsBackward0":
            (source,) = node.next_functions
            if source == tuple(get_gradient_edge(x))[:2]:
                return place, x > 0
    return None


@dataclass(frozen=True)
class Rectified(Rule):
    """`g` where the rectifier follows its input: the gradient, with one convention at the bounds."""

    def __call__(self, call: Call) -> Any:
        """The rectifier's value; None for what is none."""
        if type(self) is Rectified and call.name == "relu" and call.live() == [0]:
            return call.answer()  # torch's own gradient has this convention
        found = follows(call)
        if found is None:
            return None
        place, on = found
        with torch.no_grad():
            value = call.answer()
        x = call.args[place]
        if value.shape != x.shape:
            return None
        slope = 2.0 if call.name == "add" else 1.0
        return call.rerouted(value, [place], lambda g: (self.back(g, on) * slope,))

    def back(self, g: Tensor, on: Tensor) -> Tensor:
        """What goes on of a gradient."""
        return torch.where(on, g, 0.0)


@dataclass(frozen=True)
class Guided(Rectified):
    """`g` where both the rectifier follows and `g > 0` (Springenberg et al. 2014, arXiv:1412.6806, sec. 3.4)."""

    def back(self, g: Tensor, on: Tensor) -> Tensor:
        """Both masks."""
        return torch.where(on, g.relu(), 0.0)


@dataclass(frozen=True)
class Deconvolved(Rectified):
    """`g` where `g > 0`, whatever the rectifier did (Zeiler & Fergus 2013, arXiv:1311.2901, sec. 2.1)."""

    def back(self, g: Tensor, on: Tensor) -> Tensor:
        """The backward signal, rectified."""
        return g.relu()
