"""`stages`: one method's maps at every stage of a network, from one pass, and what flows through each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch

from pellucid import storage
from pellucid.engine.trace import interruptible
from pellucid.errors import MethodError
from pellucid.features.activations import stages as stages_of
from pellucid.heatmaps import Method
from pellucid.heatmaps.base import Attribution
from pellucid.heatmaps.lrp import RelevanceMethod
from pellucid.heatmaps.stages import StageReading, stage_pass
from pellucid.media.geometry import Geometry
from pellucid.models.layers import describe
from pellucid.models.model import VisionModel
from pellucid.models.opens import require_layers_open
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.results.stages import FORMAT, StageMap, Stages, arrays, read_stages
from pellucid.scoring.job import prepare
from pellucid.verbs.choices import as_methods, named_method
from pellucid.verbs.inputs import Input, ModelLike, as_model, one
from pellucid.verbs.records import parameters, record, recorded_target, reloaded
from pellucid.verbs.request import REQUESTS, Again, Maker, Request


@dataclass(frozen=True, kw_only=True)
class StagesRequest(Request):
    """What `stages` is asked; its settings are those of the verb."""

    verb: ClassVar[str] = "stages"

    method: Method
    target: Target | None = None
    layer: tuple[str, ...] | str | None = None


@interruptible
def stages(
    model: ModelLike,
    inputs: Input,
    method: str | Method = "lrp",
    target: TargetLike = None,
    *,
    layer: str | Sequence[str] | None = None,
) -> Stages:
    """What does a method say at every stage of the network, and how much of the score flows through each?

    All maps come out of one forward and one backward pass.

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        inputs: one picture, clip or volume, or a tensor `(C, *space)` as the model takes it.
        method: `lrp` and its kin, a gradient at the input, or a class activation map.
        target: what is explained; None: the top class.
        layer: one or several; None: the last block on each size of grid.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    chosen = _single(as_methods(method))
    item = one(loaded, inputs)
    x = item.x[None].to(loaded.device, loaded.dtype)
    require_layers_open(loaded.module, "there are no stages")
    chosen.check_model(loaded.module)
    output = loaded.outputs(x)
    names = [layer] if isinstance(layer, str) else layer
    which = stages_of(loaded.module, x) if names is None else [describe(loaded.module, x, name) for name in names]
    wanted = as_target(target)
    loaded = loaded.settled(x, output)
    bound = loaded.frozen(loaded.bound(wanted, x), x, output)
    found = stage_pass(chosen, prepare(loaded, x, [bound]), which)
    about = record(
        loaded,
        loaded.fingerprint(),
        item.source,
        "stages",
        {"method": chosen.name, "settings": chosen.parameters(), "layers": [each.name for each in which]},
        wanted,
        {"seed": 0, "forwards": found.cost.forwards, "backwards": found.cost.backwards},
    )
    return Stages(
        [_placed(stage, item.geometry) for stage in found.stages],
        chosen.name,
        bound.name(loaded.labels) if chosen.uses_target else "any target",
        found.score,
        chosen.signed,
        isinstance(chosen, RelevanceMethod),
        loaded.ranked(output)[0],
        item.geometry,
        about,
        [*item.notes, *found.notes],
        item.picture,
    )


def each_stages(
    model: VisionModel, given: Input, methods: Sequence[Method], targets: Sequence[Target], layer: str | None
) -> Iterator[Stages]:
    """Of one input, the stages of each method for each target; `layer` names which are shown, with commas."""
    names = layer.split(",") if layer else None
    for method, target in product(methods, targets):
        yield stages(model, given, method, target, layer=names)


def _single(methods: Sequence[Method]) -> Method:
    if len(methods) > 1:
        raise MethodError(f"Stages are of one method at a time, not of {', '.join(m.name for m in methods)}: name one.")
    return methods[0]


def _placed(stage: StageReading, geometry: Geometry) -> StageMap:
    values, layer = stage.values[0].detach().cpu(), stage.layer
    if layer is None:
        return StageMap("input", "", values, stage.flow, stage.absorbed, geometry)
    at = Attribution(stage.values, layer).over(geometry)
    return StageMap(layer.name, str(layer.layout), values, stage.flow, stage.absorbed, at)


def requested(model: VisionModel, inputs: Input, asked: StagesRequest) -> Stages:
    """`stages` as it was requested."""
    return stages(model, inputs, asked.method, asked.target, layer=asked.layer)


def opened(artefact: storage.Artefact) -> Stages:
    """The stored result as it was."""
    return read_stages(artefact)


def recompute(
    artefact: storage.Artefact, model: ModelLike | None, inputs: Input | None, target: TargetLike = None
) -> Again:
    """Stored maps computed again from their record (see `verify`)."""
    reasons: list[str] = []
    about = storage.record_from(artefact.meta)
    settings = parameters(about)
    asked = StagesRequest(
        method=named_method(settings["method"], **settings["settings"]),
        target=recorded_target(about, target),
        layer=tuple(settings["layers"]),
    )
    loaded = reloaded(about, model, inputs, reasons)
    again = requested(loaded, about.input["source"] if inputs is None else inputs, asked)
    if again.record.input["sha256"] != about.input["sha256"]:
        reasons.append("the picture is not the one of the record")
    return Again({name: torch.from_numpy(a) for name, a in arrays(again).items()}, reasons)


REQUESTS[FORMAT] = Maker(StagesRequest, requested, opened, recompute, targeted=True)
