"""Where the truth lies in each input, from whatever people have: arrays, boxes, a folder of masks, a table of boxes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pellucid.errors import MediaError

Truth = NDArray[Any] | Tensor | Sequence[float]
Truths = str | Path | Mapping[str, Truth] | Sequence[Truth]

BOXES = "boxes.csv"
_COLUMNS = ("name", "x0", "y0", "x1", "y1")


class TruthSource:
    """Masks by input.

    Args:
        given: a folder of masks named after their inputs (`.npy`, or pictures whose dark pixels are outside) or with a
            `boxes.csv` of name, x0, y0, x1, y1 in the original's pixels; a mapping by name; or one for each input. A
            mask is an array over the original, true inside; or a box of four numbers.

    Raises:
        MediaError: there is no such folder, or its table cannot be read.
    """

    def __init__(self, given: Truths) -> None:
        self._folder: Path | None = None
        self._boxes: dict[str, list[tuple[float, ...]]] = {}
        self._known: Mapping[str, Truth] | Sequence[Truth] = {}
        if isinstance(given, str | Path):
            self._folder = Path(given).expanduser()
            if not self._folder.is_dir():
                raise MediaError(f"{given} is no folder: name one with a mask for each input, or with a {BOXES}.")
            self._boxes = _boxes(self._folder / BOXES)
        else:
            self._known = given

    def of(self, name: str, position: int, size: Sequence[int]) -> Tensor | None:
        """The mask of an input, bool over its original; None where nothing is known of it.

        Raises:
            MediaError: it is of another size, or cannot be read.
        """
        stem = Path(name.partition(":")[2] or name).stem
        if self._folder is not None:
            return self._filed(stem, size)
        if isinstance(self._known, Mapping):
            found = self._known.get(name, self._known.get(stem))
            return None if found is None else as_mask(found, size, name)
        if position >= len(self._known):
            raise MediaError(f"{len(self._known)} masks for at least {position + 1} inputs: give one for each.")
        return as_mask(self._known[position], size, name)

    def _filed(self, stem: str, size: Sequence[int]) -> Tensor | None:
        assert self._folder is not None
        if stem in self._boxes:
            masks = [as_mask(box, size, stem) for box in self._boxes[stem]]
            return torch.stack(masks).any(0)
        for ending in (".npy", ".png", ".gif", ".bmp"):
            path = self._folder / f"{stem}{ending}"
            if path.is_file():
                try:
                    values = np.load(path, allow_pickle=False) if ending == ".npy" else np.asarray(Image.open(path))
                except (OSError, ValueError) as error:
                    raise MediaError(f"The mask {path} cannot be read ({error}).") from error
                if ending != ".npy" and values.ndim == 3:
                    values = values[..., :3].any(-1)
                return as_mask(values, size, stem)
        return None


def as_mask(given: Truth, size: Sequence[int], name: str) -> Tensor:
    """A mask or box as bool `(*size)`; an empty one stays empty.

    Raises:
        MediaError: it is of another size.
    """
    values = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    if values.shape == (2 * len(size),) and len(size) == 2:
        x0, y0, x1, y1 = (float(v) for v in values)
        mask = torch.zeros(tuple(size), dtype=torch.bool)
        mask[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))] = True
        return mask
    if values.shape != tuple(size):
        raise MediaError(
            f"The mask of {name} has shape {values.shape}, and the original {tuple(size)}: draw it on the original."
        )
    return torch.from_numpy(values.astype(bool))


def _boxes(path: Path) -> dict[str, list[tuple[float, ...]]]:
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, ...]]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                box = tuple(float(row[c]) for c in _COLUMNS[1:])
                found.setdefault(Path(row["name"]).stem, []).append(box)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MediaError(f"{path} cannot be read ({error}): its columns are {', '.join(_COLUMNS)}.") from error
    return found
