"""Which class of a model an annotation's label means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

ALIKE = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Names in Pascal VOC of classes that COCO calls otherwise, without spaces."""


def plain(label: str) -> str:
    """A label without what people write one way or another: case, spaces, dashes; VOC's names as COCO's."""
    text = re.sub(r"[\s_-]+", "", label.casefold())
    return ALIKE.get(text, text)


def class_numbers(names: Sequence[str] | None, numbers: Mapping[str, int]) -> dict[str, int]:
    """The model's class for each label that it knows.

    Args:
        names: of the model's classes; None where it has none: annotations then count as it does.
        numbers: of the labels, as the annotations count.
    """
    if names is None:
        return dict(numbers)
    known = {plain(name): k for k, name in reversed(list(enumerate(names)))}
    return {label: known[plain(label)] for label in numbers if plain(label) in known}
