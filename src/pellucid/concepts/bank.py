"""Find the concepts of a layer in a folder of pictures, and measure them beside random ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.concepts.dictionary import Array, Dictionary, get_dictionary
from pellucid.concepts.effect import Effect, effect
from pellucid.concepts.factorise import Random
from pellucid.concepts.matching import stability
from pellucid.concepts.quality import Reconstruction, monosemanticity
from pellucid.errors import DataError
from pellucid.media import Geometry, Origin
from pellucid.models.features import Features
from pellucid.models.model import VisionModel
from pellucid.numerics.statistics import row_mean
from pellucid.progress import task

EXEMPLARS = 12  # pictures kept of each concept
_WEAK = 0.25  # of a concept's strongest response: weaker ones show nothing
_GROUP = 3  # pictures a group needs for an answer of its own
_CHUNK = 64  # pictures encoded at a time


@dataclass
class BankScores:
    """How a dictionary does, in figures that its random counterpart has too.

    Attributes:
        r2: share of the activations' variance that is explained.
        relative_error: `||A - A^|| / ||A||`.
        concepts_a_place: how many concepts are there at a place (L0).
        dead: share of the concepts that are nowhere.
        agreement: share of the pictures whose answer stays when only the concepts are kept; NaN without class scores.
        score_r2: share of the class scores' variance that stays.
        accuracy: share answered rightly from the concepts alone; NaN where the truth is not known.
        monosemanticity: median over the concepts.
    """

    r2: float
    relative_error: float
    concepts_a_place: float
    dead: float
    agreement: float = float("nan")
    score_r2: float = float("nan")
    accuracy: float = float("nan")
    monosemanticity: float = float("nan")


@dataclass
class Group:
    """How much each concept adds to the answer in one group of pictures: mean `(K,)` with its 95 % interval."""

    name: str
    count: int
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass
class Showcase:
    """A picture in which some concept is strongest: how to open it, where the model looked, what it said."""

    origin: Origin
    geometry: Geometry
    answer: str


@dataclass
class Bank:
    """The concepts of one layer, found in many pictures, and what was measured of them.

    Attributes:
        dictionary: the directions.
        layer: module path; `layout`: how it reads.
        exemplars: `(K, M)` pictures in which each concept is strongest, the strongest first; -1 where there are fewer.
        cells: `(K, M)` where in the grid it is.
        peaks: `(K, M)` how strong.
        maps: `(K, M, *grid)` how much of the concept there is at each place of these pictures.
        shown: those pictures, by number.
        prevalence: `(K,)` share of the pictures where the concept reaches a quarter of its strongest response.
        whole: importance over all pictures looked at; None without class scores.
        groups: importance for each class.
        monosemanticity: `(K,)`; `stability`: `(K,)`, empty where it was not measured.
        standing: of these concepts; `random`: of as many random directions; `untouched`: the model's own accuracy.
        names: what each is called, empty where nothing is known; `named_by`: how sure, in words.
        grid: cells along each axis.
        count: pictures; `looked`: those on which importance was measured.
        notes: what a reader must know.
        forwards, backwards: passes spent.
    """

    dictionary: Dictionary
    layer: str
    layout: str
    exemplars: NDArray[np.int64]
    cells: NDArray[np.int64]
    peaks: Array
    maps: Array
    shown: dict[int, Showcase]
    prevalence: NDArray[np.float64]
    whole: Group | None
    groups: list[Group]
    monosemanticity: NDArray[np.float64]
    stability: Array
    standing: BankScores
    random: BankScores
    untouched: float
    names: list[str]
    named_by: list[str]
    grid: tuple[int, ...]
    count: int
    looked: int = 0
    notes: list[str] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0

    def __len__(self) -> int:
        """How many concepts."""
        return len(self.dictionary.components_)

    def ranking(self) -> list[int]:
        """Concepts by importance, the largest first; without class scores by prevalence."""
        order = -np.abs(self.whole.values) if self.whole is not None else -self.prevalence
        return [int(k) for k in np.argsort(order, kind="stable")]

    def called(self, concept: int) -> str:
        """`concept 7`, with its name where one is known."""
        return f"concept {concept}" + (f": {self.names[concept]}" if self.names[concept] else "")


def find(
    model: VisionModel,
    features: Features,
    by: str | Dictionary = "auto",
    *,
    count: int | None = None,
    seed: int = 0,
    tokens: int = 50_000,
    limit: int = 200,
    stable: bool = True,
    **settings: Any,
) -> Bank:
    """Find concepts in the activations of a layer, and measure them.

    Costs the fit; then on at most `limit` pictures 3 forwards and the tail's backward; with `stable` two more fits on
    half of the data.

    Args:
        model: the model.
        features: of the layer, from `extract(..., pool=None)`.
        by: a dictionary's name, or one of your own; `auto`: nmf where activations are >= 0, else semi-nmf.
        count: number of concepts; None: 25 (a sparse autoencoder: twice the channels).
        seed: of whatever is random.
        tokens: places the dictionary is fitted to, drawn at random where there are more.
        limit: pictures on which the effect on the answer is measured.
        stable: whether to measure stability.
        settings: further parameters of the dictionary.
    """
    fitted, sample = _fitted(features, by, count, seed, tokens, settings)
    random = Random(len(fitted.components_), seed).fit(sample)
    seen = _encoded(features, fitted, random)
    does = _effect(model, features, fitted, random, limit, seed)
    truth = _truth(model, features, does)
    embeddings = _embeddings(features)
    ours, theirs = monosemanticity(embeddings, seen.peaks), monosemanticity(embeddings, seen.random_peaks)
    whole, groups = _groups(model, features, does, seed)
    return Bank(
        dictionary=fitted,
        layer=features.layer,
        layout=features.layout,
        **_exemplars(model, features, fitted, seen),
        whole=whole,
        groups=groups,
        monosemanticity=ours,
        stability=stability(fitted, sample) if stable else np.zeros(0, np.float32),
        standing=_standing(seen.kept, does, "concepts", truth, ours),
        random=_standing(seen.kept_by_random, does, "random", truth, theirs),
        untouched=does.accuracy(truth) if does is not None and truth is not None else float("nan"),
        names=[""] * len(fitted.components_),
        named_by=[""] * len(fitted.components_),
        grid=features.grid,
        count=len(features),
        looked=len(does.pictures) if does is not None else 0,
        notes=_notes(features, fitted, sample, does),
        forwards=features.cost.forwards + (does.cost.forwards if does is not None else 0),
        backwards=does.cost.backwards if does is not None else 0,
    )


def _fitted(
    features: Features, by: str | Dictionary, count: int | None, seed: int, tokens: int, settings: dict[str, Any]
) -> tuple[Dictionary, Array]:
    if features.pool is not None:
        raise DataError("Concepts are looked for at each place: extract the features with pool=None.")
    sample = some_tokens(features, tokens, seed)
    if by == "auto":
        by = "nmf" if sample.min() >= 0 else "semi-nmf"
    if isinstance(by, str):
        wanted = count if count is not None else 2 * features.channels if "sae" in by else 25
        by = get_dictionary(by, count=wanted, seed=seed, **settings)
    try:
        return by.fit(sample), sample
    except DataError as error:
        raise DataError(f"Layer {features.layer!r} on {features.pictures.name}: {error}") from error


def some_tokens(features: Features, limit: int, seed: int) -> Array:
    """At most `limit` rows of `features.tokens()`, drawn at random, in order."""
    tokens = features.tokens()
    if len(tokens) <= limit:
        return np.array(tokens)
    chosen = np.random.default_rng(seed).choice(len(tokens), limit, replace=False)
    return np.array(tokens[np.sort(chosen)])


@dataclass
class _Seen:
    """What is kept of the codes of all pictures: one number a picture and concept."""

    peaks: Array  # (N, K)
    cells: NDArray[np.int64]
    random_peaks: Array
    kept: Reconstruction
    kept_by_random: Reconstruction


def _encoded(features: Features, dictionary: Dictionary, random: Dictionary) -> _Seen:
    """All pictures' codes, chunk by chunk; of each only its peak is kept, so memory does not grow with places."""
    kept, by_random = Reconstruction(), Reconstruction()
    peaks, cells, random_peaks = [], [], []
    with task("codes", len(features)) as advance:
        for start in range(0, len(features), _CHUNK):
            values = np.array(features.values[start : start + _CHUNK])
            A = values.reshape(-1, features.channels)
            U, R = dictionary.encode(A), random.encode(A)
            kept.add(A, U, dictionary.decode(U))
            by_random.add(A, R, random.decode(R))
            places = U.reshape(len(values), -1, U.shape[1])
            peaks.append(places.max(1))
            cells.append(places.argmax(1))
            random_peaks.append(R.reshape(len(values), -1, R.shape[1]).max(1))
            advance(len(values))
    return _Seen(np.concatenate(peaks), np.concatenate(cells), np.concatenate(random_peaks), kept, by_random)


