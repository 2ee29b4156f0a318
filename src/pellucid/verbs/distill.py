"""`distill`: a model that a person can read, learned from a teacher or from labelled pictures, with its card."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pellucid import storage
from pellucid.concepts import DICTIONARIES
from pellucid.errors import DataError, LayerError, MethodError, StorageError
from pellucid.interpretable import small_cnn
from pellucid.interpretable.base import Readable
from pellucid.interpretable.distilled import FORMAT, Surrogate, surrogate
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.learn import KINDS, Split, find_concepts, find_parts, learn, split
from pellucid.interpretable.numerics import Array, softmax
from pellucid.interpretable.words import Attributes, ChannelWords, ConceptWords, PropertyWords, Words
from pellucid.media import address
from pellucid.media.attributes import read_attributes
from pellucid.media.folders import PictureSet, read_folder
from pellucid.models.features import Features, extract
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout
from pellucid.models.model import VisionModel
from pellucid.models.reading import IN_DOUBT, Reading, exclusive
from pellucid.models.sources import load
from pellucid.progress import task
from pellucid.results.distilled import Distilled
from pellucid.verbs.inputs import Input, ModelLike, as_model
from pellucid.verbs.records import opening, parameters, record, reopened
from pellucid.verbs.request import REQUESTS, Again, Maker, Request

CONCEPTS = ("auto", "none", "attributes", "properties", *(name for name in DICTIONARIES if name != "random"))
_UNSURE = (
    "For {} of {} pictures the teacher finds two labels likely that share the softmax between them: if they do not "
    "exclude each other, say pl.wrap(module, scores='sigmoid'), else scores='softmax'."
)
_COUNT, _PARTS, _CHANCE = 40, 3, 40  # concepts, patches a class, and random concepts of the baseline


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
    setting = _Setting.of(found, features, taught, base, first, seed)
    chosen = KINDS[into].words if concepts == "auto" else concepts
    words, X = _words(into, chosen, count, base, features, setting, seed)
    head = _own_hierarchy(into, base if base is taught else None, words, X, features, setting)
    chance, chance_rows = _chance(words, features, setting, seed)
    learned = learn(
        into,
        words,
        X,
        setting.answers,
        setting.labels,
        setting.at,
        limit=limit,
        head=head,
        chance=chance,
        chance_rows=chance_rows,
        truth=setting.truth,
        taught=taught is not None,
        seed=seed,
    )
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
        words=words,
        card=learned.card,
        front=learned.front,
        labels=setting.labels,
        layer=features.layer,
        layout=_layout(base, found, features.layer),
        record=record(base, features.weights, source, "distill", settings, None, run),
        preprocess=base.preprocess.as_dict(),
        X=X,
        answers=setting.answers,
        truth=setting.truth if setting.truth is not None else np.zeros(0, np.int64),
        held=setting.at.test,
        sources=[address(found.sources[i]) for i in setting.kept],
        taught=taught is not None,
        trained=network if base is taught else {},
        notes=setting.notes,
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


@dataclass(frozen=True)
class _Setting:
    """What is learned, from which pictures.

    Attributes:
        kept: numbers of the pictures.
        answers: `(N, K)`; labels: names of the K classes; truth: `(N,)` or None.
        at: the split, as numbers among `kept`.
        notes: what was left out, and why.
    """

    kept: NDArray[np.int64]
    answers: Array
    labels: list[str]
    truth: NDArray[np.int64] | None
    at: Split
    notes: list[str]

    @classmethod
    def of(
        cls,
        pictures: PictureSet,
        features: Features,
        teacher: VisionModel | None,
        base: VisionModel,
        first: Split | None,
        seed: int,
    ) -> _Setting:
        everything, labels = np.arange(len(pictures)), pictures.labels
        if teacher is None:
            answers = np.eye(len(pictures.classes))[labels]
            assert first is not None
            return cls(everything, answers, list(pictures.classes), labels, first, [])
        outputs = _outputs(teacher, pictures, features, base)
        teacher, notes = _as_read(teacher, pictures, outputs)
        scores = _scores(teacher.reading, outputs)
        top = scores.argmax(1)
        counts = np.bincount(top, minlength=scores.shape[1])
        classes = np.flatnonzero(counts >= 4)
        if len(classes) < 2:
            raise DataError(
                f"The teacher gives fewer than two answers to 4 or more of the {len(pictures)} pictures, so there is "
                "nothing to learn from: give more pictures, of more of its classes."
            )
        kept = np.flatnonzero(np.isin(top, classes))
        if len(kept) < len(pictures):
            left = len(pictures) - len(kept)
            notes.append(
                f"{left} picture{'s' * (left > 1)} left out: the teacher's answer there is given to fewer than 4."
            )
        names = [teacher.label(int(c)) for c in classes]
        codes = np.searchsorted(classes, top[kept])
        truth = None
        if len(labels):
            known = {name.casefold(): i for i, name in enumerate(names)}
            mapped = np.array([known.get(c.casefold(), -1) for c in pictures.classes], np.int64)
            every = {teacher.label(i).casefold() for i in range(scores.shape[1])}
            if all(c.casefold() in every for c in pictures.classes):
                truth = mapped[labels[kept]]
            else:
                odd = next(c for c in pictures.classes if c.casefold() not in every)
                notes.append(
                    f"The folder's class {odd!r} is none of the teacher's labels, so accuracy on the truth is not "
                    "measured: name the folders as the teacher names its classes."
                )
        same = first is not None and len(kept) == len(pictures)
        at = first if same and first is not None else split(codes, np.array(names), seed)
        return cls(kept, _shares(teacher, scores, kept, classes), names, truth, at, notes)


def _as_read(teacher: VisionModel, pictures: PictureSet, outputs: Array) -> tuple[VisionModel, list[str]]:
    """The teacher with its reading recognised, and what that leaves open.

    Raises:
        DataError: it does not choose among classes.
    """
    x, _ = teacher.pictures(pictures.read(0))
    x = x[None].to(teacher.device, teacher.dtype)
    output = teacher.outputs(x)
    reading = teacher.settled(x, output).reading
    if reading.doubt == IN_DOUBT.doubt:  # of one picture, which does not speak for all
        reading = replace(reading, scores="softmax", doubt=False)
    if reading.scores == "none" or (reading.scores == "sigmoid" and outputs.shape[1] > 1):
        raise DataError(
            f"The teacher {teacher.name!r} does not choose among classes (its scores are read as {reading.scores!r}), "
            f"so there are no answers to learn: take a classifier. {' '.join(reading.notes)}".rstrip()
        )
    unsure = sum(teacher.doubts(torch.from_numpy(outputs), len(outputs))) if isinstance(output, Tensor) else 0
    notes = [_UNSURE.format(unsure, len(outputs))] if unsure else []
    return replace(teacher, reading=reading), notes


def _shares(teacher: VisionModel, scores: Array, kept: NDArray[np.int64], classes: NDArray[np.int64]) -> Array:
    """The teacher's probabilities of those classes among themselves, on the pictures that are kept."""
    answers = scores[kept][:, classes]
    if teacher.reading.scores == "probabilities" or exclusive(torch.from_numpy(scores)):
        return np.asarray(answers / np.maximum(answers.sum(1, keepdims=True), np.finfo(answers.dtype).tiny))
    return softmax(answers)


