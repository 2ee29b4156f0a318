"""`explain`: where a model looked, by any method, for any target."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid import storage
from pellucid.engine import default_batch, unwrap
from pellucid.engine.ahead import Ahead, cut_ahead
from pellucid.engine.memory import Memory
from pellucid.engine.trace import interruptible
from pellucid.errors import AbsentError, MediaError, PellucidError, StorageError, TargetError
from pellucid.explanation import Prediction, Record
from pellucid.heatmaps import Attribution, Method, explain_all, get_method
from pellucid.heatmaps.gradient import GradientMethod
from pellucid.media import Plan, address
from pellucid.media.geometry import Geometry
from pellucid.models.adapters import ClipInput
from pellucid.models.feed import Prepared
from pellucid.models.fused import fused_remarks
from pellucid.models.layers import pathway_layers
from pellucid.models.model import VisionModel
from pellucid.models.targets import PerSample, Target, TargetLike
from pellucid.models.window_memory import recalling
from pellucid.results import Heatmap, Heatmaps, Session
from pellucid.results.heatmap import kind_of
from pellucid.scoring.job import prepare
from pellucid.verbs.auto import settled, with_candidates
from pellucid.verbs.choices import as_methods, as_targets
from pellucid.verbs.inputs import Input, ModelLike, as_model, prepared, unsampled
from pellucid.verbs.records import parameters, record, recorded_target, reloaded, source_of
from pellucid.verbs.request import REQUESTS, Again, Maker, Request
from pellucid.verbs.windows import explain_windows


@dataclass(frozen=True, kw_only=True)
class ExplainRequest(Request):
    """What `explain` is asked of one input: one method, one target.

    Attributes:
        method: with its settings.
        target: of which score.
        seed: of whatever is random beside the method.
        frames: which frames of a clip, other than the model's own sampling (see `Plan`).
        check: whether the quality is measured too.
    """

    verb: ClassVar[str] = "explain"

    method: Method
    target: Target
    seed: int = 0
    frames: str | None = None
    check: bool = False

    @classmethod
    def of(cls, about: Record, target: Target) -> ExplainRequest:
        """The inverse, out of a record.

        Raises:
            StorageError: a setting of the method was a tensor.
        """
        method = get_method(about.method["name"], **parameters(about))
        return cls(method=method, target=target, seed=about.run["seed"], frames=about.input.get("plan"))


def explained(model: VisionModel, inputs: Input, asked: ExplainRequest) -> Any:
    """`explain` as it was requested."""
    return _held(sampled(model, asked.frames), inputs, [asked.method], [asked.target], asked.seed, asked.check)


@interruptible
def explain(
    model: ModelLike,
    inputs: Input | Sequence[Input],
    method: str | Method | Sequence[str | Method] = "grad-cam",
    target: TargetLike | Sequence[TargetLike] = None,
    *,
    layer: str | None = None,
    seed: int | None = None,
    check: bool = False,
    frames: Plan | str | int | None = None,
) -> Any:
    """Why did this model say that about this picture?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        inputs: a picture (path, `sample:NAME`, PIL, array), a folder or glob of pictures, a tensor `(C, H, W)` or
            `(N, C, H, W)` as the model takes it, or a list of these. For a model of clips: a video, an animation, a
            folder of numbered frames, an array `(T, H, W, 3)`, a tensor `(C, T, H, W)` or `(N, C, T, H, W)`.
        method: one or several, by name or as objects; `auto` is the best measured of those that cost one pass
            together (see `Auto`).
        target: one or several: class numbers, labels, `a>b`, `Target` objects, functions of the output; None explains
            each picture's top class.
        layer: module path for the methods that explain a layer; None finds one.
        seed: for whatever is random; None: 0, and a method that is given as an object keeps its own.
        check: measure the quality at once (see `Heatmap.check`).
        frames: which frames of a clip the model is shown, other than its own sampling (see `Plan`).

    Returns:
        A `Heatmap` (a `VideoHeatmap` for a clip) for one input, one method and one target, else `Heatmaps`.

    Raises:
        PellucidError: one sentence with the cure; the first picture that can't be read ends the work.
    """
    loaded = sampled(as_model(model), frames)
    methods, targets = as_methods(method, layer=layer, seed=seed), as_targets(target)
    return _held(loaded, inputs, methods, targets, seed or 0, check)


def _held(
    model: VisionModel,
    inputs: Input | Sequence[Input],
    methods: Sequence[Method],
    targets: Sequence[Target],
    seed: int,
    check: bool,
) -> Any:
    """All explanations, raising the first error; one alone comes as such."""
    found = Heatmaps()
    for _, result in explain_each(model, inputs, methods, targets, seed=seed):
        if isinstance(result, PellucidError):
            raise result
        found += result
    if check:
        found.check()
    single = len(found) == 1 and not (isinstance(inputs, Sequence) and not isinstance(inputs, str))
    return found[0] if single else found


def sampled(model: VisionModel, frames: Plan | str | int | None) -> VisionModel:
    """The model with another sampling plan of its clips.

    Raises:
        ModelError: it takes pictures.
    """
    return model if frames is None else replace(model, preprocess=model.clips.planned(Plan.parse(frames)))


def explain_each(
    model: VisionModel,
    inputs: Input | Sequence[Input],
    methods: Sequence[Method],
    targets: Sequence[Target],
    *,
    seed: int = 0,
    batch: int | None = None,
    memory: Memory | None = None,
) -> Iterator[tuple[str, Heatmaps | PellucidError]]:
    """Explain inputs one after the other, in batches, as they come: `(name, explanations or what went wrong)`.

    A picture that can't be read does not stop the others; a model, method or target that does not work is raised.
    `memory`, of one input, one method and one target, holds scores that are known already.
    """
    if model.medium.moving and model.clips.plan.kind == "windows":
        for name, footage in unsampled(inputs):
            if isinstance(footage, MediaError):
                yield name, footage
            else:
                yield name, explain_windows(model, footage, address(footage.source), methods, targets, seed)
        return
    waiting: list[Prepared] = []
    size = batch or max(1, default_batch(model.device) // 2)
    given = 0
    for name, item in prepared(model, inputs):
        given += 1
        if isinstance(item, PellucidError):
            yield name, item
            continue
        if waiting and (len(waiting) == size or waiting[0].x.shape != item.x.shape):
            yield from _explained(model, waiting, methods, targets, seed, memory)
            waiting = []
        waiting.append(replace(item, position=given - 1))
    if waiting:
        yield from _explained(model, waiting, methods, targets, seed, memory)
    for t in targets:
        if isinstance(t, PerSample) and len(t.indices) > given > 0:
            raise TargetError(_ILL_PAIRED.format(len(t.indices), given))


_ILL_PAIRED = "{} targets for {} inputs: give one target for all, or one for each."


def for_batch(target: Target, items: list[Prepared]) -> Target:
    """Of a class for each input, those of one batch; other targets as they are."""
    if not isinstance(target, PerSample):
        return target
    last = items[-1].position
    if last >= len(target.indices):
        raise TargetError(_ILL_PAIRED.format(len(target.indices), f"at least {last + 1}"))
    return target.select(torch.tensor([item.position for item in items]))


def _explained(model: VisionModel, items: list[Prepared], *how: Any) -> Iterator[tuple[str, Heatmaps | PellucidError]]:
    """A batch; where what is asked for is not in one of its pictures, that one says so, and the others go on."""
    try:
        yield from explain_batch(model, items, *how)
    except AbsentError as absent:
        if len(items) == 1:
            yield items[0].source["name"], absent
            return
        for item in items:
            yield from _explained(model, [item], *how)


def explain_batch(
    model: VisionModel,
    items: list[Prepared],
    methods: Sequence[Method],
    targets: Sequence[Target],
    seed: int,
    memory: Memory | None = None,
    weights: str | None = None,
) -> Iterator[tuple[str, Heatmaps]]:
    """Explain inputs of one size together: `(name, explanations)` of each, those of one target after the other.

    `weights` is the model's fingerprint, where it is known not to have changed.
    """
    weights = weights or model.fingerprint()
    x = torch.stack([item.x for item in items]).to(model.device, model.dtype)
    key = _cut_key(methods, targets)
    with recalling(_wants_slopes(methods)), cut_ahead(unwrap(model.module), x, key) as begun:
        ahead = begun or Ahead(x, key, model.outputs(x))
        doubts = model.doubts(model.sound(ahead.output), len(x))
        as_one = all(doubts) or not any(doubts)
        found = _found(model, items, x, methods, targets, memory, ahead) if as_one else None
    if found is None:  # each picture's scores are read as they would be without the others
        yield from _each_as_read(model, items, doubts, methods, targets, seed, memory, weights)
        return
    for i, item in enumerate(found.items):
        one = _One(found, i, Session(found.model, x[i : i + 1], seed, weights))
        yield item.source["name"], Heatmaps(settled(one.maps(), found.stands, found.asked, one.further))


def _wants_slopes(methods: Sequence[Method]) -> bool:
    """Whether a method that passes backward through the network is followed by one of the gradient at the input."""
    after = [k for k, m in enumerate(methods) if isinstance(m, GradientMethod)]
    return bool(after) and any(m.cut_key() is not None for m in methods[: after[-1]])


def _cut_key(methods: Sequence[Method], targets: Sequence[Target]) -> Hashable:
    """Of methods whose whole work is one pass cut at a layer, which may answer too; else None."""
    keys = {m.cut_key() for m in methods}
    return None if len(keys) > 1 or any(t.layers for t in targets) else next(iter(keys), None)


@dataclass(frozen=True)
class _Found:
    """A batch explained: what was asked, as it was bound, and what was found."""

    model: VisionModel
    items: list[Prepared]
    asked: list[Method]
    methods: list[Method]  # that were run, several for one `auto`
    named: list[Target]
    bound: list[Target]
    said: list[list[list[str]]]  # of each target, for each input
    predictions: list[list[Prediction]]
    maps: list[list[Attribution]]  # [method][target]
    stands: list[int]  # of each method, the place of the `auto` that it is a candidate of; -1: of none


@dataclass(frozen=True)
class _One:
    """One input of a batch that was explained: its maps, and what is asked of it afterwards."""

    found: _Found
    place: int
    session: Session

    def maps(self) -> list[Heatmap]:
        """Those of one target after the other."""
        count = len(self.found.bound)
        return [
            self._map(m, b, found[b], self.place)
            for b in range(count)
            for m, found in zip(self.found.methods, self.found.maps, strict=True)
        ]

    def further(self, method: Method, number: int) -> Heatmap:
        """One more map, of the target of this number."""
        target = self.found.bound[number].select(torch.tensor([self.place]))
        ((attribution,),) = explain_all([method], self.found.model, self.session.x, [target])
        return self._map(method, number, attribution, 0)

    def _map(self, method: Method, number: int, attribution: Attribution, row: int) -> Heatmap:
        found, own = self.found, torch.tensor([self.place])
        item, said = found.items[self.place], found.said[number]
        return _heatmap(
            replace(item, remarks=[*item.remarks, *said[self.place]]) if said else item,
            self.session,
            method,
            found.named[number].select(own),
            found.bound[number].select(own),
            attribution,
            row,
            found.predictions[self.place],
        )


def _found(
    model: VisionModel,
    items: list[Prepared],
    x: Tensor,
    methods: Sequence[Method],
    targets: Sequence[Target],
    memory: Memory | None,
    ahead: Ahead,
) -> _Found:
    output = ahead.output
    model = model.settled(x, output)
    predictions = model.ranked(output, count=len(x))
    items = [
        replace(item, notes=[*item.notes, *model.reading.notes], remarks=[*item.remarks, *told])
        for item, told in zip(items, fused_remarks(model.module, x, output, model.reading), strict=True)
    ]
    geometries = [item.geometry for item in items]
    predictions = [[p.placed(g) for p in row] for row, g in zip(predictions, geometries, strict=True)]
    named = [model.bound(for_batch(t, items).placed(geometries), x) for t in targets]
    bound = [model.frozen(t, x, output) for t in named]
    said = [t.remarks(output, model.labels) for t in bound]
    asked = _by_pathway(methods, model, x)
    ready, stands, maps = with_candidates(
        asked,
        lambda chosen: explain_all(chosen, model, x, bound, memory, ahead),
        lambda: prepare(model, x, bound),
    )
    return _Found(model, items, asked, ready, named, bound, said, predictions, maps, stands)


def _each_as_read(
    model: VisionModel, items: list[Prepared], doubts: list[bool], *how: Any
) -> Iterator[tuple[str, Heatmaps]]:
    """Pictures in doubt and the others, batch by batch, and as they were given."""
    found: dict[int, tuple[str, Heatmaps]] = {}
    for doubt in (False, True):
        rows = [i for i, each in enumerate(doubts) if each == doubt]
        found |= zip(rows, explain_batch(model, [items[i] for i in rows], *how), strict=True)
    yield from (found[i] for i in range(len(items)))


def _by_pathway(methods: Sequence[Method], model: VisionModel, x: Tensor) -> list[Method]:
    """Methods that choose a layer by themselves, once for each pathway of a model that has several."""
    if not isinstance(model.module, ClipInput) or not model.module.pathways:
        return list(methods)
    expanded: list[Method] = []
    for m in methods:
        if getattr(m, "layer", "") is not None:
            expanded.append(m)
            continue
        found = pathway_layers(model.module, x, model.module.counts(x.shape[2]))
        expanded += [replace(m, layer=layer.name) for layer in found]  # type: ignore[type-var]
    return expanded


_NO_WAY_BACK = (
    "The transform's way back to the original could not be measured (it flips, warps, or is random), so the map lies "
    "on the model's own input."
)


def _heatmap(
    item: Prepared,
    session: Session,
    method: Method,
    asked: Target,
    target: Target,
    found: Attribution,
    row: int,
    prediction: list[Prediction],
) -> Heatmap:
    model = session.model
    provenance = record(
        model,
        session.weights,
        item.source,
        method.name,
        method.parameters(),
        asked,
        {
            "seed": session.seed,
            "layer": found.layer.name if found.layer else None,
            **found.cost.of_each(len(found.values)),
            "runtime": found.cost.ran.as_dict(),
        },
    )
    return kind_of(model.medium)(
        attribution=found.values[row : row + 1].detach().cpu(),
        method=method.name,
        target=target.name(model.labels) if method.uses_target else "any target",
        prediction=prediction,
        geometry=found.over(item.geometry),
        record=provenance,
        layer=f"{found.layer.name} ({found.layer.layout})" if found.layer else None,
        kind=method.kind,
        signed=method.signed,
        fold=method.channels,
        notes=[*item.notes, *found.notes, *found.cost.ran.notes, *([] if item.geometry.known else [_NO_WAY_BACK])],
        extras={name: value[row : row + 1].detach().cpu() for name, value in found.extras.items()}
        | ({} if item.seen is None else {"seen": item.seen[None]})
        | marked(target, item.geometry),
        picture=item.picture,
        session=session,
        ran=method,
        explained=target,
        facts={name: values[row] for name, values in found.facts.items()},
        remarks=[*item.remarks, *(found.remarks[row] if found.remarks else [])],
        others=target.others,
    )


_MOSTLY = 0.5  # of a pixel that lies in a region


def marked(target: Target, geometry: Geometry) -> dict[str, Tensor]:
    """What to draw over the original picture for a frozen target: `box` `(1, 4)`, or `region` `(1, H, W)`."""
    marks = target.marks()
    if "region" in marks:
        marks["region"] = geometry.to_source(marks["region"].float()).nan_to_num() > _MOSTLY
    if "box" in marks:
        marks["box"] = torch.tensor([geometry.source_box(row) for row in marks["box"].tolist()])
    return marks


def opened(artefact: storage.Artefact) -> Heatmap:
    """A stored explanation as it was."""
    stored = storage.explanation(artefact)
    return kind_of(stored.medium)(**{f.name: getattr(stored, f.name) for f in fields(stored)})


def recompute(
    artefact: storage.Artefact, model: ModelLike | None, inputs: Input | None, target: TargetLike = None
) -> Again:
    """A stored explanation computed again from its record (see `verify`)."""
    again, reasons = explained_again(artefact, model, inputs, target)
    return Again({"attribution": again.attribution}, reasons)


def explained_again(
    artefact: storage.Artefact, model: ModelLike | None, inputs: Input | None, target: TargetLike = None
) -> tuple[Heatmap, list[str]]:
    """The explanation of a record, made anew, and what is not as the record says."""
    reasons: list[str] = []
    about = storage.explanation(artefact).record
    asked = ExplainRequest.of(about, recorded_target(about, target))
    loaded = reloaded(about, model, inputs, reasons)
    again = explained(loaded, source_of(about) if inputs is None else inputs, asked)
    if not isinstance(again, Heatmap):
        raise StorageError("An explanation is of one picture or clip: give pl.verify(file, inputs=...) just that one.")
    if again.record.input["sha256"] != about.input["sha256"]:
        reasons.append("the picture is not the one of the record")
    return again, reasons


REQUESTS[storage.FORMAT] = Maker(ExplainRequest, explained, opened, recompute, targeted=True)
