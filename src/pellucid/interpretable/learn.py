"""From features to a readable model with its card: words, complexity, fidelity, and what knows nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from pellucid.concepts import Dictionary, get_dictionary
from pellucid.errors import DataError
from pellucid.interpretable.additive import Additive
from pellucid.interpretable.base import Readable
from pellucid.interpretable.bcos import BcosHead
from pellucid.interpretable.examples import Neighbours, Prototypes
from pellucid.interpretable.fidelity import Fidelity, measure
from pellucid.interpretable.frontier import Point, choose
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.numerics import Array, softmax
from pellucid.interpretable.rules import Rules
from pellucid.interpretable.tree import Tree
from pellucid.interpretable.words import Parts, Pool, Words
from pellucid.progress import task

_HELD_OUT, _RESAMPLES = 0.3, 5
_TOKENS, _PICTURES = 20_000, 200  # places that concepts are found in; pictures of a class that parts are
_LEAST = 4  # pictures of a class: fewer cannot be split into training, folds and held-out


@dataclass(frozen=True)
class Kind:
    """A kind of readable model on the command line.

    Attributes:
        about: one line for people.
        make: `(limit or None, seed)` -> the model at its most complex.
        words: the words it takes where none are named: `concepts`, `none` or `parts`.
        limit: what the limit is called: `depth`, `features`; empty where there is none.
        pool: how a concept's places become one number: `max` (it is there), `mean` (how much there is).
    """

    about: str
    make: Callable[[int | None, int], Readable]
    words: str
    limit: str = ""
    pool: Pool = "mean"


KINDS: dict[str, Kind] = {
    "tree": Kind(
        "questions about single words, asked one after the other",
        lambda n, s: Tree(n or 6, seed=s),
        "concepts",
        "depth",
        "max",
    ),
    "linear": Kind("a few weights a class, which add up", lambda n, s: SparseLinear(n), "none", "features"),
    "additive": Kind(
        "a curve a word, which add up (extra gam)", lambda n, s: Additive(n or 12, seed=s), "concepts", "features"
    ),
    "rules": Kind("the first rule that fits answers", lambda n, s: Rules(n or 12), "concepts", "features", "max"),
    "prototypes": Kind(
        "looks like these real patches", lambda n, s: SparseLinear(n, positive=True), "parts", "features"
    ),
    "nearest": Kind("like one of a few real pictures", lambda n, s: Prototypes(n or 5, s), "none", "features"),
    "neighbours": Kind("like the nearest of all pictures", lambda n, s: Neighbours(n or 5), "none", "features"),
    "bottleneck": Kind(
        "concepts first, then a few weights a class; concepts can be set by hand",
        lambda n, s: SparseLinear(n),
        "concepts",
        "features",
    ),
    "hierarchy": Kind("from large groups of classes to one, top-down", lambda n, s: Hierarchy(), "none"),
    "bcos": Kind(
        "a small network whose answer is an exact sum", lambda n, s: BcosHead(n or 64, seed=s), "none", "features"
    ),
}


@dataclass(frozen=True)
class Split:
    """Which pictures were learned from, and which were held out."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass
class Learned:
    """A readable model, its words, its card, and the front it was chosen from."""

    head: Readable
    words: Words
    card: Fidelity
    front: list[Point]
    split: Split


def split(codes: NDArray[np.int64], names: NDArray[Any], seed: int) -> Split:
    """Seven tenths to learn from, three held out, of each class alike.

    Raises:
        DataError: one class only, or a class with too few pictures.
    """
    found, counts = np.unique(codes, return_counts=True)
    if len(found) < 2:
        raise DataError(
            f"All pictures are of one class ({names[found[0]]}), so there is nothing to tell apart: add pictures of "
            "another, or name a teacher that tells them apart."
        )
    if counts.min() < _LEAST:
        few, left = names[found[counts.argmin()]], int(counts.min())
        raise DataError(
            f"The class {few} has {left} picture{'s' * (left > 1)}, and {_LEAST} are needed to learn, choose and "
            "check: add some, or leave the class out."
        )
    test = max(round(_HELD_OUT * len(codes)), len(found))
    train, held = train_test_split(np.arange(len(codes)), test_size=test, stratify=codes, random_state=seed)
    return Split(np.sort(train), np.sort(held))


