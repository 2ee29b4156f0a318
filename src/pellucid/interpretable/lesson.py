"""What a readable model learns: the answers of a teacher, or the pictures' own classes, and which are held out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor

from pellucid.errors import DataError
from pellucid.interpretable.numerics import Array, softmax
from pellucid.media.pictures import PictureSet
from pellucid.models.features import Features, extract
from pellucid.models.model import VisionModel
from pellucid.models.reading import IN_DOUBT, Reading, exclusive

_HELD_OUT = 0.3
_LEAST = 4  # pictures of a class: fewer cannot be split into training, folds and held-out
_UNSURE = (
    "For {} of {} pictures the teacher finds two labels likely that share the softmax between them: if they do not "
    "exclude each other, say pl.wrap(module, scores='sigmoid'), else scores='softmax'."
)


@dataclass(frozen=True)
class Split:
    """Which pictures were learned from, and which were held out."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


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


@dataclass(frozen=True)
class Lesson:
    """What is learned, from which pictures.

    Attributes:
        answers: `(N, K)` the teacher's probabilities, or the truth as certain answers.
        labels: names of the K classes.
        at: which of the N pictures are learned from, and which are held out.
        truth: `(N,)`, see `fidelity.measure`; None where it is not known.
        taught: whether the answers come from a teacher.
        kept: `(N,)` their numbers among the pictures that were given; empty where all are kept.
        notes: what was left out, and why.
    """

    answers: Array
    labels: list[str]
    at: Split
    truth: NDArray[np.int64] | None = None
    taught: bool = True
    kept: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        pictures: PictureSet,
        features: Features,
        teacher: VisionModel | None,
        base: VisionModel,
        first: Split | None,
        seed: int,
    ) -> Lesson:
        """What `teacher` answers to the pictures, or, without one, their own classes.

        Args:
            pictures: with classes, or with a teacher.
            features: of the pictures; their outputs are the teacher's if it is `base`.
            teacher: whose answers are learned.
            base: the network that `features` are of.
            first: the split that the pictures' classes were given.
            seed: of a split that has to be made anew.

        Raises:
            DataError: there is nothing to tell apart, or the teacher does not choose among classes.
        """
        everything, labels = np.arange(len(pictures)), pictures.labels
        if teacher is None:
            answers = np.eye(len(pictures.classes))[labels]
            assert first is not None
            return cls(answers, list(pictures.classes), first, labels, taught=False, kept=everything)
        outputs = _outputs(teacher, pictures, features, base)
        teacher, notes = _as_read(teacher, pictures, outputs)
        scores = _scores(teacher.reading, outputs)
        top = scores.argmax(1)
        counts = np.bincount(top, minlength=scores.shape[1])
        classes = np.flatnonzero(counts >= _LEAST)
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
        return cls(_shares(teacher, scores, kept, classes), names, at, truth, kept=kept, notes=notes)


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