def _exemplars(model: VisionModel, features: Features, dictionary: Dictionary, seen: _Seen) -> dict[str, Any]:
    """The pictures in which each concept is strongest; weak ones are left out."""
    count = min(EXEMPLARS, len(seen.peaks))
    order = np.argsort(-seen.peaks, axis=0, kind="stable")[:count].T  # (K, M)
    strength = np.take_along_axis(seen.peaks.T, order, 1)
    weak = strength < np.maximum(_WEAK * strength[:, :1], 1e-12)
    chosen = np.where(weak, -1, order)
    maps = np.zeros((*chosen.shape, *features.grid), np.float32)
    shown = {}
    for i in np.unique(chosen[chosen >= 0]).tolist():
        codes = dictionary.encode(np.array(features.values[i]).reshape(-1, features.channels))
        for k, m in np.argwhere(chosen == i):
            maps[k, m] = codes[:, k].reshape(features.grid)
        shown[i] = _shown(model, features, i)
    return {
        "exemplars": chosen,
        "cells": np.where(weak, -1, np.take_along_axis(seen.cells.T, order, 1)),
        "peaks": np.where(weak, 0, strength).astype(np.float32),
        "maps": maps,
        "shown": shown,
        "prevalence": (seen.peaks >= np.maximum(_WEAK * seen.peaks.max(0), 1e-12)).mean(0),
    }


