"""Regions that a person drew on the original picture: a label image, or named boxes; carried to the model's input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.importance.game import Cut
from pellucid.importance.regions import Regions
from pellucid.media.geometry import Geometry

REST = "everything else"
_MOST = 4096  # regions: a photo taken for a label image has more colours

Given = str | Path | Mapping[str, Sequence[float]] | np.ndarray[Any, Any] | Tensor


@dataclass(frozen=True, kw_only=True)
class Drawn(Cut):
    """Regions drawn in the pixels of the ORIGINAL picture; what no box covers is one more player.

    Args:
        labels: `(H, W)` integers, the region of each pixel; or None.
        boxes: name -> (left, top, right, bottom) in pixels, right and bottom not included; a later box lies on top.
        baseline: what shows where one is out: a name such as `blur` (see the page on baselines), or a tensor.
        seed: of a random baseline.
    """

    labels: Tensor | None = None
    boxes: tuple[tuple[str, tuple[float, ...]], ...] = ()
    baseline: str | Tensor = "blur"
    seed: int = 0
    comparable: bool = True
    kind: ClassVar[str] = "regions"

    def fitted(self, x: Tensor, geometry: Geometry) -> Regions:
        """The regions as the model sees them.

        Raises:
            MediaError: they don't match the picture, or one of them is not in what the model sees.
        """
        drawn, names = self._on(geometry.source_size)
        at = [_pixels(n, size, span) for n, size, span in
              zip(geometry.input_size, geometry.source_size, geometry.box, strict=True)]  # fmt: skip
        seen = drawn[torch.meshgrid(*at, indexing="ij")]
        counts = torch.bincount(seen.flatten(), minlength=len(names))
        if missing := [name for name, count in zip(names, counts.tolist(), strict=True) if not count and name != REST]:
            shown = " x ".join(f"{max(0, floor(a))} to {min(s, ceil(b))}" for (a, b), s in
                               zip(reversed(geometry.box), reversed(geometry.source_size), strict=True))  # fmt: skip
            raise MediaError(
                f"The model does not see the region {missing[0]!r}: it sees the pixels {shown} of the picture; leave "
                "the region out, or draw it there."
            )
        kept = counts > 0
        numbers = kept.cumsum(0) - 1
        names = tuple(name for name, k in zip(names, kept.tolist(), strict=True) if k)
        return Regions(labels=numbers[seen], names=names, baseline=self.baseline, seed=self.seed, comparable=True)

    def _on(self, size: tuple[int, ...]) -> tuple[Tensor, tuple[str, ...]]:
        """The region of each pixel of a picture, and the regions' names."""
        if self.labels is not None:
            if tuple(self.labels.shape) != size:
                raise MediaError(
                    f"The label image is {_size(self.labels.shape)} but the picture {_size(size)}: draw it on the "
                    "picture itself, pixel for pixel."
                )
            values, numbers = torch.unique(self.labels, return_inverse=True)
            return numbers, tuple(f"label {int(v)}" for v in values)
        drawn = torch.full(size, len(self.boxes))
        for k, (name, (left, top, right, bottom)) in enumerate(self.boxes):
            if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
                raise MediaError(
                    f"The region {name!r} ({left:g}, {top:g}, {right:g}, {bottom:g}) is not inside the picture of "
                    f"{_size(size)}: give left, top, right, bottom in its pixels."
                )
            drawn[round(top) : max(round(top) + 1, round(bottom)), round(left) : max(round(left) + 1, round(right))] = k
        return drawn, (*(name for name, _ in self.boxes), REST)


def read_regions(given: Given) -> Drawn:
    """Regions from a label image (a file, or an array `(H, W)` of integers) or named boxes (a JSON file, or a mapping).

    The JSON reads `{"cup": [left, top, right, bottom], ...}`, in pixels of the original.

    Raises:
        MediaError: missing, unreadable, or neither of the two.
    """
    if isinstance(given, Mapping):
        return _boxes(given, "The regions")
    if isinstance(given, np.ndarray | Tensor):
        return _labels(np.asarray(given), "The regions")
    path = Path(given).expanduser()
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise MediaError(
            f"Cannot read the regions {given} ({getattr(error, 'strerror', None) or error}): check the path."
        ) from error
    if path.suffix.casefold() == ".json":
        try:
            boxes = json.loads(data)
        except ValueError as error:
            raise MediaError(f'{given} is not JSON: write {{"name": [left, top, right, bottom], ...}}.') from error
        return _boxes(boxes, str(given))
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except Exception as error:  # on hostile bytes the decoders raise nearly anything
        raise MediaError(f"{given} is neither a label image nor a .json of named boxes: give one of them.") from error
    return _labels(values, str(given))


def _labels(values: np.ndarray[Any, Any], what: str) -> Drawn:
    if values.ndim == 3 and values.shape[-1] in (3, 4):  # coloured regions: each colour is one
        flat = values[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
        values = np.unique(flat, return_inverse=True)[1].reshape(values.shape[:2])
    if values.ndim < 2 or values.dtype.kind not in "iub":
        raise MediaError(f"{what} must hold one whole number a pixel, (H, W); got {values.dtype} {values.shape}.")
    count = len(np.unique(values))
    if not 2 <= count <= _MOST:
        raise MediaError(
            f"{what} holds {count} region{'s' * (count != 1)}: draw at least 2 and at most {_MOST}, each in one colour "
            "without smooth edges."
        )
    return Drawn(labels=torch.from_numpy(values.astype(np.int64)))


def _boxes(given: Any, what: str) -> Drawn:
    boxes = []
    for name, box in given.items() if isinstance(given, Mapping) else ():
        if not (isinstance(box, Sequence) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            raise MediaError(f"{what}: {name!r} is {box!r}; give [left, top, right, bottom] in pixels.")
        boxes.append((str(name), tuple(float(v) for v in box)))
    if not boxes:
        raise MediaError(f'{what} names no box: write {{"name": [left, top, right, bottom], ...}}.')
    return Drawn(boxes=tuple(boxes))


def _pixels(cells: int, size: int, span: tuple[float, float]) -> Tensor:
    """The original's pixel under each of the input's, along one axis; the nearest one where there is none."""
    start, stop = span
    centres = start + (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * (stop - start)
    return centres.floor().long().clamp(0, size - 1)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in reversed(tuple(shape))) + " pixels"
