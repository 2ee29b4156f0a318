"""What class activation maps share: the layer they explain, its activation and gradients, and what is said of a map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import Capture
from pellucid.errors import DeadLayerError, MethodError
from pellucid.models.layers import Layer, best_layer, describe, finer_layers
from pellucid.models.probe import Score
from pellucid.models.targets import Target
from pellucid.scoring.job import Job


def space_dims(t: Tensor) -> tuple[int, ...]:
    """The space axes of `(N, C, *space)`."""
    return tuple(range(2, t.ndim))


def weight_dims(t: Tensor, per_frame: bool) -> tuple[int, ...]:
    """The axes that a channel's weight is taken over: all of space, or only that of each frame of `(N, C, T, H, W)`.

    Raises:
        MethodError: weights a frame, and no clip.
    """
    if per_frame and t.ndim != 5:
        raise MethodError(
            f"Weights for each frame need a clip, an activation (N, C, T, h, w); this one is {tuple(t.shape)}: leave "
            "per_frame out."
        )
    return space_dims(t)[1:] if per_frame else space_dims(t)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`, 0 where the denominator is 0."""
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))


def choose_layer(name: str | None, job: Job, gradient: bool = True) -> Layer:
    """The layer named, or the best one found; with `gradient` it is known whether it is the model's own output."""
    kinds, score = _asked(job)
    if name is not None:
        return describe(job.module, job.inputs, name, score if gradient else None, watch=job.watch, key=kinds)
    return best_layer(job.module, job.inputs, score, watch=job.watch, key=kinds)


def layers_of(job: Job) -> tuple[Layer, ...]:
    """The layer that is chosen where none is named, and those with finer grids before it."""
    kinds, score = _asked(job)
    finer = finer_layers(job.module, job.inputs, score, watch=job.watch, key=kinds)
    return choose_layer(None, job), *finer


def _asked(job: Job) -> tuple[frozenset[Hashable], Score]:
    """The kinds of a job's targets, and the sum of what is typical of each."""

    def score(output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([t.typical.score(output, watched).sum() for t in job.targets]).sum()

    return frozenset(t.kind for t in job.targets), score


def activation_and_gradients(job: Job, layer: Layer, need_gradient: bool) -> tuple[Tensor, list[Tensor]]:
    """The layer's activation, and for each target the gradient of its score there (none if not needed)."""
    name, runs = layer.name, {layer.name: layer.runs}
    if not need_gradient:
        with Capture(job.module, [name], stop_early=True, runs=runs) as capture:
            capture.forward(job.inputs)
            return capture.activations[name], []

    def asked(output: Any, watched: Mapping[str, Tensor]) -> list[Tensor]:
        return [t.score(output, watched) for t in job.targets]

    if job.ahead and (taken := job.ahead.taken(job.inputs, name, layer.runs)):
        capture, output = taken
        scores = capture.scores(output, len(job.inputs), asked)
        if all(s.requires_grad for s in scores):
            return capture.activations[name].detach(), [g[name] for g in capture.gradients(scores)]
    with Capture(job.module, [name], watch=job.watch, runs=runs) as capture:
        output, scores = capture.scored(job.inputs, asked)
        if job.ahead and capture.tail_only and not job.watch:
            job.ahead.prove(job.module, job.inputs, output, name, layer.runs)
        gradients = [g[name] for g in capture.gradients(scores)]
        return capture.activations[name].detach(), gradients


def refuse_dead_layer(job: Job, target: Target, layer: Layer) -> None:
    """A layer whose cells never reach the target explains nothing, whatever the picture: say which one would."""
    better = best_layer(job.module, job.inputs, target.score, watch=target.layers, key=target.way)
    if better.name != layer.name:
        tokens = "its patch tokens carry" if layer.layout.kind == "tokens" else "its cells carry"
        raise DeadLayerError(
            f"Layer {layer.name!r} cannot explain this target, because {tokens} no gradient to it (it stands beside "
            f"the way to the score, or behind the last mixing of places): use {better.name!r}, or name no layer.",
            target,
            better.name,
        )


def map_notes(values: Tensor, signed: bool, name: str, dead: Layer | None = None) -> list[str]:
    """What to say of a map of zeros; `dead` is a layer at which the gradient itself is zero."""
    if values.any():
        return []
    if dead is not None:
        return [
            f"{name} is zero everywhere, because no gradient reaches layer {dead.name!r}: on this input it is not on "
            "the way to the score, which says nothing about the target. Name another layer."
        ]
    if signed:
        return [f"{name} is zero everywhere: at this layer no cell that is active counts for this target."]
    return [f"{name} found nothing in favour of the target at this layer (the map is zero); try hires-cam, signed."]
