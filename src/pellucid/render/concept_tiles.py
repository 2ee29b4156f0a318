"""A concept's exemplars made ready to be drawn: the crop where it is strongest, and the map over the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pellucid.concepts.bank import Bank
from pellucid.errors import MediaError
from pellucid.media import Box, Origin, Picture, read_image
from pellucid.media.crops import around, cut
from pellucid.render.paper.colour import limits
from pellucid.render.paper.display import display_geometry, spread
from pellucid.render.paper.overlay import overlay

_SIZE = 192  # pixels of a crop, and of the shorter side of a whole picture

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ConceptTile:
    """One picture of a concept.

    Attributes:
        crop: uint8 `(s, s, 3)`, about the place where the concept is strongest.
        whole: uint8 `(h, w, 3)`, what the model saw of the picture, under the concept's map; one scale for all
            pictures of a concept.
        answer: what the model says of the picture.
        peak: how strong the concept is there.
    """

    crop: Pixels
    whole: Pixels
    answer: str
    peak: float


def exemplars(bank: Bank, concept: int, count: int) -> Iterator[ConceptTile]:
    """The pictures in which a concept is strongest; one that can't be opened any more, or has changed, is left out."""
    scale = limits(bank.maps[concept], signed=False)
    given = 0
    for m, index in enumerate(bank.exemplars[concept].tolist()):
        if index < 0 or given == count:
            return
        shown = bank.shown[index]
        picture = _opened(shown.origin)
        if picture is None:
            continue
        given += 1
        box = around(shown.geometry, bank.grid, int(bank.cells[concept, m]))
        geometry, _ = display_geometry(shown.geometry, 2 * _SIZE)
        size = geometry.source_size[-2:]
        ground = np.asarray(picture.pil().resize((size[1], size[0]), Image.Resampling.BICUBIC))
        values = spread(torch.from_numpy(np.maximum(bank.maps[concept, m], 0)), geometry)
        seen = np.ix_(*(np.isfinite(values).any(axis) for axis in (1, 0)))  # the rest could not be looked at
        yield ConceptTile(
            crop=_square(picture, box),
            whole=overlay(ground[seen], values[seen], signed=False, limits=scale),
            answer=shown.answer,
            peak=float(bank.peaks[concept, m]),
        )


def _square(picture: Picture, box: Box) -> Pixels:
    image = cut(picture, box).pil()
    coarse = max(image.size) < _SIZE // 4  # few pixels, as in the digits: show them as they are
    how = Image.Resampling.NEAREST if coarse else Image.Resampling.BICUBIC
    return np.asarray(image.resize((_SIZE, _SIZE), how))


@lru_cache(maxsize=64)
def _opened(origin: Origin) -> Picture | None:
    try:
        picture = read_image(origin.source)
    except MediaError:
        return None
    if picture.sha256 != origin.sha256:
        return None
    return picture if origin.box is None else cut(picture, origin.box)
