"""From columns to a readable model with its card: complexity, fidelity, and what knows nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.interpretable.additive import Additive
from pellucid.interpretable.base import Readable
from pellucid.interpretable.bcos import BcosHead
from pellucid.interpretable.columns import WordColumns, find_concepts, find_parts
from pellucid.interpretable.examples import Neighbours, Prototypes
from pellucid.interpretable.fidelity import Fidelity, measure
from pellucid.interpretable.frontier import Point, choose
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.lesson import Lesson, Split, split
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.numerics import Array, softmax
from pellucid.interpretable.rules import Rules
from pellucid.interpretable.tree import Tree
from pellucid.interpretable.words import Pool, Words
from pellucid.progress import task

_RESAMPLES = 5  # of the training pictures, for how stable a model is


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


@dataclass
class Learned:
    """A readable model, its words, its card, and the front it was chosen from."""

    head: Readable
    words: Words
    card: Fidelity
    front: list[Point]
    split: Split


def learn(
    kind: str,
    columns: WordColumns,
    lesson: Lesson,
    *,
    limit: int | None = None,
    head: Readable | None = None,
    chance: WordColumns | None = None,
    seed: int = 0,
) -> Learned:
    """Fit, choose the complexity on the front, and measure.

    Args:
        kind: of `KINDS`.
        columns: what is known of each picture.
        lesson: what is answered to each, and which are learned from.
        limit: the most complexity allowed; it is then not chosen by cross-validation.
        head: a model that is given, not learned (a hierarchy of the teacher's own weights).
        chance: columns of random concepts, as a baseline.
        seed: of folds, bootstrap and random starts.

    Raises:
        DataError: the columns tell no two training pictures apart.
    """
    X, answers, at = columns.X, lesson.answers, lesson.at
    train, test = at.train, at.test
    if not np.ptp(X[train], axis=0).any():
        raise DataError("All words have the same value in every picture: choose another layer or other --concepts.")
    known = np.array(lesson.labels)
    front: list[Point] = []
    if head is None:
        made = KINDS[kind].make(limit, seed)
        made = _fit(made, X[train], answers[train], known, columns.words.names)
        head, front = choose(made, X[train], answers[train], seed)
        if limit is not None and kind in ("tree", "linear", "prototypes", "bottleneck"):
            head = made  # as asked for; the front still shows what less would do
            front = [replace(p, chosen=p.complexity == made.complexity_) for p in front]
    card = measure(
        softmax(head._scores(X[test])),
        answers[test],
        complexity=head.complexity_,
        unit=head.unit,
        truth=None if lesson.truth is None else lesson.truth[test],
        taught=lesson.taught,
        seed=seed,
    )
    card.stability = _stability(head, X, answers, at, seed)
    best = answers.argmax(1)
    most = np.bincount(best[train], minlength=answers.shape[1]).argmax()
    nothing = np.tile(np.eye(answers.shape[1])[most], (len(test), 1))
    card.baselines["majority class"] = _agreement(nothing, answers[test], seed)
    if chance is not None:
        rival = type(head)(**head.get_params())
        rival = _fit(rival, chance.X[train], answers[train], known, chance.words.names)
        card.baselines["random concepts"] = _agreement(softmax(rival._scores(chance.X[test])), answers[test], seed)
    card.notes += _notes(card)
    card.wrong = [int(test[i]) for i in card.wrong]
    return Learned(head, columns.words, card, front, at)


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
    "Lesson",
    "Split",
    "WordColumns",
    "find_concepts",
    "find_parts",
    "learn",
    "split",
]
