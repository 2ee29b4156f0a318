"""`importance`: how much each part of a picture, or of a model, matters; for one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.trace import interruptible
from pellucid.errors import MethodError, PellucidError
from pellucid.importance import Estimator, Players, Regions, Share, get_estimator, get_players, measure
from pellucid.importance.drawn import Given
from pellucid.importance.frames import Frames, Segments
from pellucid.importance.result import INTERVAL
from pellucid.importance.temporal import order_sensitivity, sufficient
from pellucid.keep.artefact import Artefact
from pellucid.media import Volume
from pellucid.media.pictures import is_collection
from pellucid.models.feed import Prepared
from pellucid.models.fused import fused_remarks
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target, TargetLike
from pellucid.results.importance import FORMAT, Importance
from pellucid.results.importance import read_importance as opened
from pellucid.scoring.job import prepare
from pellucid.verbs.importance_request import ImportanceRequest
from pellucid.verbs.inputs import Input, ModelLike, as_model, prepared
from pellucid.verbs.players import check_model, looks, measured_layer
from pellucid.verbs.records import record, recorded_target, reloaded
from pellucid.verbs.redaction import Redaction, redaction
from pellucid.verbs.request import REQUESTS, Again, Maker, Say, unheld
from pellucid.verbs.sets import importance_of_set


@interruptible
def importance(
    model: ModelLike,
    inputs: Input | Sequence[Input],
    features: str | Players = "superpixels",
    by: str | Estimator = "shapley",
    target: TargetLike = None,
    *,
    layer: str | None = None,
    removal: str | None = None,
    baseline: str | Tensor | None = None,
    count: int | None = None,
    segments: str | None = None,
    regions: Given | None = None,
    samples: int | str = "auto",
    seed: int = 0,
    group: str = "auto",
    compare: str | None = None,
    keep: str | Path | None = None,
    order: bool = False,
    say: Say | None = None,
    redact: str | None = None,
) -> Importance:
    """What matters most?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        inputs: one picture (path, `sample:NAME`, PIL, array, tensor `(C, H, W)`), or many: a folder (its subfolders
            are groups), a glob, a list, a batch `(N, C, H, W)`. Of many the answer is the mean over pictures. For a
            model of clips: what `explain` takes; a folder of numbered frames and a tensor `(C, T, H, W)` are one clip.
        features: the players: `superpixels`, `patches`, `regions`, `channels`, `tokens`, `layers`, `colours`,
            `frequencies`, `properties`, of clips `frames`, `segments`, `tubes`; or a `Players` object.
        by: the estimator: `ablation`, `shapley`, `kernel`, `owen`, `lime`, `tree`, `gradient`, `conductance`,
            `permutation`; or an `Estimator` object.
        target: class number, label, `a>b`, `Target`, function of the output; None: each picture's top class.
        layer: module path, for channels and tokens; several with commas, for layers.
        removal: what stands in for channels, tokens and layers that are out: `zero`, `mean`, `resample`; `bypass` for
            layers.
        baseline: what shows where a region is out: `zero`, `mean`, `blur`, `uniform`, or a tensor.
        count: about how many superpixels, patches or frequency bands.
        segments: how superpixels are cut: `slic`, `felzenszwalb`, `grid`.
        regions: drawn in the ORIGINAL picture's pixels: a label image (file or integers `(H, W)`), or boxes
            `{name: (left, top, right, bottom)}` (mapping or .json file).
        samples: what a sampling estimator may spend; `auto`: until its error is small; `exact`: for `shapley`.
        seed: of whatever is random.
        group: of many pictures: `predicted` (by the model's answer), `folder`, or `auto`: by folder if there are
            several.
        compare: of many pictures: `a>b`, two groups, of which the first less the second is told too; None: the two that
            there are, if there are just two.
        keep: folder for the work done on each of many pictures, so that a run can be continued; None keeps nothing.
        order: of a clip, also note whether the model needs the order of its frames, and how few of them are enough.
        say: is told what the work will cost, before it begins.
        redact: boxes to make unrecognisable in all that is shown and written: annotations, or `x0,y0,x1,y1;...`.

    Returns:
        An `Importance`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    asked = ImportanceRequest.of(
        features,
        by,
        target,
        samples=samples,
        seed=seed,
        regions=regions,
        gathered={"group": group, "compare": compare, "order": order},
        layer=layer,
        removal=removal,
        baseline=baseline,
        count=count,
        segments=segments,
    )
    hide = None if redact is None else redaction(redact)
    return importance_of_given(as_model(model), inputs, asked, keep=keep, say=say, hide=hide)


def importance_of_given(
    model: VisionModel,
    inputs: Input | Sequence[Input],
    asked: ImportanceRequest,
    *,
    keep: str | Path | None = None,
    say: Say | None = None,
    failed: list[PellucidError] | None = None,
    hide: Redaction | None = None,
) -> Importance:
    """`importance` as it was requested; `failed` gets what is wrong with some of many pictures."""
    check_model(model, asked.players, asked.estimator)
    several = is_collection(inputs, model.medium)
    if asked.order and (several or not model.medium.moving):
        raise MethodError(
            "The order of frames is asked of one clip and a model of clips: name one, or leave order out."
        )
    if several:
        return importance_of_set(model, inputs, asked, keep=keep, say=say, failed=failed, hide=hide)
    _, item = next(iter(prepared(model, inputs)))
    if isinstance(item, PellucidError):
        raise item
    if hide is None:
        return importance_of_one(model, item, asked, say)
    hide.of_input(item)  # what cannot be hidden is said before it is measured
    return hide(importance_of_one(model, item, asked, say))


def importance_of_one(
    model: VisionModel, item: Prepared, asked: ImportanceRequest, say: Say | None = None
) -> Importance:
    """The importance of players for one prepared picture."""
    weights = model.fingerprint()
    x = item.x[None].to(model.device, model.dtype)
    output = model.outputs(x)
    model = model.settled(x, output)
    named = model.bound(asked.target.placed([item.geometry]), x)
    target = model.frozen(named, x, output)
    fitted = asked.players.fitted(item.x, item.geometry)
    found = measure(fitted, asked.estimator, prepare(model, x, [target]), say=say)
    share = Share(item.source["name"], found.values[:, 0], found.low[:, 0], found.high[:, 0])
    layer = measured_layer(model, x, asked.players, target)
    spent = found.cost
    notes = (
        item.notes
        + found.notes[0]
        + list(spent.ran.notes)
        + model.reading.notes
        + fused_remarks(model.module, x, output, model.reading)[0]
        + (_order(model, x, target, asked.players) if asked.order else [])
        + ([] if item.geometry.known else ["The regions lie on the model's own input."])
    )
    passes = {"forwards": spent.forwards, "backwards": spent.backwards, "runtime": spent.ran.as_dict()}
    run = {"seed": asked.seed, "layer": layer, "interval": INTERVAL, **passes}
    return Importance(
        features=asked.players.kind,
        by=asked.estimator.name,
        target=target.name(model.labels),
        names=found.names,
        shares=[share],
        prediction=[p.placed(item.geometry) for p in model.ranked(output)[0]],
        record=record(model, weights, item.source, "importance", asked.settings(), named, run),
        geometry=item.geometry,
        layer=layer,
        full=float(found.full[0]),
        empty=float(found.empty[0]),
        pictures=looks(model, found.pictures),
        interactions=found.interactions[0],
        notes=notes,
        tree=found.tree,
        picture=None if isinstance(item.picture, Volume) else item.picture,
    )


def _order(model: VisionModel, x: Tensor, target: Target, players: Players) -> list[str]:
    """Whether the model needs the order of a clip's frames, and how few of them are enough, in words."""
    job = prepare(model, x, [target])
    stretches = players if isinstance(players, Frames) else Segments()
    enough = sufficient(job, stretches)
    kept = ", ".join(enough.names) or "no frame at all"
    said = f"Enough to keep the answer with half of its lead: {kept}."
    if not enough.exact:
        said = f"Enough to keep the answer with half of its lead: {kept} (found greedily: fewer might do)."
    return [order_sensitivity(job)[0].sentence, said]


def recompute(artefact: Artefact, model: ModelLike | None, inputs: Any, target: TargetLike = None) -> Again:
    """A stored importance computed again from its record (see `verify`)."""
    stored = opened(artefact)
    about, reasons = stored.record, list[str]()
    wanted = recorded_target(about, target)
    asked = about.method["parameters"]
    loaded = reloaded(about, model, inputs, reasons)
    given = inputs
    if given is None:
        given = about.input["pictures"] if stored.of_a_set else about.input["source"]
    again = importance_of_given(
        loaded,
        given,
        ImportanceRequest(
            players=_recorded_players(stored),
            estimator=get_estimator(asked["by"], samples=asked["samples"], seed=asked["seed"]),
            target=wanted,
            seed=about.run["seed"],
            group=about.input.get("group", "auto"),
            compare=about.input.get("compare"),
        ),
    )
    if again.record.input["sha256"] != about.input["sha256"]:
        reasons.append(f"the picture{'s are not those' if stored.of_a_set else ' is not the one'} of the record")
    rows = [*again.shares, *([again.difference] if again.difference is not None else [])]
    # An older record's intervals were made otherwise: they stand as they are, and its values are compared.
    told = ("values", "low", "high") if "interval" in about.run else ("values",)
    return Again({name: torch.stack([getattr(s, name) for s in rows]) for name in told}, reasons)


def _recorded_players(stored: Importance) -> Players:
    asked = stored.record.method["parameters"]
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in asked["players"].items()}
    if str(given.get("labels") or "").startswith("sha256:") and "labels" in stored.pictures:  # kept with the answer
        return Regions(
            labels=stored.pictures["labels"].long(),
            names=tuple(stored.names),
            baseline=given["baseline"],
            seed=given["seed"],
            comparable=bool(given["comparable"]),
        )
    for name, setting in given.items():
        if isinstance(setting, str) and setting.startswith("sha256:"):
            raise unheld(name, "a tensor", "it cannot be recomputed.")
    if "boxes" in given:
        given["boxes"] = tuple((name, tuple(box)) for name, box in given["boxes"])
    return get_players(asked["features"], **given)


REQUESTS[FORMAT] = Maker(ImportanceRequest, importance_of_given, opened, recompute, targeted=True)
