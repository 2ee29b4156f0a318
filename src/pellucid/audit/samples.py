"""One row a picture or clip: scores, embedding, heat map, properties; one forward, one tail backward each; kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pellucid.audit.kept import KeptRows
from pellucid.audit.metadata import source_in
from pellucid.audit.truth import class_numbers
from pellucid.engine import Capture
from pellucid.errors import MediaError, ModelError, PellucidError
from pellucid.heatmaps.activations import choose_layer
from pellucid.keep.artefact import strict
from pellucid.media import CLIP, Clip, Geometry, Picture, Pictures
from pellucid.models.model import VisionModel
from pellucid.models.targets import TopClass
from pellucid.progress import task
from pellucid.scoring.job import prepare

GRID, THUMB = 14, 24  # cells of a heat map along each axis, pixels of a thumbnail
PROPERTIES = ("brightness", "contrast", "sharpness", "colourfulness", "pixels", "elongation", "edge brightness")
MOVING = ("motion", "change of brightness")  # of clips, besides
_VERSION = 1
_TRIED = 8  # pictures on which a model may fail before it is given up

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SampleTable:
    """N pictures, and what a model says of them.

    Attributes:
        positions: `(N,)`, numbers of the pictures that could be used.
        scores: `(N, K)`, the model's own.
        probabilities: `(N, K)`.
        embedding: `(N, D)`, the layer's mean over its places.
        maps: `(N, GRID, GRID)`, activation times gradient of the top class at that layer, summed over channels, signed;
            of clips the mean over time.
        properties: `(N, len(names))`, of the picture itself, or of the middle frame and the clip.
        boxes: `(N, 4)`, what the model saw of each picture: top, left, bottom, right, as shares of its sides.
        thumbs: `(N, THUMB, THUMB, 3)`, uint8.
        truth: `(N,)`, the true class as the model numbers it; -1 where it is unknown.
        layer: that was read.
        failed: what could not be used, one sentence each.
        objects: `(N, GRID, GRID)`, how much of each cell of `maps` lies on the object, NaN where its place is unknown;
            None where no place is known at all.
    """

    positions: NDArray[np.int64]
    scores: Array
    probabilities: Array
    embedding: Array
    maps: Array
    properties: Array
    boxes: Array
    thumbs: NDArray[np.uint8]
    truth: NDArray[np.int64]
    layer: str = ""
    failed: tuple[str, ...] = ()
    objects: Array | None = None

    def __len__(self) -> int:
        """Pictures."""
        return len(self.positions)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each picture, out of its properties (exact up to some 100,000 pixels a side)."""
        pixels, long = (self.properties[:, PROPERTIES.index(n)].astype(np.float64) for n in ("pixels", "elongation"))
        sides = np.exp2(np.stack([pixels - long, pixels + long], 1) / 2).round().astype(int)
        return [(int(height), int(width)) for height, width in sides]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the properties."""
        return (*PROPERTIES, *MOVING)[: self.properties.shape[1]]

    @property
    def answers(self) -> NDArray[np.int64]:
        """The top class of each, `(N,)`."""
        found: NDArray[np.int64] = self.scores.argmax(1)
        return found

    @property
    def confidence(self) -> Array:
        """The probability of the top class, `(N,)`."""
        found: Array = self.probabilities.max(1)
        return found

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether the true class is known, `(N,)`."""
        found: NDArray[np.bool_] = self.truth >= 0
        return found

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether the answer is not the true class, `(N,)`; False where that is unknown."""
        found: NDArray[np.bool_] = self.known & (self.answers != self.truth)
        return found


_ROWS = ("scores", "probabilities", "embedding", "maps", "properties", "boxes", "thumbs")


def build(
    model: VisionModel, pictures: Pictures, layer: str | None = None, keep: Path | None = None
) -> tuple[VisionModel, SampleTable]:
    """The table, batch by batch, and the model with its reading settled; a batch that was kept is not run again.

    Args:
        model: of pictures or clips, with class scores.
        pictures: that are read one at a time; of clips, each read as one.
        layer: module path; None finds the last that reads as a picture.
        keep: folder for finished batches; None keeps none.

    Raises:
        ModelError: no class scores.
        MediaError: none of the pictures can be used.
    """
    reader = _Reader(model, pictures, layer, keep)
    batches: list[dict[str, NDArray[Any]]] = []
    with reader.borrowed(), task("pictures", len(pictures)) as advance:
        for start in range(0, len(pictures), reader.batch):
            some = range(start, min(start + reader.batch, len(pictures)))
            found = reader.read(some)
            batches += [found] if found is not None else []
            advance(len(some))
    rows = {name: np.concatenate([b[name] for b in batches]) for name in ("positions", *_ROWS)}
    numbers = np.array(class_numbers(reader.model, pictures, rows["scores"].shape[1]) or [-1])
    told = pictures.labels[rows["positions"]] if len(pictures.labels) else np.full(len(rows["positions"]), -1)
    truth = np.where(told >= 0, numbers[told], -1)
    return reader.model, SampleTable(truth=truth, layer=reader.layer.name, failed=tuple(reader.failed), **rows)


class _Reader:
    """One pass over the pictures."""

    def __init__(self, model: VisionModel, pictures: Pictures, layer: str | None, keep: Path | None) -> None:
        self.model, self.pictures, self.batch, self.failed = model, pictures, model.batch, list[str]()
        x = self._first()
        self.failed.clear()
        self.layer = choose_layer(layer, prepare(self.model, x, [TopClass()]), True)
        about = [_VERSION, model.fingerprint(), strict(model.preprocess.as_dict()), self.layer.name, model.declared]
        self.kept = KeptRows(keep, about)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Inside, the model is lent once for all batches: to look through its modules for each takes as long as one."""
        with Capture(self.model.module, [self.layer.name], runs={self.layer.name: self.layer.runs}) as self._capture:
            yield

    def _first(self) -> Tensor:
        """An input on which the model does not fail, of the first few pictures that can be opened; it is settled.

        Raises:
            ModelError: it fails on all of them.
            MediaError: none can be opened.
        """
        errors: list[ModelError] = []
        for _, looked in islice(self._opened(range(len(self.pictures))), _TRIED):
            x = inputs(self.model, [looked])
            try:
                settled = self.model.settled(x, self.model.outputs(x))
                settled.reading.class_scores(self.model.outputs(x))
            except ModelError as error:
                errors.append(error)
            else:
                self.model = settled
                return x
        if errors:
            raise errors[0]
        raise MediaError(self.failed[0] if self.failed else f"{self.pictures.name} holds no picture: name a folder.")

    def read(self, positions: range) -> dict[str, NDArray[Any]] | None:
        """The rows of a batch, kept or new; None where no picture of it can be used."""
        opened = list(self._opened(positions))
        if not opened:
            return None
        try:
            return self._rows(opened)
        except ModelError:
            return self._one_by_one(opened)

    def _rows(self, opened: list[tuple[int, Picture | Clip]]) -> dict[str, NDArray[Any]]:
        digests = " ".join(p.sha256 for _, p in opened)
        rows = self.kept.rows(digests, _ROWS, lambda: self._run([p for _, p in opened]))
        return {"positions": np.array([i for i, _ in opened]), **rows}

    def _one_by_one(self, opened: list[tuple[int, Picture | Clip]]) -> dict[str, NDArray[Any]] | None:
        """The rows of those on which the model does not fail; the others are noted, and the rest goes on."""
        found = []
        for i, looked in opened:
            try:
                found.append(self._rows([(i, looked)]))
            except ModelError as error:
                self.failed.append(f"{source_in(self.pictures, i)}: {error}")
        return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]} if found else None

    def _opened(self, positions: range) -> Iterator[tuple[int, Picture | Clip]]:
        for i in positions:
            try:
                yield i, opened(self.model, self.pictures, i)
            except PellucidError as error:
                self.failed.append(str(error))

    def _run(self, pictures: list[Picture | Clip]) -> dict[str, NDArray[Any]]:
        x, geometries = zip(*(_ready(self.model, p) for p in pictures), strict=True)
        scores, A, G = self._pass(torch.stack(x).to(self.model.device, self.model.dtype))
        evidence = (A * G).sum(1)
        if evidence.ndim == 4:  # clips: over time
            evidence = evidence.mean(1)
        images = [still(p).pil() for p in pictures]
        maps = adaptive_avg_pool2d(evidence[:, None], GRID)[:, 0]
        return {
            "scores": scores.float().cpu().numpy(),
            "probabilities": self.model.reading.probabilities(scores.float()).cpu().numpy(),
            "embedding": A.flatten(2).mean(2).cpu().numpy(),
            "maps": maps.cpu().numpy(),
            "boxes": np.stack([_box(geometry) for geometry in geometries]),
            "properties": properties(pictures, images),
            "thumbs": np.stack([_thumb(image) for image in images]),
        }

    def _pass(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class scores `(N, K)`, and activation and gradient of the top one `(N, C, h, w)` at the layer."""
        read: list[Tensor] = []

        def top(output: Any, _watched: Any) -> list[Tensor]:
            read.append(self.model.reading.class_scores(self.model.sound(output)))
            return [read[-1].amax(1)]

        name, layout = self.layer.name, self.layer.layout
        _, chosen = self._capture.scored(x, top)
        (found,) = self._capture.gradients(chosen)
        A = layout.to_map(self._capture.activations[name].detach()).float()
        return read[-1].detach(), A, layout.to_map(found[name]).float()


def _box(geometry: Geometry) -> Array:
    """What the model sees of a picture; all of it where that is not known."""
    (top, bottom), (left, right) = geometry.box[-2:] if geometry.known else ((0, 1), (0, 1))
    height, width = geometry.source_size[-2:] if geometry.known else (1, 1)
    return np.array((top / height, left / width, bottom / height, right / width), np.float32).clip(0, 1)


def _thumb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.resize((THUMB, THUMB), Image.Resampling.BOX))


def opened(model: VisionModel, pictures: Pictures, index: int) -> Picture | Clip:
    """One of the pictures; of a model of clips, the frames of one that its plan takes.

    Raises:
        MediaError: it cannot be opened, or is of another medium.
    """
    found = pictures.read(index)
    return CLIP.opened(found, model.name).clip(model.clips.plan) if model.takes_clips else found


def still(looked: Picture | Clip) -> Picture:
    """What is shown of it: of a clip the frame in the middle."""
    return looked if isinstance(looked, Picture) else looked.picture(len(looked.frames) // 2)


def inputs(model: VisionModel, pictures: Sequence[Picture | Clip]) -> Tensor:
    """The pictures as the model takes them, `(N, C, H, W)`, or clips `(N, C, T, H, W)`."""
    return torch.stack([_ready(model, p)[0] for p in pictures]).to(model.device, model.dtype)


def _ready(model: VisionModel, looked: Picture | Clip) -> tuple[Tensor, Geometry]:
    return model.clips(looked) if isinstance(looked, Clip) else model.pictures(looked)


def reread(model: VisionModel, pictures: Pictures, samples: SampleTable, rows: Sequence[int]) -> Tensor:
    """The pictures of some rows, read again, as the model takes them: see `inputs`."""
    return inputs(model, [opened(model, pictures, int(samples.positions[i])) for i in rows])


class Reopened:
    """`reread` that keeps what it has read, where all is no more than 256 MB: for pictures read many times.

    Args:
        model, pictures, samples: see `reread`.
    """

    _LIMIT = 2**28

    def __init__(self, model: VisionModel, pictures: Pictures, samples: SampleTable) -> None:
        self._read = partial(reread, model, pictures, samples)
        self._have = np.zeros(len(samples), bool)
        self._kept: Tensor | None = None

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """The pictures of some rows, `(n, C, H, W)`."""
        asked = np.asarray(rows, np.int64)
        new = np.unique(asked[~self._have[asked]])
        if len(new):
            found = self._read(new.tolist())
            if found[0].nbytes * len(self._have) > self._LIMIT:
                return found[torch.from_numpy(np.searchsorted(new, asked))]
            if self._kept is None:
                self._kept = found.new_empty((len(self._have), *found.shape[1:]))
            self._kept[torch.from_numpy(new)] = found
            self._have[new] = True
        assert self._kept is not None
        return self._kept[torch.from_numpy(asked)]


def properties(looked: Sequence[Picture | Clip], images: Sequence[Image.Image] | None = None) -> Array:
    """What pictures are like by themselves, `(n, len(PROPERTIES))`; of clips their middle frames, then `MOVING`.

    `images`: what is shown of each (`still`), where that is at hand.
    """
    images = images or [still(one).pil() for one in looked]
    pixels = np.stack([np.asarray(image.resize((64, 64), Image.Resampling.BOX)) for image in images])
    red, green, blue = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))  # whole numbers are quicker than shares
    grey = (red.astype(np.uint16) + green + blue) / np.float32(3 * 255)
    colour = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    inner = np.s_[:, 1:-1, 1:-1]
    bend = 4 * grey[inner] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    edges = (grey[:, :4], grey[:, -4:], grey[:, :, :4], grey[:, :, -4:])
    rows = [
        _flat(grey).mean(1),
        _flat(grey).std(1),
        _flat(bend).std(1),
        _flat(colour).mean(1) / 255,
        np.log2([image.width * image.height for image in images]),
        np.log2([image.width / image.height for image in images]),
        np.concatenate([_flat(edge) for edge in edges], 1).mean(1),
    ]
    rows += zip(*(_motion(one) for one in looked if isinstance(one, Clip)), strict=True)
    return np.stack(rows, 1).astype(np.float32)


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(len(values), -1)


def _motion(clip: Clip) -> tuple[float, float]:
    """By how much pixels change from frame to frame on average, and the brightness of the whole frame."""
    step = max(1, max(clip.frames.shape[1:3]) // 64)
    small = clip.frames[:, ::step, ::step].astype(np.float32) / 255
    if len(small) < 2:
        return 0.0, 0.0
    changed = np.diff(small, axis=0)
    return float(np.abs(changed).mean()), float(np.abs(changed.mean((1, 2, 3))).mean())


def arrays(samples: SampleTable) -> dict[str, NDArray[Any]]:
    """All arrays by name, to be stored."""
    found = {f.name: getattr(samples, f.name) for f in fields(samples)}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
