"""Masks as PNG: each pixel's number is its class; 0 is the background, and 255 beside others is what nobody judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pellucid.errors import DataError
from pellucid.media.inputs import natural
from pellucid.truth.annotations import Annotated, Annotation, Truth
from pellucid.truth.outlines import box_around, outline_of
from pellucid.truth.yolo import NAMES

_VOID = 255
_ENDINGS = ("_segmentation", "_mask")
"""What the names of masks end on, besides the picture's own; such as those of ISIC do."""


def read_masks(path: Path, labels: tuple[str, ...] = ()) -> Truth:
    """The regions of a folder of masks, one a picture of the same name; each class is one object.

    Where all names end on `_mask`, or all on `_segmentation`, that is no part of the picture's name.

    Args:
        labels: of the numbers in the masks, from 0 on; where the folder has a `classes.txt`, those in it. Masks of one
            number alone, whatever it is, are of the class that the folder is named after, unless there are labels; 255
            alone has none among several.

    Raises:
        DataError: a mask cannot be read, or holds colours in place of numbers.
    """
    if (path / NAMES).is_file():
        labels = tuple((path / NAMES).read_text(encoding="utf-8-sig").split("\n"))
    files = sorted(path.glob("*.png"), key=lambda file: natural(file.name))
    masks = {file: _read(file) for file in files}
    numbers = sorted({int(v) for mask in masks.values() for v in np.unique(mask)} - {0})
    if len(numbers) == 1 and (len(labels) <= 1 or numbers[0] == _VOID):
        names = {numbers[0]: labels[0] if len(labels) == 1 else path.name}
    else:
        names = {n: labels[n].strip() if n < len(labels) else str(n) for n in numbers if n != _VOID}
    ending = next((e for e in _ENDINGS if all(file.stem.endswith(e) for file in files)), "")
    pictures = tuple(
        Annotated(
            file.stem.removesuffix(ending),
            _objects(mask, names),
            mask.shape[:2],
            unjudged=None if _VOID in names or not (mask == _VOID).any() else outline_of(mask == _VOID),
        )
        for file, mask in masks.items()
    )
    return Truth(str(path), pictures, {label: number for number, label in names.items()})


def _read(file: Path) -> NDArray[np.integer]:
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"The mask {file} can't be read ({error}): give a PNG.") from error
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., :3]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise DataError(f"The mask {file} holds colours: give the numbers of classes, in grey or with a palette.")
    return pixels.astype(np.int64)


def _objects(mask: NDArray[np.integer], names: dict[int, str]) -> tuple[Annotation, ...]:
    found = []
    for number, label in names.items():
        places = mask == number
        if places.any():
            found.append(Annotation(label, box_around(places), outline_of(places)))
    return tuple(found)


def write_mask(picture: Annotated, numbers: dict[str, int], file: Path) -> Path:
    """One picture's objects as a mask; the later lie over the earlier.

    Raises:
        DataError: an object has no outline, or the size is not known.
    """
    if picture.size is None:
        raise DataError(f"The size of {picture.name} is not known: say it.")
    drawn = np.zeros(picture.size, np.uint8)
    for each in picture.objects:
        mask = each.mask(picture.size)
        if mask is None:
            raise DataError(f"{each.label} in {picture.name} has a box only, which is no mask.")
        drawn[mask] = numbers[each.label]
    Image.fromarray(drawn).save(file)
    return file