def _outputs(teacher: VisionModel, pictures: PictureSet, features: Features, base: VisionModel) -> Array:
    """The teacher's scores `(N, columns)` on all pictures."""
    outputs = features.outputs if teacher is base else extract(teacher, pictures, pool="mean").outputs
    if outputs.shape[1] < 1:
        raise DataError(f"The teacher {teacher.name!r} answers no class scores: take a classifier.")
    return np.asarray(outputs, np.float64)


def _scores(reading: Reading, outputs: Array) -> Array:
    """Scores `(N, classes)`; of one column, of the two classes that it decides between."""
    if outputs.shape[1] > 1:
        return outputs
    if reading.scores == "probabilities":
        return np.concatenate([1 - outputs, outputs], 1)
    return np.concatenate([-outputs / 2, outputs / 2], 1)


def _words(
    into: str, concepts: str, count: int | None, base: VisionModel, features: Features, setting: _Setting, seed: int
) -> tuple[Words, Array]:
    """The words, found on training pictures alone, and their values on all."""
    values, train = features.values, setting.kept[setting.at.train]
    words: Words
    if concepts == "properties":
        words = PropertyWords(base.preprocess.channels)
        return words, _of_pictures(words, base, features, setting.kept)
    if concepts == "parts":
        codes = setting.answers[setting.at.train].argmax(1)
        words = find_parts(values, train, codes, setting.labels, count or _PARTS, seed)
        words.where[:, 0] = np.searchsorted(setting.kept, words.where[:, 0])
    elif concepts == "none":
        words = ChannelWords([f"{features.layer}[{c}]" for c in range(features.channels)])
    elif concepts == "attributes":
        names, table = read_attributes(features.pictures)
        pooled = ChannelWords([]).rows(values, train)
        words = Attributes.fit(pooled, table[train], names)
    else:
        by = ("nmf" if float(values.min()) >= 0 else "semi-nmf") if concepts == "concepts" else concepts
        words = ConceptWords(find_concepts(values, train, by, count or _COUNT, seed), pool=KINDS[into].pool)
    return words, words.rows(values, setting.kept)