def _shown(model: VisionModel, features: Features, index: int) -> Showcase:
    scores = features.outputs[index]
    answer = model.label(int(scores.argmax())) if len(scores) > 1 else ""
    return Showcase(features.pictures.origin(index), features.geometries[index], answer)


def _effect(
    model: VisionModel, features: Features, dictionary: Dictionary, random: Dictionary, limit: int, seed: int
) -> Effect | None:
    if features.outputs.shape[1] < 2:
        return None
    others = {"random": random}
    return effect(model, features.pictures, features.layer, dictionary, others, limit=limit, seed=seed)


def _truth(model: VisionModel, features: Features, does: Effect | None) -> NDArray[np.int64] | None:
    """The true class of the pictures looked at, as the model numbers them; None where the names do not tell."""
    names = features.pictures.classes
    if does is None or not len(features.labels):
        return None
    known = {label.casefold(): i for i, label in enumerate(model.labels or ())}
    numbers = [known.get(name.casefold().replace("_", " "), known.get(name.casefold(), -1)) for name in names]
    if -1 in numbers and all(name.isdecimal() and int(name) < features.outputs.shape[1] for name in names):
        numbers = [int(name) for name in names]
    return None if -1 in numbers else np.array(numbers)[features.labels[does.pictures]]


def _embeddings(features: Features) -> NDArray[np.float64]:
    """One vector a picture, for how alike pictures are: what the model says of it, beside what it says on average."""
    values = features.outputs if features.outputs.shape[1] > 1 else features.values.reshape(len(features), -1)
    centred: NDArray[np.float64] = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    return centred


def _groups(model: VisionModel, features: Features, does: Effect | None, seed: int) -> tuple[Group | None, list[Group]]:
    """Importance overall, and for each class: that of the folder where it has classes, else the model's answer."""
    if does is None:
        return None, []
    labelled = len(features.labels) > 0
    key = features.labels[does.pictures] if labelled else does.answers
    groups = []
    for number in np.unique(key):
        rows = does.importance[key == number]
        if len(rows) >= _GROUP:
            name = features.pictures.classes[number] if labelled else model.label(int(number))
            groups.append(Group(name, len(rows), *row_mean(rows)))
    return Group("all", len(does.importance), *row_mean(does.importance)), groups


def _standing(
    kept: Reconstruction,
    does: Effect | None,
    name: str,
    truth: NDArray[np.int64] | None,
    alike: NDArray[np.float64],
) -> BankScores:
    found = BankScores(kept.r2, kept.relative_error, kept.concepts_a_place, kept.dead)
    if np.isfinite(alike).any():
        found.monosemanticity = float(np.nanmedian(alike))
    if does is not None:
        found.agreement, found.score_r2 = does.agreement(name), does.r2(name)
        found.accuracy = does.accuracy(truth, name) if truth is not None else found.accuracy
    return found


def _notes(features: Features, dictionary: Dictionary, sample: Array, does: Effect | None) -> list[str]:
    notes = []
    found, asked = len(dictionary.components_), dictionary.count
    if found < asked:
        notes.append(f"Only {found} of {asked} concepts: there are no more directions in the data.")
    flat = int((np.ptp(sample, axis=0) == 0).sum())
    if flat:
        notes.append(f"{flat} of {features.channels} channels never vary, and say nothing.")
    if len(features) < 5 * found:
        notes.append(
            f"{found} concepts from {len(features)} pictures: give more pictures, or ask for fewer concepts; what is "
            "in one picture alone passes for a concept."
        )
    if does is None:
        notes.append("The model gives no class scores, so nothing is known of what the concepts do.")
    return notes
