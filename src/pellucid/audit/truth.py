"""Which class of the model each picture is of, and in sentences what pictures lack for an audit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import ModelError
from pellucid.language import counted, some
from pellucid.media import Pictures
from pellucid.models.model import VisionModel


def class_numbers(model: VisionModel, pictures: Pictures, count: int) -> list[int]:
    """The number of each class of the pictures among the model's `count`; -1 where the model has no such class.

    Classes are found by name; where none is, by the number that they are called, else in order if there are as many.

    Raises:
        ModelError: none of these.
    """
    classes = pictures.classes if len(pictures.labels) else ()
    names = {str(label).casefold(): k for k, label in enumerate(model.labels or ())}
    found = [names.get(name.casefold(), -1) for name in classes]
    if not found or max(found) >= 0:
        return found
    if all(name.isdecimal() and int(name) < count for name in classes):
        return [int(name) for name in classes]
    if len(classes) != count:
        raise ModelError(
            f"The folder's classes ({some(classes)}) are none of the model's ({_named(model, count)}): give the "
            "model's names with --labels, in its order, and name the folders after them."
        )
    return list(range(count))


def _named(model: VisionModel, count: int) -> str:
    return some([str(label) for label in model.labels]) if model.labels else f"{counted(count, 'score')} without a name"


def shortcomings(
    model: VisionModel, pictures: Pictures, truth: NDArray[np.int64], failed: Sequence[str], labels: Sequence[str]
) -> list[str]:
    """What the pictures lack, a sentence each.

    Args:
        model: that looked at them.
        pictures: all of them.
        truth: the class of each that could be used; -1 where the model has none of that name.
        failed: why others could not be used.
        labels: of the model.
    """
    notes = []
    numbers = class_numbers(model, pictures, len(labels))
    if strange := [name for name, k in zip(pictures.classes, numbers, strict=False) if k < 0]:
        lost = int(np.isin(pictures.labels, [i for i, k in enumerate(numbers) if k < 0]).sum())
        notes.append(
            f"The model has no class of the name {some(strange)}: {counted(lost, 'picture')} of it can be neither "
            "right nor wrong."
        )
    elif model.labels and numbers and pictures.classes[0].casefold() != labels[numbers[0]].casefold():
        notes.append(
            "The folder's classes are none of the model's names, and were taken by number or in order: "
            f"`{pictures.classes[0]}` as `{labels[numbers[0]]}`, and so on."
        )
    present = np.unique(truth[truth >= 0])
    if len(present) == 1:
        notes.append(
            f"All pictures are of one class, `{labels[present[0]]}`: what it rests on is told by an exchange with "
            "others, so give pictures of another class too."
        )
    elif 0 < len(present) < len(labels):
        absent = next(label for k, label in enumerate(labels) if k not in present)
        notes.append(
            f"No picture here is of {counted(len(labels) - len(present), 'class')} of the model's {len(labels)} "
            f"(`{absent}` the first): nothing is said of them."
        )
    return [*notes, *unusable(failed)]


def unusable(failed: Sequence[str]) -> list[str]:
    """Pictures that could not be used, in a sentence."""
    return [f"{counted(len(failed), 'picture')} could not be used; the first: {failed[0]}"] if failed else []
