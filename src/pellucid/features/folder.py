"""A folder of pictures as a model takes them: hashed, read ahead, in batches of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.features.receptive_field import Box
from pellucid.media import Geometry, Origin, Picture, digest, expand, read_image
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess
from pellucid.progress import task


@dataclass(frozen=True)
class Patch:
    """A part of a picture that a cell of a layer looks at.

    Attributes:
        origin: the picture.
        cell: the cell's place on the layer's grid.
        box: the part, in pixels of the model's input, `[start, stop)` an axis.
        geometry: the way from the model's input to the picture.
    """

    origin: Origin
    cell: tuple[int, ...]
    box: Box
    geometry: Geometry

    def source_box(self) -> Box:
        """`box` in the picture's own pixels, cut at its borders."""
        spans = zip(self.box, self.geometry.input_size, self.geometry.box, self.geometry.source_size, strict=True)
        return tuple(
            (
                min(max(0.0, low + start / n * (high - low)), float(size)),
                min(max(0.0, low + stop / n * (high - low)), float(size)),
            )
            for (start, stop), n, (low, high), size in spans
        )


class Folder:
    """Pictures by source, with the hash of each one's bytes."""

    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = list(sources)
        self.hashes: list[str] = []
        with task("hashing pictures", len(self.sources)) as advance:
            for source in self.sources:
                self.hashes.append(_file_hash(source))
                advance(1)
        self.digest = hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()
        first = {h: row for row, h in reversed(list(enumerate(self.hashes)))}
        self.copies = {row for row, h in enumerate(self.hashes) if first[h] != row}

    @classmethod
    def of(cls, pictures: str | Path | Sequence[str | Path]) -> Folder:
        """Whatever names pictures."""
        return cls(expand([pictures] if isinstance(pictures, str | Path) else list(pictures)))

    def __len__(self) -> int:
        return len(self.sources)

    def left_out(self, ranked: int) -> str:
        """Why fewer pictures were ranked than are there, in a sentence."""
        copies, unread = len(self.copies), len(self) - ranked - len(self.copies)
        parts = [f"{copies} of {len(self)} pictures are copies of another"] if copies else []
        parts += [f"{unread} of {len(self)} pictures could not be read"] if unread else []
        return " and ".join(parts) + ": they were left out."


def _file_hash(source: str) -> str:
    try:
        return digest(source)
    except MediaError:
        return f"unreadable {source}"


Loaded = tuple[Picture, Tensor, Geometry]


class Loader:
    """Reads pictures for a model, the next batch while this one is run."""

    def __init__(self, model: VisionModel, folder: Folder, batch: int) -> None:
        self.model, self.folder, self.batch = model, folder, batch
        # Transforms of others may draw random numbers, which threads share: they are run in this one.
        self._ahead = isinstance(model.preprocess, Preprocess)

    def batches(self, rows: Sequence[int]) -> Iterator[tuple[list[int], list[Loaded | None]]]:
        """`(rows, their pictures)` in order; None for a picture that can't be read."""
        parts = [list(rows[i : i + self.batch]) for i in range(0, len(rows), self.batch)]
        if not self._ahead:
            yield from ((part, [self.load(row) for row in part]) for part in parts)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="pellucid-reader") as reader:
            coming = [reader.submit(self.load, row) for row in parts[0]] if parts else []
            try:
                for part, following in zip(parts, [*parts[1:], []], strict=False):
                    now, coming = coming, [reader.submit(self.load, row) for row in following]
                    yield part, [future.result() for future in now]
            finally:
                for future in coming:
                    future.cancel()

    def load(self, row: int) -> Loaded | None:
        """One picture as the model takes it."""
        if row in self.folder.copies:
            return None
        try:
            picture = read_image(self.folder.sources[row])
            return picture, *self.model.pictures(picture)
        except MediaError:
            return None

    def stacked(self, loaded: Sequence[Loaded | None]) -> Iterator[tuple[list[int], Tensor]]:
        """`(places in the batch, inputs (n, C, *space))`, pictures of one size together."""
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(loaded):
            if item is not None:
                sizes.setdefault(tuple(item[1].shape), []).append(i)
        for places in sizes.values():
            inputs = torch.stack([item[1] for i in places if (item := loaded[i]) is not None])
            yield places, inputs.to(self.model.device, self.model.dtype)
