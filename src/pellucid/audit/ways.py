"""The ways in which a model learns anew, and which of them is best on pictures that none of them was taught from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.audit import repair as head
from pellucid.audit.proof import ProvenGroup, Try
from pellucid.audit.repair import Form, Opener, Rows
from pellucid.audit.teaching import NetworkLesson, taught_further
from pellucid.errors import ModelError
from pellucid.models.model import VisionModel

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Way:
    """One model that learned anew.

    Attributes:
        model: it.
        name: of the way, in words.
        layer: that was learned alone; empty where all were.
        strength: inverse of that layer's penalty, chosen for the worst group; NaN where there is none.
    """

    model: VisionModel
    name: str
    layer: str = ""
    strength: float = float("nan")


@dataclass(frozen=True)
class KnownPictures:
    """Pictures of known classes, and the forms in which they are shown.

    Attributes:
        opened: numbers of pictures -> inputs `(n, C, H, W)`.
        truth: the class of each, `(N,)`.
        every: form.
        labels: names of the classes.
        seed: of who gives a part to whom.
    """

    opened: Opener
    truth: Rows
    every: Sequence[Form]
    labels: Sequence[str]
    seed: int

    def marks(self, models: Sequence[VisionModel], first: Marks | None = None) -> Iterator[tuple[str, Marks]]:
        """Of each form its name, and whether each answer of each model is right, `(models, N)`.

        `first`: that of pictures as they are, where the models have looked at them before.
        """
        rng = np.random.default_rng(self.seed)
        for k, (name, show) in enumerate(head.shown(self.opened, self.truth, self.every, self.labels, rng)):
            yield name, first if k == 0 and first is not None else head.rights(models, show, self.truth)

    def groups(self, models: tuple[VisionModel, VisionModel], first: Marks | None = None) -> list[ProvenGroup]:
        """Each class in each form: whether the model as it was, and as it is, is right; `first`: see `marks`."""
        return [
            ProvenGroup(label, name, *(tuple(row[self.truth == k].tolist()) for row in marks))
            for name, marks in self.marks(models, first)
            for k, label in enumerate(self.labels)
        ]


def ways(
    model: VisionModel, taught: KnownPictures, slices: Sequence[Sequence[int]], seconds: float
) -> tuple[list[Way], list[str]]:
    """Those that can be gone, and why others cannot.

    Args:
        model: with its reading settled; it stays as it is.
        taught: what is learned from.
        slices: numbers of the pictures in each weak slice.
        seconds: of processor time, for which the whole network is taught at most; 0 does not.

    Raises:
        ModelError: none can be gone.
    """
    found, notes = list[Way](), list[str]()
    for one in (_last_layer, _whole) if seconds > 0 else (_last_layer,):
        try:
            found.append(one(model, taught, slices, seconds))
        except ModelError as error:
            notes.append(str(error))
    if not found:
        raise ModelError(" ".join(notes))
    return found, notes


def _last_layer(model: VisionModel, taught: KnownPictures, slices: Sequence[Sequence[int]], _seconds: float) -> Way:
    layer = head.last_layer(model, taught.opened([0]))
    lesson = head.lesson(model, layer, taught.opened, taught.truth, taught.every, slices, taught.labels, taught.seed)
    bias = model.module.get_submodule(layer).bias is not None
    weight, shift, strength = head.learned(lesson, len(taught.labels), bias=bias)
    return Way(head.repaired(model, layer, weight, shift), "the last layer, on frozen features", layer, strength)


def _whole(model: VisionModel, taught: KnownPictures, slices: Sequence[Sequence[int]], seconds: float) -> Way:
    classes, groups = len(taught.labels), taught.truth
    if all(form.part is None for form in taught.every):  # else errors may be those of parts that now tell nothing
        groups = head.memberships(taught.truth, slices, classes) * classes + taught.truth
    lesson = NetworkLesson(taught.opened, taught.truth, head.balanced(taught.truth, groups), taught.every, taught.seed)
    again, steps = taught_further(model, lesson, seconds)
    return Way(again, f"the whole network, in {steps} steps")


def chosen(found: Sequence[Way], choosing: KnownPictures) -> tuple[Way, list[Try]]:
    """The way whose worst group is best, of equal ones that whose next worst is (leximin); and what each reached."""
    of_class = [choosing.truth == k for k in range(len(choosing.labels))]
    shares = [  # of each form and class, `(ways,)`
        marks[:, inside].mean(1) for _, marks in choosing.marks([way.model for way in found]) for inside in of_class
    ]
    ascending = np.sort(shares, 0).T.tolist()
    best = max(range(len(found)), key=ascending.__getitem__)
    return found[best], [Try(way.name, ascending[k][0], k == best) for k, way in enumerate(found)]
