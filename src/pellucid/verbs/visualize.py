"""`visualize`: what units of a model have learned, beside the natural pictures that excite them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid import storage
from pellucid.engine import unwrap
from pellucid.engine.trace import interruptible
from pellucid.errors import LayerError, MethodError, TargetError
from pellucid.explanation import Record
from pellucid.features import (
    Channel,
    LayerEnergy,
    Neuron,
    Objective,
    Settings,
    as_objective,
    parse_objective,
    synthesise,
)
from pellucid.features.activations import stages
from pellucid.features.feature_image import FeatureQuality, Given, judge
from pellucid.features.figures import before, figures
from pellucid.features.natural import Choice, Standing
from pellucid.features.nature import By, Natural, Ranking, compared, find_natural, measure_of
from pellucid.features.result import Synthesis
from pellucid.media import address
from pellucid.models.layers import layers
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.progress import task
from pellucid.results.features import FORMAT, FeatureImage, FeatureImages, arrays, read_features
from pellucid.verbs.inputs import Input, ModelLike, as_model, one
from pellucid.verbs.records import record, reloaded
from pellucid.verbs.request import CODECS, REQUESTS, Again, Codec, Maker, Request, unheld

SAMPLES = "sample:*"
BROKEN = ("never_fired", "not_finite")
_SEEDS = {"fast": 1, "standard": 2, "fine": 2}


@interruptible
def visualize(
    model: ModelLike,
    inputs: Input | None = None,
    *,
    layer: str | None = None,
    channel: int | str | Sequence[int] | None = None,
    target: TargetLike = None,
    objective: str | Objective | Sequence[str | Objective] | None = None,
    parametrization: str | None = None,
    preset: str = "fast",
    size: int | None = None,
    settings: Settings | None = None,
    exemplars: str | Path | Sequence[str | Path] | None = SAMPLES,
    by: By = "activation",
    top: int = 4,
    seed: int = 0,
    seeds: int | None = None,
    cache: bool | str | Path = True,
    say: Callable[[str], None] | None = None,
) -> Any:
    """What has this unit learned?

    For each unit: a picture made to excite it by gradient ascent, the natural pictures that excite it most with the
    part it looks at, its map on a picture of yours, and how far the made picture may be believed.

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        inputs: a picture on which the units' maps are shown too.
        layer: whose units are meant; without a channel all of it is (DeepDream).
        channel: one or several: 3, `"0:16"`, `"3,5"`, `[3, 5]`.
        target: without a layer: the class to be visualised. With one: what relevance is to, see `by`.
        objective: anything else, as an object or a text such as `neuron:LAYER:CHANNEL` (see `pellucid.features`).
        parametrization: `fourier`, `pixel`, `maco` or `cppn`.
        preset: `fast`, `standard` or `fine`.
        size: the made picture's longer side in pixels; default the model's input size.
        settings: all of the above and more, instead of a preset.
        exemplars: the natural pictures: folder, glob, files, `sample:*`; None for none.
        by: rank natural pictures by `activation`, or by `relevance` to the target.
        top: exemplars a unit.
        seed: for whatever is random.
        seeds: how many seeds pictures are made from: the first's is shown, the others' are compared with it; default
            1 for `fast`, else 2.
        cache: keep the ranking in the user's cache folder (True), in a folder of your own, or not at all (False).
        say: is told beforehand what it costs.

    Returns:
        A `FeatureImage` for a single unit, else `FeatureImages`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    chosen = _settings(loaded, settings, parametrization, preset, size)
    asked = FeatureRequest(
        objectives=tuple(_objectives(layer, channel, target, objective)),
        settings=chosen,
        exemplars=None if exemplars is None else tuple(_absolute(exemplars)),
        by=by,
        target=as_target(target) if by == "relevance" and target is not None else None,
        top=top,
        seeds=seeds if seeds is not None else _SEEDS.get(preset, 1),
        seed=seed,
    )
    if say is not None:
        say(asked.cost())
    found = run(loaded, asked, inputs, cache)
    return found[0] if len(found) == 1 and not isinstance(channel, str | Sequence) else found


