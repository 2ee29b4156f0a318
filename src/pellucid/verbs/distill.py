"""`distill`: a model that a person can read, learned from a teacher or from labelled pictures, with its card."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pellucid import storage
from pellucid.concepts import DICTIONARIES
from pellucid.engine.trace import interruptible
from pellucid.errors import DataError, LayerError, MethodError, StorageError
from pellucid.interpretable import small_cnn
from pellucid.interpretable.distilled import FORMAT, Surrogate, surrogate
from pellucid.interpretable.learn import KINDS, Lesson, Split, WordColumns, learn, split
from pellucid.media import address
from pellucid.media.pictures import PictureSet, read_folder
from pellucid.models.features import extract
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout
from pellucid.models.model import VisionModel
from pellucid.models.sources import load
from pellucid.results.distilled import Distilled
from pellucid.verbs.inputs import Input, ModelLike, as_model
from pellucid.verbs.records import opening, parameters, record, reopened
from pellucid.verbs.request import REQUESTS, Again, Maker, Request

CONCEPTS = ("auto", "none", "attributes", "properties", *(name for name in DICTIONARIES if name != "random"))


@dataclass(frozen=True, kw_only=True)
class DistillRequest(Request):
    """What `distill` is asked; its settings are those of the verb, its models by name.

    Attributes:
        teacher: whose answers are learned; None: the pictures' own classes.
        model: whose layer gives the words; None: the teacher's, or the embedded default's.
    """

    verb: ClassVar[str] = "distill"

    into: str = "tree"
    teacher: str | None = None
    model: str | None = None
    concepts: str = "auto"
    count: int | None = None
    limit: int | None = None
    layer: str | None = None
    seed: int = 0


def requested(model: ModelLike | None, pictures: Any, asked: DistillRequest) -> Distilled:
    """`distill` as it was requested; `model` gives the words, and is the teacher too, unless that is trained."""
    settings: dict[str, Any] = dict(vars(asked))
    if model is not None:
        settings["model"] = model
        if asked.teacher not in (None, small_cnn.NAME):
            settings["teacher"] = model
    return distill(pictures, **settings, cache=None)


@interruptible
def distill(
    pictures: str | Path | Sequence[str | Path] | PictureSet,
    into: str = "tree",
    teacher: ModelLike | None = None,
    *,
    model: ModelLike | None = None,
    concepts: str = "auto",
    count: int | None = None,
    limit: int | None = None,
    layer: str | None = None,
    seed: int = 0,
    cache: Path | str | None = "default",
) -> Distilled:
    """Learn a model that a person can read, and measure it on pictures it has not seen.

    Args:
        pictures: a folder with a sub-folder for each class, a folder with `labels.csv`, `digits:`, or, with a teacher,
            any pictures.
        into: see `interpretable.learn.KINDS`.
        teacher: the model to imitate; `cnn` trains a small one on the spot; None learns the pictures' own classes.
        model: the network whose layer gives the words; default: the teacher, or the embedded default.
        concepts: what the words are: `none` (the layer's channels), `attributes` (of `attributes.csv`), `properties` of
            the picture, or concepts found by `nmf`, `semi-nmf`, `pca`, `ica`, `kmeans`, `sae`; `auto` fits the kind.
        count: how many concepts, or parts a class.
        limit: depth, features or rules at most; None chooses by cross-validation.
        layer: module path; None takes the last that still knows places.
        seed: of splits and of whatever is random.
        cache: folder for features; None keeps none.

    Raises:
        PellucidError: one sentence with the cure.
    """
    if into not in KINDS:
        raise MethodError(f"There is no readable model {into!r}: choose {', '.join(KINDS)}.")
    if concepts not in CONCEPTS:
        raise MethodError(f"There are no concepts {concepts!r}: choose {', '.join(CONCEPTS)}.")
    found = pictures if isinstance(pictures, PictureSet) else read_folder(pictures)
    labelled = len(found.labels) > 0
    if teacher is None and not labelled:
        raise DataError(
            f"{found.name} has no classes and there is no teacher, so there is nothing to learn: put each class into a "
            "folder of its own, or name a teacher."
        )
    first = split(found.labels, np.array(found.classes), seed) if labelled else None
    taught, network = _teacher(found, teacher, first, seed)
    base = as_model(model) if model is not None else (taught or as_model("efficientnet-lite0"))
    features = extract(base, found, layer, pool=None, cache="default" if cache == "default" else _path(cache))
    lesson = Lesson.of(found, features, taught, base, first, seed)
    kind = KINDS[into]
    words = kind.words if concepts == "auto" else concepts
    columns = WordColumns.of(words, features, lesson, base, count=count, pool=kind.pool, seed=seed)
    head = columns.own_hierarchy(base, features, lesson) if into == "hierarchy" and base is taught else None
    chance = columns.chance(features, lesson, seed)
    learned = learn(into, columns, lesson, limit=limit, head=head, chance=chance, seed=seed)
    settings = {
        "into": into,
        "teacher": None if taught is None else taught.name,
        "concepts": concepts,
        "count": count,
        "limit": limit,
        "layer": layer,
        "model": None if model is None else base.name,
    }
    digest = hashlib.sha256("".join(features.digests).encode()).hexdigest()
    source = {
        **opening(pictures),
        "name": found.name,
        "sha256": digest,
    }
    run = {"seed": seed, "layer": features.layer, "forwards": features.cost.forwards, "pictures": len(found)}
    if network and taught is not None and base is not taught:
        run["teacher"] = taught.fingerprint()
    made = Surrogate(
        into=into,
        head=learned.head,
        words=columns.words,
        card=learned.card,
        front=learned.front,
        labels=lesson.labels,
        layer=features.layer,
        layout=_layout(base, found, features.layer),
        record=record(base, features.weights, source, "distill", settings, None, run),
        preprocess=base.preprocess.as_dict(),
        X=columns.X,
        answers=lesson.answers,
        truth=lesson.truth if lesson.truth is not None else np.zeros(0, np.int64),
        held=lesson.at.test,
        sources=[address(found.sources[i]) for i in lesson.kept],
        taught=taught is not None,
        trained=network if base is taught else {},
        notes=lesson.notes,
    )
    return Distilled.of(made, base)


def _path(cache: Path | str | None) -> Path | None:
    return None if cache is None else Path(cache)


def _teacher(
    pictures: PictureSet, teacher: ModelLike | None, at: Split | None, seed: int
) -> tuple[VisionModel | None, dict[str, Tensor]]:
    """The teacher, and its weights if it was trained here (on the pictures that are not held out)."""
    if teacher is None:
        return None, {}
    if teacher != small_cnn.NAME:
        return as_model(teacher), {}
    if at is None:
        raise DataError(f"The teacher {small_cnn.NAME!r} is trained on classes, and {pictures.name} has none.")
    trained = small_cnn.train_small_cnn(pictures.select(at.train), seed)
    return trained, dict(trained.module.state_dict())


def _layout(base: VisionModel, pictures: PictureSet, layer: str) -> Layout | None:
    x, _ = base.pictures(pictures.read(0))
    try:
        return describe(base.module, x[None].to(base.device, base.dtype), layer).layout
    except LayerError:  # a vector a picture
        return None


def recompute(artefact: storage.Artefact, model: ModelLike | None, inputs: Input | None) -> Again:
    """A stored readable model learned again from its record (see `verify`)."""
    stored = surrogate(artefact)
    about, reasons = stored.record, list[str]()
    asked = DistillRequest(**parameters(about), seed=about.run["seed"])
    source, base = reopened(about, inputs), None
    if asked.teacher != small_cnn.NAME or asked.model is not None:
        if model is None and not about.model["source"]:
            raise StorageError(
                f"The model {about.model['name']!r} was wrapped: give it with pl.verify(file, model=...) or --model."
            )
        base = as_model(model) if model is not None else load(**about.model["source"])
    again = requested(base, source, asked)
    if again.record.input["sha256"] != about.input["sha256"]:
        reasons.append("the pictures are not those of the record")
    before, now = (r.run.get("teacher", r.model["weights"]) for r in (about, again.record))
    if now != before:
        anew = asked.teacher == small_cnn.NAME
        reasons.append(RETRAINED if anew else "the model's weights are not those of the record")
    found = again.probabilities()[again.held]
    return Again(
        {"probabilities": torch.from_numpy(found), "X": torch.from_numpy(again.X)}, reasons, _cause(stored, again)
    )


RETRAINED = "the teacher that could be rebuilt is another one: its weights were trained anew and differ"
RELEARNED = (
    "the {} that could be rebuilt is another one: it was learned anew, from columns that differ by {:.2g} of their "
    "largest value, and is built otherwise"
)


def _cause(stored: Surrogate, again: Surrogate) -> str:
    """Why answers may differ where nothing else does: what is learned in steps jumps with the last bits of its columns.

    Empty where the same model was learned again, or its columns are not those of the record.
    """
    before, now = stored.head.arrays(), again.head.arrays()
    same = before.keys() == now.keys() and all(np.array_equal(before[name], now[name]) for name in before)
    if same or stored.X.shape != again.X.shape:
        return ""
    difference = float(np.abs(stored.X - again.X).max() / max(float(np.abs(stored.X).max()), 1e-12))
    return RELEARNED.format(stored.into, difference)


def opened(artefact: storage.Artefact) -> Distilled:
    """A stored readable model as it was; its network is opened when a picture is to be looked at."""
    return Distilled.of(surrogate(artefact))


REQUESTS[FORMAT] = Maker(DistillRequest, requested, opened, recompute)
