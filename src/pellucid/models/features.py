"""What a layer says of many pictures: extracted once, in one pass, and kept under the hash of what went in.

Pictures go through the model batch by batch, and the values are written to a memory-mapped file as they come, so
memory does not grow with the folder. The file's name is a hash over the model's weights, its preprocessing, the layer
and the bytes of every picture: another model, layer or picture is another file, and nothing can be stale.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pellucid.engine import Capture, Cost, default_batch, find_layer
from pellucid.errors import MediaError, ModelError
from pellucid.keep.home import cache_folder
from pellucid.keep.scratch import scratch
from pellucid.media import Geometry, Pictures
from pellucid.models.layers import best_layer
from pellucid.models.model import VisionModel
from pellucid.models.places import Places
from pellucid.models.reading import Reading
from pellucid.progress import task

Pool = Literal["mean", "max"]

_VERSION = 2  # of the files' layout, and of what is taken for scores
CACHE_LIMIT = 4 * 2**30
"""Bytes that the cache may take; what was used longest ago goes first."""


@dataclass(frozen=True)
class Features:
    """Activations of one layer on many pictures.

    Attributes:
        values: `(N, C)` pooled, or `(N, *grid, C)`; float32, read-only, memory-mapped.
        outputs: the model's scores `(N, classes)`; `(N, 0)` where its output is not that.
        layer: module path.
        layout: how the layer reads, for people.
        pool: how places were folded; None: they were not.
        pictures: what went in; its `labels` and `classes` are the truth, where it is known.
        digests: SHA-256 of each picture.
        geometries: where each picture was looked at.
        key: the hash over all that went in.
        weights: the model's fingerprint.
        cost: passes spent; none if the values were found in the cache.
    """

    values: NDArray[np.float32]
    outputs: NDArray[np.float32]
    layer: str
    layout: str
    pool: Pool | None
    pictures: Pictures
    digests: tuple[str, ...]
    geometries: tuple[Geometry, ...]
    key: str
    weights: str
    cost: Cost = field(default_factory=Cost)
    _folder: Path | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.values)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true class of each picture, `(N,)`; empty where it is not known."""
        return self.pictures.labels

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along each axis; empty when pooled."""
        return tuple(self.values.shape[1:-1])

    @property
    def channels(self) -> int:
        """Values at each place."""
        return int(self.values.shape[-1])

    def tokens(self) -> NDArray[np.float32]:
        """All places of all pictures as rows, `(N * cells, C)`; a view, nothing is read."""
        return self.values.reshape(-1, self.channels)

    def place(self, token: int) -> tuple[int, tuple[int, ...]]:
        """Which picture, and which cell of its grid, a row of `tokens` is."""
        picture, *cell = np.unravel_index(token, self.values.shape[:-1])
        return int(picture), tuple(int(c) for c in cell)


def extract(
    model: VisionModel,
    pictures: Pictures,
    layer: str | None = None,
    *,
    pool: Pool | None = "mean",
    cache: Path | Literal["default"] | None = "default",
    batch: int | None = None,
) -> Features:
    """A layer's activations on many pictures, and the model's scores, in one pass over them.

    Costs one forward a picture the first time; afterwards only the pictures' files are read again, for their hash.

    Args:
        model: the model.
        pictures: see `media.read_folder`; at least one.
        layer: module path; None takes the last that still knows places.
        pool: fold places into one vector a picture by their `mean` or `max`; None keeps them.
        cache: folder of the cache; None keeps nothing (a temporary file that goes with the result).
        batch: pictures at a time.

    Raises:
        LayerError: no such layer, or one whose output has no row a picture.
        MediaError: no pictures, one that can't be read, or (without pooling) pictures of several input sizes.
    """
    if not len(pictures):
        raise MediaError(f"{pictures.name} holds no picture: name a folder that does.")
    if layer is not None:
        find_layer(model.module, layer)
    home = cache_folder("features") if cache == "default" else cache
    digests = tuple(pictures.digest(i) for i in range(len(pictures)))
    weights = model.fingerprint()
    run = _Run(model, pictures, layer, pool, batch or model.batch)
    layer = run.layer
    about = [_VERSION, weights, model.preprocess.as_dict(), layer, pool, digests, model.device.type, torch.__version__]
    key = _hash([*about, *model.declared.values()])
    with ExitStack() as stack:
        folder = (stack.enter_context(scratch()) if home is None else home) / key
        stored, cost = _load(folder), Cost()
        if stored is None:
            shutil.rmtree(folder, ignore_errors=True)  # damaged, if there is anything
            cost = _store(run, folder)
            stored = _load(folder)
            assert stored is not None
            if home is not None:
                _prune(home, keep=folder)
        values, outputs, meta = stored
        features = Features(
            values=values,
            outputs=outputs,
            layer=layer,
            layout=meta["layout"],
            pool=pool,
            pictures=pictures,
            digests=digests,
            geometries=tuple(Geometry.from_dict(g) for g in meta["geometries"]),
            key=key,
            weights=weights,
            cost=cost,
            _folder=folder,
        )
        weakref.finalize(features, stack.pop_all().close)
    return features


def activations(
    model: VisionModel | nn.Module, inputs: Tensor, layer: str, *, pool: Pool | None = None, batch: int | None = None
) -> tuple[Tensor, Tensor]:
    """`extract` for a batch in memory, `(N, C, *space)`: images, clips or volumes as the model takes them.

    Returns:
        `(N, *grid, C)`, or `(N, C)` pooled; and the model's scores `(N, classes)` or `(N, 0)`.
    """
    module = model.module if isinstance(model, VisionModel) else model
    reading, labels = (model.reading, model.labels) if isinstance(model, VisionModel) else (Reading(), None)
    rows, scores = [], []
    size = batch or default_batch(inputs.device)
    with Capture(module, watch=[layer]) as capture:
        places = Places(capture.module, layer)
        for start in range(0, len(inputs), size):
            found, output = _read(capture, places, pool, inputs[start : start + size], reading, labels)
            rows.append(found.cpu())
            scores.append(output.cpu())
    return torch.cat(rows), torch.cat(scores)


def _read(
    capture: Capture, places: Places, pool: Pool | None, x: Tensor, reading: Reading, labels: Sequence[str] | None
) -> tuple[Tensor, Tensor]:
    """One pass in an open capture: the layer's rows, `(N, *grid, C)` or pooled, and the model's scores."""
    places.layout(x)  # is found by running the model, which must not happen between the pass and its reading
    with torch.no_grad():
        output = capture.forward(x)
        A = capture.watched[places.layer].detach()
        if not A.isfinite().all():
            raise ModelError(f"Layer {places.layer!r} answers with NaN or infinity: check the model's weights.")
        rows = places.rows(A.float(), x)
        if pool is not None:
            cells = rows.flatten(1, -2)
            rows = cells.mean(1) if pool == "mean" else cells.amax(1)
        scores = reading.found(output, len(x), labels)
        return rows, torch.zeros(len(x), 0) if scores is None else scores


class _Run:
    """One pass of the model over the pictures, batch by batch."""

    def __init__(
        self, model: VisionModel, pictures: Pictures, layer: str | None, pool: Pool | None, batch: int
    ) -> None:
        self.model, self.pictures, self.pool, self.batch = model, pictures, pool, batch
        self.layer = layer if layer is not None else self._best()
        self.forwards = 0

    def _best(self) -> str:
        x, _ = self.model.pictures(self.pictures.read(0))
        x = x[None].to(self.model.device, self.model.dtype)
        return best_layer(self.model.module, x, key="output").name

    def inputs(self) -> Iterator[tuple[Tensor, list[Geometry]]]:
        """Batches of inputs of one size, in order."""
        waiting: list[tuple[Tensor, Geometry]] = []
        for index in range(len(self.pictures)):
            x, geometry = self.model.pictures(self.pictures.read(index))
            if waiting and (len(waiting) == self.batch or waiting[0][0].shape != x.shape):
                yield torch.stack([x for x, _ in waiting]), [g for _, g in waiting]
                waiting = []
            waiting.append((x, geometry))
        yield torch.stack([x for x, _ in waiting]), [g for _, g in waiting]

    def rows(self) -> Generator[tuple[Tensor, Tensor, list[Geometry], str]]:
        """Rows, scores, geometries and the layout's name, of each batch."""
        model = self.model
        with (
            task(f"features of {self.layer}", len(self.pictures)) as advance,
            Capture(model.module, watch=[self.layer]) as capture,
        ):
            places = Places(capture.module, self.layer)
            for inputs, geometries in self.inputs():
                x = inputs.to(model.device, model.dtype)
                self.forwards += capture.quicken(x[:1], len(self.pictures))
                self.forwards += len(x)
                rows, scores = _read(capture, places, self.pool, x, model.reading, model.labels)
                yield rows.cpu(), scores.cpu(), geometries, places.said(x)
                advance(len(x))