CODECS["objective"] = Codec(Objective, lambda o: o.spec(), parse_objective)
CODECS["settings"] = Codec(Settings, lambda s: s.as_dict(), Settings.from_dict)


@dataclass(frozen=True, kw_only=True)
class FeatureRequest(Request):
    """What was asked for, whole: what `record` keeps and `verify` reads."""

    verb: ClassVar[str] = "visualize"

    objectives: tuple[Objective, ...]
    settings: Settings
    exemplars: tuple[str, ...] | None
    by: By
    target: Target | None
    top: int
    seeds: int
    seed: int

    def cost(self) -> str:
        """In words, the passes it takes."""
        pictures = self.seeds * sum(o.pictures for o in self.objectives)
        steps, views = self.settings.steps, self.settings.views
        made = f"{pictures} picture{'s' * (pictures > 1)} in at most {steps} steps of {views} view{'s' * (views > 1)}"
        natural = "" if self.exemplars is None else ", and a forward for each natural picture (none if known)"
        return f"{made}: about {pictures * steps * views} passes forward and backward{natural}"

    def recorded(self) -> dict[str, Any]:
        """Plain values for the record, where an objective that has no text is null."""
        return {
            "objectives": [o.spec() for o in self.objectives],
            "settings": self.settings.as_dict(),
            "exemplars": None if self.exemplars is None else list(self.exemplars),
            "by": self.by,
            "target": self.target.spec() if self.target else None,
            "top": self.top,
            "seeds": self.seeds,
        }

    @classmethod
    def of(cls, about: Record) -> FeatureRequest:
        """The inverse, out of a record.

        Raises:
            StorageError: an objective was an object, which a record cannot hold.
        """
        values = about.method["parameters"]
        if None in values["objectives"] or (values["by"] == "relevance" and values["target"] is None):
            raise unheld("objective", "an object", "it cannot be recomputed.")
        return cls(
            objectives=tuple(parse_objective(text) for text in values["objectives"]),
            settings=Settings.from_dict(values["settings"]),
            exemplars=None if values["exemplars"] is None else tuple(values["exemplars"]),
            by=values["by"],
            target=as_target(values["target"]) if values["target"] else None,
            top=values["top"],
            seeds=values["seeds"],
            seed=about.run["seed"],
        )


def run(model: VisionModel, asked: FeatureRequest, inputs: Input | None, cache: bool | str | Path) -> FeatureImages:
    """All that was asked for."""
    if asked.by not in ("activation", "relevance"):
        raise MethodError(f"Natural pictures are ranked by 'activation' or 'relevance', not {asked.by!r}.")
    weights = model.fingerprint()
    item = None if inputs is None else one(model, inputs)
    sample = _sample(model, asked.settings) if item is None else item.x[None].to(model.device, model.dtype)
    model.outputs(sample)  # says in a sentence if the model does not take such inputs
    nature = None
    if asked.exemplars is not None:
        ranking = Ranking(asked.by, asked.target, asked.top, means=asked.settings.factor is not None)
        nature = find_natural(model, asked.objectives, asked.exemplars, sample, ranking, cache=cache, seed=asked.seed)
    naturals = nature.objectives if nature else (None,) * len(asked.objectives)
    levels = [_limits(o, n) for o, n in zip(asked.objectives, naturals, strict=True)]
    by_seed = [_made(model, asked, asked.seed + i, levels) for i in range(asked.seeds)]
    groups = by_seed[0]
    firsts = [group[0] for group in groups]
    against = compared(model, nature, [s.input for s in firsts]) if nature else [None] * len(groups)
    measured = _measured(model, asked, by_seed, naturals, sample)
    about = record(
        model,
        weights,
        item.source if item else {"source": "", "name": "", "sha256": ""},
        "visualize",
        asked.recorded(),
        asked.target,
        {
            "seed": asked.seed,
            "steps": int(max(s.facts.get("steps", 0) for s in firsts)),
            "pictures": nature.pictures if nature else 0,
            "data": nature.data if nature else "",
            "forwards": nature.forwards if nature else 0,
            "notes": list(nature.notes) if nature else [],
        },
    )
    return FeatureImages(
        FeatureImage(
            objective=group[0].objective,
            spec=group[0].spec,
            layer=objective.layers[0] if len(objective.layers) == 1 else None,
            channel=objective.channel if isinstance(objective, Channel) else None,
            pictures=torch.stack([s.picture for s in group]),
            alphas=_stacked([s.alpha for s in group]),
            reached=group[0].reached,
            history=group[0].history,
            quality=_quality(group[0], found, measured[i]),
            record=about,
            natural=natural.shown if natural else None,
            fires=None if item is None else _fires(model, objective, sample),
            given=None if item is None or item.still is None else Given(item.still, item.geometry),
            notes=list(group[0].notes),
            facts=group[0].facts,
        )
        for i, (objective, group, natural, found) in enumerate(
            zip(asked.objectives, groups, naturals, against, strict=True)
        )
    )


