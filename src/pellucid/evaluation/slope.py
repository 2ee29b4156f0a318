"""Does the score change as its gradient says? One finite difference along the gradient, for two passes.

A quantised layer whose backward edge is missing, a branch that is cut off from the graph, boxes that a first stage
places: then the gradient is of another function than the score, and what is computed from it explains that one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.engine import Capture
from pellucid.errors import PellucidError
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target

HONEST = 0.25  # how far the ratio may be from 1: kinks of rectifiers move it a little
_CHANGE = 0.01  # of the score, that a step is meant to make
_SHORTEST, _LONGEST = 1e-5, 1e-3  # of a step, over the length of the input
_ROUNDING = 1e-5  # of the score: what single precision leaves undecided


def slope(model: VisionModel, x: Tensor, target: Target) -> float | None:
    """`(f(x + d) - f(x - d)) / (2 g d)`, `d` a short step along the gradient `g`: 1 where it is the score's gradient.

    None where the gradient is zero, is not to be had, or where rounding hides the change.

    Args:
        model: differentiable.
        x: one input `(1, C, *space)`.
        target: frozen.
    """
    try:
        with Capture(model.module, watch=target.layers, input_gradient=True) as capture:
            _, scores = capture.scored(x, lambda y, w: [target.score(y, w)])
            g = capture.gradients(scores)[0]["input"].double()
    except PellucidError:
        return None
    steep, score = float(g.norm()), abs(float(scores[0].detach()))
    if not math.isfinite(steep) or steep == 0:
        return None
    length = float(x.double().norm())
    size = min(max(_CHANGE * score / steep, _SHORTEST * length), _LONGEST * length)
    ends = torch.stack([x[0] + (size / steep) * g[0], x[0] - (size / steep) * g[0]]).to(x.dtype)
    with Capture(model.module, watch=target.layers) as capture, torch.no_grad():
        output = capture.forward(ends)
        up, down = target.select(torch.zeros(2, dtype=torch.long)).score(output, capture.watched).double().tolist()
    said = float((g[0] * (ends[0].double() - ends[1].double())).sum())
    if not math.isfinite(up - down) or max(abs(up - down), abs(said)) < _ROUNDING * max(score, 1e-30):
        return None
    return (up - down) / said if said else None
