"""`tcav`: does the score of a class rise towards concepts that are given by example pictures?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from pellucid.concepts.cav import Kind
from pellucid.concepts.tcav import derivatives, like
from pellucid.concepts.tcav import tcav as test_concepts
from pellucid.engine.trace import interruptible
from pellucid.errors import DataError, MediaError, StorageError
from pellucid.keep.artefact import Artefact
from pellucid.media import PictureSet, address, read_folder
from pellucid.models.features import extract
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target, TargetLike, TopClass, as_target
from pellucid.numerics.statistics import Correction
from pellucid.results.tcav import FORMAT, ConceptTests, arrays
from pellucid.results.tcav import read_tests as opened
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.records import record, recorded_target, reloaded
from pellucid.verbs.request import REQUESTS, Again, Maker, Request

__all__ = ["ConceptTests", "opened", "recompute", "tcav"]


@dataclass(frozen=True, kw_only=True)
class TcavRequest(Request):
    """What `tcav` is asked of a folder of concepts; its settings are those of the verb."""

    verb: ClassVar[str] = "tcav"

    pictures: str
    random: str
    target: Target
    layer: str | None = None
    by: Kind = "pattern"
    match: int = 0
    level: float = 0.05
    correction: Correction = "holm"
    draws: int | None = None
    seed: int = 0


@interruptible
def tcav(
    model: ModelLike,
    concepts: str | Path,
    pictures: str | Path,
    random: str | Path,
    target: TargetLike = None,
    *,
    layer: str | None = None,
    by: Kind = "pattern",
    match: int = 0,
    level: float = 0.05,
    correction: Correction = "holm",
    draws: int | None = None,
    seed: int = 0,
    cache: str | Path | None = "default",
) -> ConceptTests:
    """Does the answer depend on a concept that you show by examples?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        concepts: folder with a sub-folder of at least 2 (better 30) pictures for each concept.
        pictures: of the class that is asked about; sub-folders are asked about one by one.
        random: pictures without the concepts, else alike: the same kind of camera, background and size.
        target: the score; None: each picture's own top class.
        layer: module path; None takes the last that still knows places.
        by: `pattern` (difference of means) or `logistic`.
        match: choose this many of the random pictures, those most like the concept's in colour, contrast, sharpness
            and shape; 0 takes all.
        level: chance of any false discovery.
        correction: for the number of tests: `holm`, `bh`, `none`.
        draws: random sets of pictures that each concept is compared with.
        seed: of the draws.
        cache: folder for the layer's features; None keeps none.

    Returns:
        `ConceptTests`, a sequence of `Tested`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    given, asked, pool = read_folder(concepts), read_folder(pictures), read_folder(random)
    if not given.classes:
        raise DataError(f"{concepts} holds no sub-folders: make one for each concept, named for it.")
    home: Any = Path(cache) if cache not in (None, "default") else cache
    if match:
        pool = pool.select(like(given, pool, match))
    features = extract(loaded, given, layer, cache=home)
    others = extract(loaded, pool, features.layer, cache=home)
    gradients = {}
    for name, part in _parts(asked):
        text = as_target(target).name(loaded.labels)
        called = f"{text} in {name}" if name else text
        gradients[called] = derivatives(loaded, part, features.layer, target)[1]
    rows = {name: features.values[features.labels == k] for k, name in enumerate(given.classes)}
    tests = test_concepts(
        rows, others.values, gradients, kind=by, level=level, correction=correction, draws=draws, seed=seed
    )
    looked = [asked.digest(i) for i in range(len(asked))]
    about = {
        "source": address(concepts),
        "name": given.name,
        "sha256": hashlib.sha256(" ".join([*features.digests, *others.digests, *looked]).encode()).hexdigest(),
        "asked": address(pictures),
        "random": address(random),
    }
    settings = {"by": by, "match": match, "level": level, "correction": correction, "draws": draws}
    run = {"seed": seed, "layer": features.layer, "backwards": len(asked)}
    provenance = record(loaded, features.weights, about, "tcav", settings, as_target(target), run)
    return ConceptTests(tests, features.layer, level, provenance)


def requested(model: VisionModel, concepts: str | Path, asked: TcavRequest) -> ConceptTests:
    """`tcav` as it was requested."""
    return tcav(model, concepts, **vars(asked))


def recompute(artefact: Artefact, model: ModelLike | None, inputs: Any, target: TargetLike = None) -> Again:
    """Stored tests made again from their record; `inputs`: where the concepts' folder is now (see `verify`)."""
    stored, reasons = opened(artefact), list[str]()
    about = stored.record
    if about.target is None and target is None and all(t.target.startswith(str(TopClass())) for t in stored):
        target = TopClass()  # which earlier records left out
    wanted = recorded_target(about, target)
    loaded = reloaded(about, model, inputs, reasons)
    try:
        asked = TcavRequest(
            pictures=about.input["asked"],
            random=about.input["random"],
            target=wanted,
            layer=stored.layer,
            seed=about.run["seed"],
            **about.method["parameters"],
        )
        again = requested(loaded, about.input["source"] if inputs is None else inputs, asked)
    except MediaError as error:
        raise StorageError(f"{error} The pictures of the record are not at hand: put them back.") from error
    if again.record.input["sha256"] != about.input["sha256"]:
        reasons.append("the pictures are not those of the record")
    return Again({name: torch.from_numpy(found) for name, found in arrays(again.tests).items()}, reasons)


def _parts(pictures: PictureSet) -> list[tuple[str, PictureSet]]:
    if not pictures.classes:
        return [("", pictures)]
    numbers = [(name, (pictures.labels == k).nonzero()[0]) for k, name in enumerate(pictures.classes)]
    return [(name, pictures.select(rows)) for name, rows in numbers if len(rows)]


REQUESTS[FORMAT] = Maker(TcavRequest, requested, opened, recompute, targeted=True)
