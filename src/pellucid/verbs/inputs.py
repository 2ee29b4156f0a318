"""From what a user gives (paths, pictures, arrays, tensors, model names) to inputs ready for a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from pellucid.errors import MediaError, PellucidError
from pellucid.media import CLIP, Clip, Footage, Medium, Picture, Volume
from pellucid.media.medium import name_of
from pellucid.media.pictures import Member
from pellucid.models import sources
from pellucid.models.feed import Prepared, feed_of
from pellucid.models.model import VisionModel

Input = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor | Picture | Clip | Footage | Volume
ModelLike = str | VisionModel | nn.Module


def as_model(model: ModelLike) -> VisionModel:
    """A model by name, a bare module wrapped, or a `VisionModel` as it is."""
    if isinstance(model, VisionModel):
        return model
    return sources.load(model) if isinstance(model, str) else sources.wrap(model)


def prepared(model: VisionModel, inputs: Input | Sequence[Input]) -> Iterator[tuple[str, Prepared | PellucidError]]:
    """Inputs one after the other, ready for the model: `(name, input or what is wrong with it)`."""
    feed = feed_of(model)
    for item in _items(inputs, model.medium):
        try:
            batch = isinstance(item, Tensor) and model.medium.is_batch(item)
            for one_of in item if batch else [item]:  # type: ignore[union-attr]
                found = feed.prepared(model, one_of)
                yield found.source["name"], found
        except MediaError as error:
            yield str(item) if isinstance(item, str | Path) else "input", error


def one(model: VisionModel, inputs: Input) -> Prepared:
    """One input, ready for the model.

    Raises:
        MediaError: none, or several.
    """
    found = [item for _, item in prepared(model, inputs)]
    if len(found) != 1:
        raise MediaError(f"One picture was expected, not {len(found)}: name one.")
    if isinstance(found[0], PellucidError):
        raise found[0]
    return found[0]


def _items(inputs: Input | Sequence[Input], medium: Medium) -> Iterable[Input]:
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
    for item in inputs if several else [inputs]:  # type: ignore[union-attr]
        if isinstance(item, str | Path):
            yield from medium.expand([item])
        else:
            yield item  # type: ignore[misc]


def counted(model: VisionModel, inputs: Input | Sequence[Input]) -> int | None:
    """How many inputs `prepared` will give, with nothing opened; None where what is given cannot be listed."""
    try:
        items = list(_items(inputs, model.medium))
    except MediaError:
        return None
    return sum(len(i) if isinstance(i, Tensor) and model.medium.is_batch(i) else 1 for i in items)


def unsampled(inputs: Input | Sequence[Input]) -> Iterator[tuple[str, Footage | MediaError]]:
    """Clips one after the other, opened but not decoded: `(name, footage or what is wrong with it)`."""
    for item in _items(inputs, CLIP):
        try:
            if isinstance(item, Tensor):
                raise MediaError("A tensor is what the model takes, so it has no windows: give the clip itself.")
            yield name_of(item), CLIP.open(item)
        except MediaError as error:
            yield name_of(item), error


class Collection:
    """Pictures by position; the last few that were opened stay open, for those that look at them again."""

    def __init__(self, model: VisionModel, members: Sequence[Member], open_at_once: int = 2) -> None:
        self.model, self.members = model, list(members)
        self._opened = lru_cache(maxsize=open_at_once)(self._open)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, position: int) -> Prepared | PellucidError:
        return self._opened(position)

    def _open(self, position: int) -> Prepared | PellucidError:
        _, item = next(iter(prepared(self.model, self.members[position].source)))
        return item
