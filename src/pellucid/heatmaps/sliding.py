"""Class activation maps of a network that slides over a volume: its windows' activations as one long grid.

The score's gradient to the fused answer is known after one pass without a graph. What of it falls to a window makes the
window's own score, linear in its answer, whose gradient at the layer is exactly that of the whole. Activations and
gradients of all windows, side by side along one axis, then go through the method's formula, so that what it averages (a
channel's weight) is averaged over the whole volume. The windows' parts of the map are fused as their answers are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.trace import leave_no_trace
from pellucid.heatmaps.activations import activation_and_gradients, choose_layer
from pellucid.heatmaps.base import Attribution
from pellucid.media import Geometry
from pellucid.models.layers import Layer
from pellucid.models.sliding import Place, SlidingWindow, inside, shared
from pellucid.models.targets import Target
from pellucid.models.window_memory import last
from pellucid.scoring.job import Job, prepare

Finish = Callable[[Any, Job, Target, Tensor, Tensor, Layer], Attribution]


def through_windows(
    methods: Sequence[Any], job: Job, finish: Finish, *, need_gradient: bool
) -> list[list[Attribution]]:
    """CAMs of one layer of the sliding network, of one job: a list a method of one attribution a target.

    `finish` makes an attribution of a method, a target, activation and gradient `(N, C, *grid)`.
    """
    net = job.module
    assert isinstance(net, SlidingWindow)
    results: list[list[Attribution]] = [[] for _ in methods]
    x, inner = net.padded(job.inputs)
    places = net.places(x.shape[2:])
    for target in job.targets:
        gradient = _of_answer(net, x, inner, target)
        shares = shared(net, gradient)
        strongest = max(places, key=lambda place: float(shares(place).abs().sum()))
        layer = choose_layer(methods[0].layer, _window(net, x, shares, strongest, target), need_gradient)
        A, G = [], []
        memory = last() if need_gradient else None
        whole = torch.zeros_like(x) if memory is not None and memory.slopes else None
        for place in places:
            one = _window(net, x, shares, place, target)
            if whole is None:
                activation, gradients = activation_and_gradients(one, layer, need_gradient)
            else:  # the backward pass goes on to the volume, for methods that follow
                activation, gradients, own = _through(one, layer)
                whole[inside(place)] += own
            A.append(layer.layout.to_map(activation).float())
            G.append(layer.layout.to_map(gradients[0]).float() if need_gradient else torch.zeros_like(A[-1]))
        if memory is not None and whole is not None:
            memory.keep_gradient(net, x, gradient, whole)
        long, slopes = torch.cat(A, 2), torch.cat(G, 2)
        count = len(job.inputs)
        cost = Cost(forwards=count * 2 * len(places), backwards=count * len(places) * need_gradient)
        for result, m in zip(results, methods, strict=True):
            found = finish(m, job, target, long, slopes, layer)
            found.values = _fused(net, found.values, places, x.shape[2:])[inside(inner)]
            found.cost, found.layer = cost, layer
            result.append(found)
    return results


def _through(one: Job, layer: Layer) -> tuple[Tensor, list[Tensor], Tensor]:
    """A window's activation, its score's gradient there, and that to the window itself, by one pass."""
    name, (target,) = layer.name, one.targets
    with Capture(one.module, [name], runs={name: layer.runs}, input_gradient=True) as capture:
        _, scores = capture.scored(one.inputs, lambda output, watched: [target.score(output, watched)])
        (gradients,) = capture.gradients(scores)
        return capture.activations[name].detach(), [gradients[name]], gradients["input"]


def _of_answer(net: SlidingWindow, x: Tensor, inner: Place, target: Target) -> Tensor:
    """The gradient of a target's score to the fused answer over the padded input, `(N, K, *space)`."""
    with leave_no_trace(net):
        fused = net.fused(x)
    with torch.enable_grad():
        fused = fused.detach().requires_grad_()
        score = target.score(fused[inside(inner)], {}).sum()
        (gradient,) = torch.autograd.grad(score, fused)
    return gradient


def _window(net: SlidingWindow, x: Tensor, shares: Callable[[Place], Tensor], place: Place, target: Target) -> Job:
    return prepare(net.module, x[inside(place)].clone(), [_Share(shares(place), target.kind)])


@dataclass(frozen=True)
class _Share(Target):
    """What a window adds to a score of the fused answer: its own answer, each number as the score's gradient weighs it.

    Attributes:
        share: that gradient, of the window's shape.
        asked: the kind of the target; the layer that is found for one window serves all of that kind.
    """

    share: Tensor = field(repr=False, compare=False)
    asked: Hashable

    @property
    def kind(self) -> Hashable:
        """Apart from the kinds of targets on the window's answer itself."""
        return ("share", self.asked)

    def __call__(self, output: Any) -> Tensor:
        scores: Tensor = (output * self.share.to(output)).flatten(1).sum(1)
        return scores


def _fused(net: SlidingWindow, values: Tensor, places: Sequence[Place], space: Sequence[int]) -> Tensor:
    """Maps `(N, windows * g, *rest)` of windows side by side, spread over their windows and fused `(N, *space)`."""
    weights, total = net.weights(values), net.total(space, values)
    whole = values.new_zeros(len(values), *space)
    spread = Geometry.identity(net.window)
    for place, part in zip(places, values.chunk(len(places), 1), strict=True):
        whole[inside(place)] += spread.to_input(part).to(values) * weights
    return whole / total
