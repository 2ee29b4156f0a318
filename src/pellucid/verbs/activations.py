"""`activations`: what the middle layers of a model make of one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pellucid import storage
from pellucid.engine.trace import interruptible
from pellucid.features import Canvas
from pellucid.features.activations import Ranking, activation_maps, stages
from pellucid.models.layers import describe
from pellucid.models.model import VisionModel
from pellucid.models.opens import require_layers_open
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.results.activations import FORMAT, Activations, arrays, read_activations
from pellucid.verbs.inputs import Input, ModelLike, as_model, one
from pellucid.verbs.records import parameters, record, recorded_target, reloaded
from pellucid.verbs.request import REQUESTS, Again, Maker, Request


@dataclass(frozen=True, kw_only=True)
class ActivationsRequest(Request):
    """What `activations` is asked; its settings are those of the verb."""

    verb: ClassVar[str] = "activations"

    layer: tuple[str, ...] | str | None = None
    by: Ranking = "activation"
    target: Target | None = None


@interruptible
def activations(
    model: ModelLike,
    inputs: Input,
    *,
    layer: str | Sequence[str] | None = None,
    by: Ranking = "activation",
    target: TargetLike = None,
) -> Activations:
    """What do the layers of this model make of this input?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        inputs: one picture (path, `sample:NAME`, PIL, array), or a tensor `(C, *space)` as the model takes it.
        layer: one or several; None: the last block on each size of grid.
        by: rank channels by `activation`, or by `relevance` to the target.
        target: what relevance is to; None: the top class.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    item = one(loaded, inputs)
    x = item.x[None].to(loaded.device, loaded.dtype)
    require_layers_open(loaded.module, "there are no activations")
    output = loaded.outputs(x)
    names = [layer] if isinstance(layer, str) else layer
    found = stages(loaded.module, x) if names is None else [describe(loaded.module, x, name) for name in names]
    wanted = as_target(target)
    loaded = loaded.settled(x, output)
    bound = loaded.frozen(loaded.bound(wanted, x), x, output) if by == "relevance" else None
    maps = activation_maps(loaded, x, found, by=by, target=bound)
    about = record(
        loaded,
        loaded.fingerprint(),
        item.source,
        "activations",
        {"layers": [each.name for each in found], "by": by},
        wanted if by == "relevance" else None,
        {"seed": 0},
    )
    called = bound.name(loaded.labels) if bound is not None else ""
    seen = Canvas.of(loaded, tuple(item.x.shape)).to_display(x)[0].clamp(0, 1).float().cpu()
    return Activations(maps, called, loaded.ranked(output)[0], item.geometry, about, item.still, seen)


def requested(model: VisionModel, inputs: Input, asked: ActivationsRequest) -> Activations:
    """`activations` as it was requested."""
    return activations(model, inputs, layer=asked.layer, by=asked.by, target=asked.target)


def opened(artefact: storage.Artefact) -> Activations:
    """The stored result as it was."""
    return read_activations(artefact)


def recompute(
    artefact: storage.Artefact, model: ModelLike | None, inputs: Input | None, target: TargetLike = None
) -> Again:
    """Stored activations computed again from their record (see `verify`)."""
    reasons: list[str] = []
    about = storage.record_from(artefact.meta)
    settings = parameters(about)
    wanted = recorded_target(about, target) if settings["by"] == "relevance" else None
    asked = ActivationsRequest(layer=tuple(settings["layers"]), by=settings["by"], target=wanted)
    loaded = reloaded(about, model, inputs, reasons)
    again = requested(loaded, about.input["source"] if inputs is None else inputs, asked)
    if again.record.input["sha256"] != about.input["sha256"]:
        reasons.append("the picture is not the one of the record")
    return Again({name: torch.from_numpy(a) for name, a in arrays(again).items()}, reasons)


REQUESTS[FORMAT] = Maker(ActivationsRequest, requested, opened, recompute, targeted=True)