def _store(run: _Run, folder: Path) -> Cost:
    """Run, writing into a folder of another name, which gets its own when all is there."""
    work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise MediaError(
            f"The cache {folder.parent} can't be written to ({error.strerror}): set PELLUCID_CACHE to a folder "
            "that can, or to `off`."
        ) from error
    try:
        _write(run, work)
        with suppress(OSError):  # somebody else was quicker: theirs is the same
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Cost(forwards=run.forwards)


def _write(run: _Run, work: Path) -> None:
    """The run's values as they come."""
    values = outputs = None
    geometries: list[dict[str, Any]] = []
    layout, done = "", 0
    with closing(run.rows()) as batches:
        for rows, scores, batch, how in batches:
            if values is None or outputs is None:
                values = _create(work / "values.npy", (len(run.pictures), *rows.shape[1:]))
                outputs = _create(work / "outputs.npy", (len(run.pictures), scores.shape[1]))
            if rows.shape[1:] != values.shape[1:]:
                grids = " and ".join(str(tuple(shape[1:-1])) for shape in (values.shape, rows.shape))
                raise MediaError(
                    f"{run.pictures.name} holds pictures of several input sizes, whose grids differ ({grids}): use a "
                    "preprocessing with one input size, or pool the places."
                )
            values[done : done + len(rows)] = rows.numpy()
            outputs[done : done + len(rows)] = scores.numpy()
            geometries += [asdict(g) for g in batch]
            layout, done = how, done + len(rows)
    for array in (values, outputs):
        if isinstance(array, np.memmap):
            array.flush()
    (work / "meta.json").write_text(json.dumps({"layout": layout, "geometries": geometries}))


def _create(file: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if 0 in shape:  # an empty file cannot be mapped
        np.save(file, np.zeros(shape, np.float32))
        return np.zeros(shape, np.float32)
    made: NDArray[np.float32] = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    return made


def _load(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, Any]] | None:
    """What a folder of the cache holds; None if it holds nothing sound."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
        outputs = np.load(folder / "outputs.npy", allow_pickle=False)
        os.utime(folder)  # used just now
        return values, outputs, meta
    except (OSError, ValueError):
        return None


def _prune(home: Path, keep: Path) -> None:
    """Forget what was used longest ago, until the cache is within its limit."""
    with suppress(OSError):
        folders = sorted((p for p in home.iterdir() if p.is_dir() and p != keep), key=lambda p: -p.stat().st_mtime)
        total = _size(keep)
        for folder in folders:
            total += _size(folder)
            if total > CACHE_LIMIT and not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir())


def _hash(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]