def find_concepts(values: NDArray[Any], rows: NDArray[np.int64], by: str, count: int, seed: int) -> Dictionary:
    """A dictionary of the places of some of the pictures `(N, *grid, C)`; of 20,000 places if there are more."""
    cells = int(np.prod(values.shape[1:-1], dtype=int))
    generator = np.random.default_rng(seed)
    total = len(rows) * cells
    chosen = np.sort(generator.choice(total, min(total, _TOKENS), replace=False))
    tokens = values.reshape(len(values), cells, -1)[rows[chosen // cells], chosen % cells]
    return get_dictionary(by, count=min(count, max(1, len(tokens) // 2)), seed=seed).fit(np.array(tokens))


def find_parts(
    values: NDArray[Any],
    rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    labels: Sequence[str],
    per_class: int,
    seed: int,
) -> Parts:
    """Real patches, a few a class: those nearest to the centres of k-means over the directions of its places.

    Args:
        values: `(N, *grid, C)`.
        rows: which pictures may be looked at; at most 200 of a class are.
        codes: the class of each of these.
        labels: names of the classes.
        per_class: patches of a class.
        seed: of the start.
    """
    from sklearn.cluster import KMeans

    cells = int(np.prod(values.shape[1:-1], dtype=int))
    patches: list[Array] = []
    where: list[tuple[int, int]] = []
    names: list[str] = []
    with task("parts", len(labels)) as advance:
        for k, label in enumerate(labels):
            mine = rows[codes == k][:_PICTURES]
            places = np.array(values[mine], np.float32).reshape(-1, values.shape[-1])
            length = np.linalg.norm(places, axis=1)
            keep = np.flatnonzero(length > 0)
            if len(keep):
                unit = places[keep] / length[keep, None]
                count = min(per_class, len(np.unique(unit, axis=0)))
                fitted = KMeans(count, n_init=1, random_state=seed).fit(unit)
                for i in dict.fromkeys(fitted.transform(unit).argmin(0).tolist()):
                    picture, cell = divmod(int(keep[i]), cells)
                    patches.append(places[keep[i]])
                    where.append((int(mine[picture]), cell))
                    names.append(f"{label} part {sum(n.startswith(f'{label} part ') for n in names) + 1}")
            advance(1)
    if not patches:
        raise DataError("The layer is zero at every place, so there are no parts: choose another layer.")
    return Parts(np.stack(patches), np.array(where), names)


def learn(
    kind: str,
    words: Words,
    X: Array,
    answers: Array,
    labels: list[str],
    at: Split,
    *,
    limit: int | None = None,
    head: Readable | None = None,
    chance: Words | None = None,
    chance_rows: Array | None = None,
    truth: NDArray[np.int64] | None = None,
    taught: bool = True,
    seed: int = 0,
) -> Learned:
    """Fit, choose the complexity on the front, and measure.

    Args:
        kind: of `KINDS`.
        words: the columns of `X`.
        X: `(N, d)` of all pictures.
        answers: `(N, K)` the teacher's probabilities, or the truth as certain answers.
        labels: names of the K classes.
        at: which rows are learned from.
        limit: the most complexity allowed; it is then not chosen by cross-validation.
        head: a model that is given, not learned (a hierarchy of the teacher's own weights).
        chance, chance_rows: a random-concept bank and its columns `(N, r)`, as a baseline.
        truth: `(N,)`, see `fidelity.measure`.
        taught: whether `answers` come from a teacher.
        seed: of folds, bootstrap and random starts.
    """
    train, test = at.train, at.test
    if not np.ptp(X[train], axis=0).any():
        raise DataError("All words have the same value in every picture: choose another layer or other --concepts.")
    known = np.array(labels)
    front: list[Point] = []
    if head is None:
        made = KINDS[kind].make(limit, seed)
        made = _fit(made, X[train], answers[train], known, words.names)
        head, front = choose(made, X[train], answers[train], seed)
        if limit is not None and kind in ("tree", "linear", "prototypes", "bottleneck"):
            head = made  # as asked for; the front still shows what less would do
            front = [replace(p, chosen=p.complexity == made.complexity_) for p in front]
    card = measure(
        softmax(head._scores(X[test])),
        answers[test],
        complexity=head.complexity_,
        unit=head.unit,
        truth=None if truth is None else truth[test],
        taught=taught,
        seed=seed,
    )
    card.stability = _stability(head, X, answers, at, seed)
    best = answers.argmax(1)
    most = np.bincount(best[train], minlength=answers.shape[1]).argmax()
    nothing = np.tile(np.eye(answers.shape[1])[most], (len(test), 1))
    card.baselines["majority class"] = _agreement(nothing, answers[test], seed)
    if chance is not None and chance_rows is not None:
        rival = _fit(type(head)(**head.get_params()), chance_rows[train], answers[train], known, chance.names)
        card.baselines["random concepts"] = _agreement(softmax(rival._scores(chance_rows[test])), answers[test], seed)
    card.notes += _notes(card)
    card.wrong = [int(test[i]) for i in card.wrong]
    return Learned(head, words, card, front, at)


def _fit(model: Readable, X: Array, answers: Array, labels: NDArray[Any], names: list[str]) -> Readable:
    """Fit to soft answers, whether or not each class is somebody's top class."""
    model.classes_, model.names_, model.n_features_in_ = labels, list(names), X.shape[1]
    model._learn(X, answers)
    return model


def _agreement(student: Array, teacher: Array, seed: int) -> Any:
    return measure(student, teacher, complexity=0, unit="", seed=seed).agreement


def _stability(head: Readable, X: Array, answers: Array, at: Split, seed: int) -> float:
    """Mean agreement on the held-out rows with models fitted to resampled training rows."""
    here = head._scores(X[at.test]).argmax(1)
    generator = np.random.default_rng(seed)
    shares = []
    with task("stability", _RESAMPLES) as advance:
        for _ in range(_RESAMPLES):
            rows = generator.choice(at.train, len(at.train))
            twin = _fit(type(head)(**head.get_params()), X[rows], answers[rows], head.classes_, head.names_)
            shares.append(float((twin._scores(X[at.test]).argmax(1) == here).mean()))
            advance(1)
    return float(np.mean(shares))


def _notes(card: Fidelity) -> list[str]:
    notes = []
    rival = card.baselines.get("random concepts")
    if rival is not None and rival.value >= card.agreement.value - 0.02:
        notes.append("Random concepts do as well: what these words mean is not what makes it work.")
    if card.agreement.low <= card.baselines["majority class"].value:
        notes.append("It is no better than always saying the most frequent class: don't read it.")
    if card.count < 30:
        notes.append(f"Only {card.count} pictures were held out, so the intervals are wide: give more pictures.")
    return notes


__all__ = [
    "KINDS",
    "Kind",
    "Learned",
    "Split",
    "find_concepts",
    "find_parts",
    "learn",
    "split",
]
