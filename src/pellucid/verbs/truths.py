"""Where the truth lies in each input, from whatever people have: arrays and boxes, or annotations of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import DataError, MediaError
from pellucid.truth import Truth as Annotations
from pellucid.truth import read_truth
from pellucid.truth.names import plain
from pellucid.truth.tables import BOXES

Truth = NDArray[Any] | Tensor | Sequence[float]
Truths = str | Path | Mapping[str, Truth] | Sequence[Truth]


class TruthSource:
    """Masks by input.

    Args:
        given: a file or folder of annotations (see `pellucid.truth.read_truth`), or a folder of `.npy` masks named
            after their inputs; a mapping by name; or one for each input. A mask is an array over the original, true
            inside; or a box of four numbers.
        labels: of classes that annotations tell by number only.

    Raises:
        MediaError: there is nothing of the kind, or it cannot be read.
    """

    def __init__(self, given: Truths, labels: tuple[str, ...] = ()) -> None:
        self._arrays: Path | None = None
        self._annotations: Annotations | None = None
        self._known: Mapping[str, Truth] | Sequence[Truth] = {}
        if not isinstance(given, str | Path):
            self._known = given
            return
        path = Path(given).expanduser()
        if path.is_dir() and any(path.glob("*.npy")):
            self._arrays = path
            return
        try:
            self._annotations = read_truth(path, labels)
        except DataError as error:
            folder = path.is_dir() and not (path / BOXES).is_file()
            hint = " A folder of .npy masks named after the inputs does too." if folder else ""
            raise MediaError(f"{error}{hint}") from error

    def speaks_of(self, name: str) -> bool:
        """Whether something is known of an input by its name; of one for each input that is always so."""
        file = name.partition(":")[2] or name
        if self._annotations is not None:
            return self._annotations.speaks_of(file)
        if self._arrays is not None:
            return (self._arrays / f"{Path(file).stem}.npy").is_file()
        return not isinstance(self._known, Mapping) or name in self._known or Path(file).stem in self._known

    def holds(self, name: str, label: str) -> bool:
        """Whether objects of a class are annotated in an input; of masks without classes, nothing is said."""
        known, file = self._annotations, name.partition(":")[2] or name
        if known is None or not known.speaks_of(file):
            return False
        objects, named = known.of(file).objects, _names(label) & {plain(one) for one in known.numbers}
        return any(not named or plain(o.label) in named for o in objects)

    def of(
        self, name: str, position: int, size: Sequence[int], label: str = "", *, alone: bool = False
    ) -> Tensor | None:
        """The mask of an input, bool over its original; None where nothing is known of it.

        Args:
            name: of the input.
            position: among the inputs, from 0.
            size: of the original.
            label: the class that is explained: where objects of it are annotated they alone count, else all objects do.
            alone: objects of another class never count, where some picture has annotations of this one.

        Raises:
            MediaError: it is of another size, or cannot be read.
        """
        file = name.partition(":")[2] or name
        if self._annotations is not None:
            return _annotated(self._annotations, file, size, label, alone=alone)
        stem = Path(file).stem
        if self._arrays is not None:
            path = self._arrays / f"{stem}.npy"
            return as_mask(_array(path), size, stem) if path.is_file() else None
        if isinstance(self._known, Mapping):
            found = self._known.get(name, self._known.get(stem))
            return None if found is None else as_mask(found, size, name)
        if position >= len(self._known):
            raise MediaError(f"{len(self._known)} masks for at least {position + 1} inputs: give one for each.")
        return as_mask(self._known[position], size, name)


def _annotated(known: Annotations, file: str, size: Sequence[int], label: str, *, alone: bool) -> Tensor:
    """The pixels of the objects in a picture that are of the class, or of all where none is."""
    if len(size) != 2:
        raise MediaError(f"{known.source} is of pictures, and {file} has {len(size)} axes: give .npy masks.")
    try:
        objects = known.of(file).on((size[0], size[1])).objects
        own = [o for o in objects if plain(o.label) in _names(label)]
        if not own and not (alone and _names(label) & {plain(known_label) for known_label in known.numbers}):
            own = list(objects)
        masks = [o.mask((size[0], size[1])) if o.outline else as_mask(o.box, size, file) for o in own]
    except DataError as error:
        raise MediaError(str(error)) from error
    found = torch.zeros(tuple(size), dtype=torch.bool)
    for mask in masks:
        found |= torch.as_tensor(mask)
    return found


def _names(label: str) -> set[str]:
    """The names of a class: synonyms are written with commas."""
    return {plain(part) for part in label.split(",")} | {plain(label)} if label else set()


def _array(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MediaError(f"The mask {path} cannot be read ({error}).") from error
    return found


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