def _of_pictures(words: Words, base: VisionModel, features: Features, which: NDArray[np.int64]) -> Array:
    """Words about the pictures themselves, one after the other."""
    rows = []
    with task("properties", len(which)) as advance, torch.no_grad():
        for i in which:
            x, _ = base.pictures(features.pictures.read(int(i)))
            rows.append(words(base.preprocess.display(x)[None]))
            advance(1)
    return torch.cat(rows).double().numpy()


def _own_hierarchy(
    into: str, teacher: VisionModel | None, words: Words, X: Array, features: Features, setting: _Setting
) -> Readable | None:
    """The hierarchy of the teacher's own last layer, if that is what it makes of the pooled channels; else None."""
    if into != "hierarchy" or teacher is None or not isinstance(words, ChannelWords):
        return None
    linear = [m for m in teacher.module.modules() if isinstance(m, nn.Linear)]
    classes = features.outputs.shape[1]
    last = linear[-1] if linear else None
    if last is None or last.weight.shape != (classes, X.shape[1]):
        return None
    weights = last.weight.detach().double().numpy()
    intercept = np.zeros(classes) if last.bias is None else last.bias.detach().double().numpy()
    outputs = np.asarray(features.outputs[setting.kept], np.float64)
    if not np.allclose(X @ weights.T + intercept, outputs, rtol=1e-3, atol=1e-3 * float(np.abs(outputs).max())):
        return None
    columns = [i for name in setting.labels for i in range(classes) if teacher.label(i) == name]
    model = Hierarchy.of(weights[columns], intercept[columns], setting.labels)
    model.names_ = list(words.names)
    return model


def _chance(words: Words, features: Features, setting: _Setting, seed: int) -> tuple[Words, Array]:
    """As many random directions of the layer as there are words: what any words must beat."""
    train = setting.kept[setting.at.train]
    count = min(len(words.names), features.channels, _CHANCE)
    pool = words.pool if isinstance(words, ConceptWords) else "mean"
    random = ConceptWords(find_concepts(features.values, train, "random", count, seed + 1), pool=pool)
    return random, random.rows(features.values, setting.kept)


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
                f"The model {about.model['name']!r} was wrapped: give it with pl.verify(..., model=...)."
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
