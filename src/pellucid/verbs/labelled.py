"""Pictures that are given with the class of each: folders, tables, and annotations of any kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pellucid.audit.metadata import source_in
from pellucid.errors import DataError
from pellucid.language import counted
from pellucid.media import Medium, Pictures, PictureSet, Shown, as_pictures
from pellucid.truth import Truth, class_numbers, listed, read_truth

_ANNOTATIONS = (".json", ".xml")  # that can stand in the place of their pictures


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with their classes.

    Attributes:
        pictures: with the number of each one's class, -1 where it has none.
        truth: what was annotated in them; None where that is no more than a class.
        notes: what a reader must know.
    """

    pictures: Pictures
    truth: Truth | None = None
    notes: tuple[str, ...] = ()


def labelled(
    given: Shown, medium: Medium, truth: str | Path | None = None, labels: tuple[str, ...] = ()
) -> LabelledPictures:
    """What was given, with the classes that it tells of.

    A picture is of the class of its annotations where these agree; one of several classes, or without any, has none.
    Where the pictures have classes and the annotations none that the model knows, such as masks of whatever the object
    is, these tell places only.

    Args:
        given: pictures; or annotations that lie beside them.
        medium: of the model.
        truth: annotations of the pictures, or a table of their classes; None: what is given tells the classes.
        labels: of classes that annotations tell by number only.

    Raises:
        DataError: the annotations cannot be read, or tell of none of the pictures.
        MediaError: there is no picture.
    """
    alone = truth is None and isinstance(given, str | Path) and Path(given).suffix.lower() in _ANNOTATIONS
    if truth is None and not alone:
        return LabelledPictures(as_pictures(given, medium, absent=True))
    known = read_truth(str(given) if truth is None else truth, labels, whole=True)
    notes = list(known.notes)
    looked = PictureSet(Path(str(given)).stem, tuple(listed(known)), _NONE) if alone else as_pictures(given, medium)
    if not isinstance(looked, PictureSet):
        raise DataError("Annotations are told of files: give the pictures as a folder or a list of paths.")
    if alone and (gone := len(known.pictures) - len(looked)):
        notes.append(f"{counted(gone, 'picture')} of {Path(str(given)).name} are not there, and are left out.")
    sources = [source_in(looked, i) for i in range(len(looked))]
    if (
        len(looked.labels)
        and labels
        and not class_numbers(labels, known.numbers)
        and any(map(known.speaks_of, sources))
    ):
        return LabelledPictures(looked, known, tuple(notes))
    classes = [{o.label for o in known.of(s).objects if not o.ignored} if known.speaks_of(s) else None for s in sources]
    if all(found is None for found in classes):
        raise DataError(f"{known.source} says nothing of any of the pictures: name the files as they are called there.")
    names = known.labels
    numbers = [names.index(next(iter(found))) if found is not None and len(found) == 1 else -1 for found in classes]
    untold, several = sum(not found for found in classes), sum(len(found or ()) > 1 for found in classes)
    if untold:
        notes.append(f"{Path(known.source).name} tells no class of {counted(untold, 'picture')}.")
    if several:
        notes.append(
            f"{counted(several, 'picture')} hold objects of more than one class, so that their own class is not known."
        )
    held = replace(looked, labels=np.array(numbers, np.int64), classes=tuple(names))
    return LabelledPictures(held, known, tuple(notes))


_NONE = np.zeros(0, np.int64)