def _made(
    model: VisionModel, asked: FeatureRequest, seed: int, levels: Sequence[Tensor | None]
) -> list[list[Synthesis]]:
    """The pictures of each objective."""
    made = iter(synthesise(model, asked.objectives, asked.settings, seed=seed, natural=levels))
    return [[next(made) for _ in range(o.pictures)] for o in asked.objectives]


def _measured(
    model: VisionModel,
    asked: FeatureRequest,
    by_seed: Sequence[Sequence[Sequence[Synthesis]]],
    naturals: Sequence[Natural | None],
    sample: Tensor,
) -> list[dict[str, float]]:
    """The figures of each objective's first picture."""
    module = unwrap(model.module)
    order = {layer.name: i for i, layer in enumerate(layers(module, sample, key="output"))}
    depth = stages(module, sample)
    found: list[dict[str, float]] = []
    with task("measuring", len(asked.objectives)) as advance:
        for i, (objective, natural) in enumerate(zip(asked.objectives, naturals, strict=True)):
            made = [groups[i][0] for groups in by_seed]
            if any(s.facts.get(name) for s in made for name in BROKEN):
                found.append({})
            else:
                along = before(depth, objective, order)
                levels = natural.levels if natural else None
                found.append(figures(model, objective, made, levels, along, seed=asked.seed))
            advance(1)
    return found


def _limits(objective: Objective, natural: Natural | None) -> Tensor | None:
    """The objective's own natural values: a channel climbs its mean, a neuron and a class what they are ranked by."""
    if natural is None:
        return None
    plain = isinstance(objective, Channel) and not isinstance(objective, Neuron)
    return natural.means if plain else natural.levels.percentiles


def _quality(
    made: Synthesis, found: tuple[Standing, Choice | None] | None, measured: dict[str, float]
) -> FeatureQuality:
    standing, choice = found if found is not None else (None, None)
    return judge(standing, choice, measured, **{name: bool(made.facts.get(name)) for name in BROKEN})


def _fires(model: VisionModel, objective: Objective, x: Tensor) -> Tensor | None:
    """The unit's map `(*grid)` on the user's picture; None for objectives without one."""
    measure = measure_of(model, objective, x)
    if measure is None:
        return None
    with measure.opened(unwrap(model.module)) as capture:
        return measure.maps(capture, x)[0, 0].detach().cpu()


def _stacked(alphas: Sequence[Tensor | None]) -> Tensor | None:
    given = [a for a in alphas if a is not None]
    return torch.stack(given) if given and len(given) == len(alphas) else None


def _sample(model: VisionModel, settings: Settings) -> Tensor:
    shape = settings.shape or (model.preprocess.channels, *model.preprocess.input_size)
    return torch.zeros(1, *shape, device=model.device, dtype=model.dtype)


