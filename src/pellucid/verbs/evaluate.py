"""`evaluate`: which explanation to believe, on this model and these inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.engine.baselines import refuse_unknown
from pellucid.engine.batching import default_batch
from pellucid.errors import MediaError, MethodError, PellucidError, StorageError
from pellucid.evaluation.adapters import ADAPTERS
from pellucid.evaluation.anchors import ANCHORS
from pellucid.evaluation.banks.maps import TruthMask
from pellucid.evaluation.banks.oracle import ORACLE
from pellucid.evaluation.banks.parts import SceneOracle
from pellucid.evaluation.competitors import Competitor, class_of, competitor
from pellucid.evaluation.forecast import forecast
from pellucid.evaluation.measure import measure, read_across
from pellucid.evaluation.metrics import METRICS, Metric, as_metrics
from pellucid.evaluation.sample import Sample
from pellucid.evaluation.saved_samples import SavedSamples
from pellucid.evaluation.schedule import DEFAULT_BASELINE, Schedule
from pellucid.heatmaps import Method, get_method
from pellucid.models.feed import Prepared
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target, TargetLike
from pellucid.models.targets.classes import label_of
from pellucid.results.scoreboard import FORMAT, Scoreboard, read_scoreboard, scoreboard
from pellucid.results.shown import unused
from pellucid.storage import Artefact
from pellucid.verbs.choices import as_methods, as_targets, named_method
from pellucid.verbs.contenders import with_contenders
from pellucid.verbs.explain import for_batch
from pellucid.verbs.inputs import Input, ModelLike, as_model, counted, prepared
from pellucid.verbs.records import opening, record, recorded_target, reloaded, reopened
from pellucid.verbs.request import REQUESTS, Again, Maker, Request, Say
from pellucid.verbs.truths import Truths, TruthSource

__all__ = ["Scoreboard", "evaluate", "opened", "recompute"]

_unused = partial(unused, between=" ", alike=str)  # names in a table

_SIDE = 112  # pixels of an input as it is shown
_SURER = 2.0  # times the probability of a guess (or half way to certainty): a model below knows nothing of its inputs

Methods = str | Method | Sequence[str | Method] | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Request):
    """What `evaluate` is asked; its settings are those of the verb that a record can hold."""

    verb: ClassVar[str] = "evaluate"

    methods: tuple[Method, ...]
    metrics: tuple[str, ...] = ("default",)
    target: Target
    baseline: str = DEFAULT_BASELINE
    seed: int = 0


def evaluate(
    model: ModelLike,
    inputs: Input | Sequence[Input],
    methods: Methods = "grad-cam,layer-cam,integrated-gradients",
    metrics: str | Sequence[str | Metric] = "default",
    *,
    target: TargetLike = None,
    masks: Truths | None = None,
    baseline: str = DEFAULT_BASELINE,
    quick: bool = False,
    keep: str | Path | None = None,
    seed: int = 0,
    say: Say | None = None,
) -> Scoreboard:
    """Which explanation is to be believed?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        inputs: as `explain` takes them.
        methods: by name (`auto`: of each family that suits), as objects, or by names of your own a mapping to methods,
            to functions `(model, inputs, target) -> array`, to objects of other libraries (see
            `pellucid.evaluation.adapters`), or to a folder of `.npy` files. Two anchors that never look at the model
            join them.
        metrics: by name, by category, `default`, `all`, or objects.
        target: what is explained; None: each input's top class.
        masks: where the truth lies, for localisation (see `TruthSource`).
        baseline: what shows where something is hidden, for metrics that leave it open.
        quick: methods of this package in their cheaper versions, with fewer samples and steps.
        keep: folder where finished inputs are kept, so that a run goes on where it stopped.
        seed: of whatever is random; methods that are given as objects keep their own.
        say: is told, in a line, what the work will cost.

    Returns:
        `Scoreboard`.

    Raises:
        PellucidError: one sentence with the cure; what fails for one input or one method is said in the result.
    """
    refuse_unknown(baseline)
    loaded = as_model(model)
    (asked,) = as_targets(target)
    competitors = _competitors(with_contenders(_named(methods, seed), loaded, inputs, asked), quick)
    known = {
        "oracle": any(c.name == ORACLE for c in competitors),
        "parts": any(isinstance(c, SceneOracle) for c in competitors),
    }
    chosen = as_metrics(metrics, masks=masks is not None, clips=loaded.medium.moving, **known)
    schedule = Schedule.of(chosen, competitors, baseline)
    truth = None if masks is None else TruthSource(masks)
    if truth is None and any(m.category == "localisation" and isinstance(m.bank, TruthMask) for m in chosen):
        raise MethodError("Localisation is measured against the truth: give masks, or leave these metrics out.")
    weights = loaded.fingerprint()
    opened_inputs = _Opened(loaded, inputs, asked, truth, seed)
    saved = None if keep is None else SavedSamples(Path(keep), weights)
    count = counted(loaded, inputs)
    tell = None if say is None else partial(forecast, say, schedule, count=count, kept=saved is not None)
    measured = list(measure(_told(iter(opened_inputs), tell), schedule, saved, count))
    if not measured:
        raise MediaError(f"None of the inputs could be used; the first: {opened_inputs.failed[0]}")
    read_across(measured, schedule.metrics)
    cheaper = ["Methods ran in their quick versions, with fewer samples and steps."] if quick else []
    doubts = [] if known["oracle"] else opened_inputs.doubts()  # a network of a suite answers by construction
    notes = [*opened_inputs.notes, *cheaper, *schedule.same_ground(), *doubts]
    about = {
        **opening(inputs),
        "name": _name(inputs),
        "sha256": hashlib.sha256(" ".join(str(m.sample.source.get("sha256")) for m in measured).encode()).hexdigest(),
        "count": len(measured),
    }
    settings = {
        "competitors": [c.written() for c in competitors],
        "metrics": [m.name for m in schedule.metrics],
        "baseline": baseline,
    }
    run = {"seed": seed, "forwards": sum(m.forwards for m in measured)}
    provenance = record(opened_inputs.model, weights, about, "evaluate", settings, asked, run)
    return scoreboard(measured, schedule, provenance, notes, np.stack(opened_inputs.thumbs))


def _told(samples: Iterator[Sample], tell: Callable[[Sequence[int]], None] | None) -> Iterator[Sample]:
    """The samples; in front of the first it is said what each will cost."""
    for position, sample in enumerate(samples):
        if not position and tell is not None:
            tell(sample.space)
        yield sample


def _named(methods: Methods, seed: int) -> dict[str, Any]:
    """Whoever is to be measured, under names of their own."""
    if isinstance(methods, Mapping):
        return {name: named_method(name) if given is None else given for name, given in methods.items()}
    found, taken = dict[str, Any](), set[str]()
    given = [methods] if isinstance(methods, str | Method) else methods
    for m in (m for each in given for m in as_methods(each, seed=seed if isinstance(each, str) else None)):
        found[_unused(m.name, taken)] = m
    return found


def _competitors(found: dict[str, Any], quick: bool) -> list[Competitor]:
    """All of them, the anchors last."""
    for name, anchor in ANCHORS.items():
        if name in found:
            raise MethodError(f"{name!r} is the name of an anchor, which is measured in any case: choose another.")
        found[name] = anchor(name)
    if quick:
        found = {name: given.quick() if isinstance(given, Method) else given for name, given in found.items()}
    return [competitor(name, given, ADAPTERS) for name, given in found.items()]


class _Opened:
    """Inputs one after the other as samples; what cannot be used is noted, and the rest goes on."""

    def __init__(
        self, model: VisionModel, inputs: Input | Sequence[Input], target: Target, truth: TruthSource | None, seed: int
    ) -> None:
        self.model, self._inputs, self._target, self._truth, self._seed = model, inputs, target, truth, seed
        self.failed: list[str] = []
        self.notes: list[str] = []
        self.thumbs: list[NDArray[np.uint8]] = []
        self._names: set[str] = set()
        self._sure: list[float] = []  # probability over what a model that knows something gives at least

    def __iter__(self) -> Iterator[Sample]:
        self._base = self.model
        for group in self._groups():
            yield from self._together(group)

    def _groups(self) -> Iterator[list[Prepared]]:
        """Inputs of one size that follow each other, as many as fit into a batch."""
        group: list[Prepared] = []
        for position, (name, item) in enumerate(prepared(self._base, self._inputs)):
            if isinstance(item, PellucidError):
                self._leave_out(name, item)
                continue
            full = len(group) >= default_batch(self._base.device, item.x.nbytes)
            if group and (full or group[0].x.shape != item.x.shape):
                yield group
                group = []
            group.append(replace(item, position=position))
        if group:
            yield group

    def _leave_out(self, name: str, error: PellucidError) -> None:
        self.failed.append(str(error))
        self.notes.append(f"{name} is left out: {error}")

    def _together(self, items: list[Prepared]) -> Iterator[Sample]:
        """Inputs of one size in one pass; each alone where that fails, or where each has to be read for itself."""
        try:
            opened = self._as_one(items)
        except PellucidError as error:
            opened = None
            if len(items) == 1:
                self._leave_out(str(items[0].source["name"]), error)
                return
        if opened is None:
            for item in items:
                yield from self._together([item])
            return
        yield from opened

    def _as_one(self, items: list[Prepared]) -> list[Sample] | None:
        """None where the scores of some inputs alone leave open how the output is read."""
        model = self._base
        x = torch.stack([item.x for item in items]).to(model.device, model.dtype)
        output = model.outputs(x)
        doubts = model.doubts(output, len(x))
        if any(doubts) and not all(doubts):
            return None
        self.model = model = model.settled(x, output)
        asked = for_batch(self._target, items).placed([item.geometry for item in items])
        target = model.frozen(model.bound(asked, x), x, output)
        classes = self._note_chance(model, output, len(x))
        return [
            self._sample(item, model, x[k : k + 1], target.select(torch.tensor([k])), classes)
            for k, item in enumerate(items)
        ]

    def _sample(self, item: Prepared, model: VisionModel, x: Tensor, target: Target, classes: int) -> Sample:
        name = str(item.source["name"])
        mask = self._mask(name, item, target, model) if self._truth is not None else None
        self.thumbs.append(_thumb(model, item.x))
        name = _unused(name, self._names)  # tensors have one name, and so may pictures of several folders
        return Sample(model, x, target, name, item.geometry, mask, self._seed, item.source, classes)

    def _mask(self, name: str, item: Prepared, target: Target, model: VisionModel) -> Tensor | None:
        assert self._truth is not None
        asked = class_of(target)
        label = label_of(asked, model.labels) if isinstance(asked, int) else ""
        try:
            mask = self._truth.of(name, item.position, item.geometry.source_size, label)
        except MediaError as error:
            self.notes.append(str(error))
            return None
        if mask is None:
            self.notes.append(f"There is no mask of {name}, so its localisation is not measured.")
        elif not mask.any():
            self.notes.append(f"The mask of {name} is empty, so it is never hit.")
        return mask

    def _note_chance(self, model: VisionModel, output: Any, count: int) -> int:
        """How many classes the output tells apart; 0 where it is of none."""
        scores = model.reading.found(output, count, model.labels)
        if scores is None or scores.shape[1] < 2:
            return 0
        if model.reading.bounded:
            guess = 1 / scores.shape[1]
            surest = model.reading.probabilities(scores).max(1).values / min(_SURER * guess, (1 + guess) / 2)
            self._sure += surest.tolist()
        return int(scores.shape[1])

    def doubts(self) -> list[str]:
        """Whether the model knows anything of its inputs."""
        if self._sure and float(np.median(self._sure)) < 1:
            return [
                "The model is hardly surer than a guess on these inputs, so there is little to explain: what is "
                "measured says how maps follow noise. Check its weights and preprocessing."
            ]
        return []


def _thumb(model: VisionModel, x: Tensor) -> NDArray[np.uint8]:
    """What the model sees, `(h, w, 3)`; of clips and volumes the middle."""
    shown = model.preprocess.display(x) if x.shape[0] == model.preprocess.channels else x
    while shown.ndim > 3:
        shown = shown[:, shown.shape[1] // 2]
    shown = shown.float() if shown.shape[0] == 3 else shown.float().mean(0, keepdim=True).expand(3, *shown.shape[1:])
    low, high = float(shown.min()), float(shown.max())
    if low < -0.01 or high > 1.01:
        shown = (shown - low) / max(high - low, 1e-12)
    size = [max(1, round(_SIDE * n / max(shown.shape[1:]))) for n in shown.shape[1:]]
    small = interpolate(shown[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    canvas = torch.ones(3, _SIDE, _SIDE)
    canvas[:, : size[0], : size[1]] = small
    return (canvas * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _name(inputs: Any) -> str:
    if isinstance(inputs, str | Path):
        return Path(inputs).name or str(inputs)
    return "inputs"


def requested(model: VisionModel, inputs: Any, asked: EvaluateRequest) -> Scoreboard:
    """`evaluate` as it was requested."""
    how: dict[str, Any] = {"target": asked.target, "baseline": asked.baseline, "seed": asked.seed}
    return evaluate(model, inputs, list(asked.methods), list(asked.metrics), **how)


def opened(artefact: Artefact) -> Scoreboard:
    """A stored scoreboard as it was."""
    return read_scoreboard(artefact)


def recompute(artefact: Artefact, model: ModelLike | None, given: Any, target: TargetLike = None) -> Again:
    """The stored values made again from their record (see `verify`).

    Raises:
        StorageError: a competitor was a function or an object, which a record cannot hold.
    """
    stored, told = opened(artefact), list[str]()
    about = stored.record
    settings = about.method["parameters"]
    for name, written in zip(stored.methods, settings["competitors"], strict=True):
        if written is None:
            raise StorageError(f"{name} was a function or an object, which a record cannot hold: evaluate again.")
    inputs = reopened(about, given)
    loaded = reloaded(about, model, inputs, told)
    methods = {name: get_method(m, **_tuples(s)) for name, m, s in settings["competitors"] if m}
    masks = None
    if stored.masks:
        masks = [stored.masks.get(n, torch.zeros(0)) for n in range(len(stored.samples))]
    unknown = [m for m in settings["metrics"] if m not in METRICS]
    if unknown:
        raise StorageError(f"There is no metric {unknown[0]!r} any more, so this cannot be measured again.")
    again = evaluate(
        loaded,
        inputs,
        methods,
        settings["metrics"],
        target=recorded_target(about, target),
        masks=masks,
        baseline=settings["baseline"],
        seed=about.run["seed"],
    )
    if again.record.input["sha256"] != about.input["sha256"]:
        told.append("the inputs are not those of the record")
    names = {f"scores.{m.name}": torch.from_numpy(again.scores[:, k]) for k, m in enumerate(again.metrics)}
    return Again(names, told)


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


REQUESTS[FORMAT] = Maker(EvaluateRequest, requested, opened, recompute, targeted=True)