def _settings(
    model: VisionModel, settings: Settings | None, parametrization: str | None, preset: str, size: int | None
) -> Settings:
    if settings is not None:
        if parametrization is not None or size is not None:
            raise MethodError("Settings hold the parametrization and the size: give either them or these.")
        return settings
    changes: dict[str, Any] = {} if parametrization is None else {"parametrisation": parametrization}
    if size is not None:
        if size < 16:
            raise MethodError(f"A picture of {size} pixels shows nothing: ask for at least 16.")
        changes["zoom"] = size / max(model.preprocess.input_size)
    return Settings.preset(preset, **changes)


def _objectives(
    layer: str | None,
    channel: int | str | Sequence[int] | None,
    target: TargetLike,
    objective: str | Objective | Sequence[str | Objective] | None,
) -> list[Objective]:
    if objective is not None:
        if layer is not None or channel is not None:
            raise MethodError("An objective names its own layer: give either it, or a layer with a channel.")
        several = list(objective) if isinstance(objective, Sequence) and not isinstance(objective, str) else [objective]
        return [parse_objective(o) if isinstance(o, str) else o for o in several]
    if layer is not None:
        if channel is None:
            return [LayerEnergy(layer)]
        return [Channel(layer, c) for c in channels(channel)]
    if channel is not None:
        raise LayerError("A channel was named, but no layer: say whose, with layer=... (`pellucid layers` lists them).")
    if target is None:
        raise TargetError(
            "Name what to visualise: a layer with a channel, a target such as 'espresso', or an objective."
        )
    if isinstance(target, str):
        return [as_objective(as_target(part)) for part in target.split(",")]
    return [as_objective(target)]


def channels(given: int | str | Sequence[int]) -> list[int]:
    """Channels as a person writes them: `3`, `0:16`, `3,5`, `0:64:8`, or numbers."""
    if isinstance(given, int):
        return [given]
    if not isinstance(given, str):
        return list(given)
    found: list[int] = []
    for part in given.split(","):
        numbers = part.strip().split(":")
        if not all(n.strip().isdecimal() for n in numbers) or len(numbers) > 3:
            raise MethodError(f"{given!r} names no channels: write 3, 3,5 or 0:16.")
        found += range(*map(int, numbers)) if len(numbers) > 1 else [int(numbers[0])]
    if not found:
        raise MethodError(f"{given!r} names no channel: the end of a range is not part of it.")
    return list(dict.fromkeys(found))


def _absolute(given: str | Path | Sequence[str | Path]) -> list[str]:
    items = [given] if isinstance(given, str | Path) else list(given)
    return [address(item) for item in items]


def requested(model: VisionModel, inputs: Input | None, asked: FeatureRequest) -> FeatureImages:
    """`visualize` as it was requested."""
    return run(model, asked, inputs, True)


def opened(artefact: storage.Artefact) -> FeatureImages:
    """The stored result as it was."""
    return read_features(artefact)


def recompute(artefact: storage.Artefact, model: ModelLike | None, inputs: Input | None) -> Again:
    """Stored feature images made again from their record (see `verify`)."""
    reasons: list[str] = []
    about = storage.record_from(artefact.meta)
    asked = FeatureRequest.of(about)
    loaded = reloaded(about, model, inputs if inputs is not None or about.input["source"] else "", reasons)
    given = inputs if inputs is not None else about.input["source"] or None
    again = run(loaded, asked, given, True)
    if again[0].record.run["data"] != about.run["data"]:
        reasons.append("the natural pictures are not those of the record")
    made = arrays(again)
    if made.keys() != artefact.arrays.keys():
        reasons.append("other exemplars were found")
    return Again({name: torch.from_numpy(a) for name, a in made.items() if name in artefact.arrays}, reasons)


REQUESTS[FORMAT] = Maker(FeatureRequest, requested, opened, recompute)
