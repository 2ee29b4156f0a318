"""Natural exemplars: the pictures of a folder that excite a unit most, least, and in between.

One pass over the folder, which ends at the layer, ranks the pictures for all units at once. Its scores are kept on
disk (see `table`), so a search that was cut short goes on where it stopped, and one that is asked again costs nothing.
Only the pictures chosen are run once more, for the unit's map in each and the crop that the unit looks at.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.engine import default_batch, task, unwrap
from pellucid.errors import MediaError, MethodError, ModelError
from pellucid.features.measures import Measure, resized
from pellucid.features.receptive_field import Box, ReceptiveField, receptive_field
from pellucid.features.table import ScoreTable, user_cache
from pellucid.media import Geometry, Picture, expand, read_image, sample_path
from pellucid.models.blackbox import BlackBox
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess
from pellucid.storage import strict

Role = Literal["top", "bottom", "middle"]

SAMPLE = "sample:"
PERCENTILES = tuple(range(101))
LEAST_CROP = 0.2  # of the input's shorter side: smaller crops are not recognisable


@dataclass(frozen=True)
class Exemplar:
    """One picture as a unit sees it.

    Attributes:
        source: what opens the picture.
        name: the picture's name.
        sha256: of its file.
        role: `top`, `bottom` or `middle`.
        rank: its place, counted from the top (0) or from the bottom (0); for `middle` the share of pictures below.
        score: the unit's number.
        cell: where the unit fires most, on the layer's grid.
        box: the effective receptive field of that cell, in pixels of the model's input.
        map: the unit's map `(*grid)`.
        geometry: the way from the model's input to the picture.
    """

    source: str
    name: str
    sha256: str
    role: Role
    rank: float
    score: float
    cell: tuple[int, ...]
    box: Box
    map: Tensor
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


@dataclass(frozen=True)
class UnitExemplars:
    """A unit's exemplars, and how its scores are distributed over the pictures.

    Attributes:
        unit: the channel (0 for a target).
        top, bottom, middle: exemplars, in order.
        percentiles: `(101,)`: the least score, those below which 1 %, 2 % ... of the pictures lie, the largest.
        mean, std: of the scores.
        count: pictures ranked.
    """

    unit: int
    top: tuple[Exemplar, ...]
    bottom: tuple[Exemplar, ...]
    middle: tuple[Exemplar, ...]
    percentiles: Tensor
    mean: float
    std: float
    count: int


@dataclass(frozen=True)
class Exemplars:
    """What a search found.

    Attributes:
        measure: what the pictures were ranked by.
        units: one entry a unit, in the measure's order.
        field: the receptive field of the layer's cells.
        forwards: forward passes of one picture that were run (0 for the ranking if it was cached).
        cached: whether the ranking was on disk already.
        data: hash of the pictures, in order.
        notes: what a reader must know.
    """

    measure: Measure
    units: tuple[UnitExemplars, ...]
    field: ReceptiveField
    forwards: int
    cached: bool
    data: str
    notes: tuple[str, ...] = ()


def find_exemplars(
    model: VisionModel,
    pictures: str | Path | Sequence[str | Path],
    measure: Measure,
    *,
    top: int = 9,
    bottom: int = 0,
    quantiles: Sequence[float] = (),
    units: Sequence[int] | None = None,
    cache: Path | str | bool = True,
    batch: int | None = None,
    seed: int = 0,
) -> Exemplars:
    """Rank the pictures of a folder for many units at once, and see what the units look at in the leading ones.

    The ranking costs one forward pass a picture, up to the layer; each different picture chosen costs one more.

    Args:
        model: left as it was.
        pictures: folder, glob, files, `sample:*`, or a list of these.
        measure: what to rank by, and for which units.
        top, bottom: how many of the strongest and of the weakest.
        quantiles: pictures in between, by the share of pictures below them, such as `(0.25, 0.5, 0.75)`.
        units: those of the measure's units that are wanted; all by default.
        cache: True for the user's cache folder, a folder of your own, or False for none.
        batch: pictures at a time.
        seed: of the receptive field's measurement.

    Raises:
        MediaError: no picture, or none that can be read.
        ModelError: a black box, which has no layers.
    """
    if isinstance(unwrap(model.module), BlackBox):
        raise ModelError("A black box shows no layers, so there are no units to look into: load the network itself.")
    if any(not 0 <= q <= 1 for q in quantiles):
        raise MethodError(f"Quantiles are shares of the pictures, from 0 to 1, not {list(quantiles)}.")
    folder = Folder.of(pictures)
    wanted = list(measure.units if units is None else units)
    columns = [measure.units.index(u) for u in wanted]
    loader = _Loader(model, folder, batch or default_batch(model.device))
    with ExitStack() as stack:
        if cache is False:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pellucid-")))
        else:
            home = user_cache() / "exemplars" if cache is True else Path(cache)
        about = {
            "model": model.fingerprint(),
            "preprocess": strict(model.preprocess.as_dict()),
            "measure": measure.describe(),
            "data": folder.digest,
        }
        table = ScoreTable(home, about, len(folder), len(measure.units))
        cached = table.complete
        forwards = _rank(loader, measure, table)
        picks = {c: _pick(scores, top, bottom, quantiles) for c, scores in table.columns_at(columns)}
        table.close()
    looked = _look(loader, measure, picks, seed)
    found = tuple(looked.unit(u, c, picks[c]) for u, c in zip(wanted, columns, strict=True))
    ranked = found[0].count if found else 0
    notes = () if ranked == len(folder) else (folder.left_out(ranked),)
    return Exemplars(measure, found, looked.field, forwards + looked.forwards, cached, folder.digest, notes)


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
    path = sample_path(source) if source.startswith(SAMPLE) else Path(os.path.expanduser(source))
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return f"unreadable {source}"


Loaded = tuple[Picture, Tensor, Geometry]


class _Loader:
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
                for part, following in zip(parts, [*parts[1:], []], strict=True):
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
            return picture, *self.model.preprocess(picture)
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


def _rank(loader: _Loader, measure: Measure, table: ScoreTable) -> int:
    """Fill what is missing of the table; the forward passes it took."""
    rows = range(table.done, len(loader.folder))
    forwards = 0
    if not rows:
        return forwards
    with task("ranking pictures", len(rows)) as advance, measure.opened(unwrap(loader.model.module)) as capture:
        for part, loaded in loader.batches(rows):
            scores = torch.full((len(part), len(measure.units)), torch.nan)
            for places, inputs in loader.stacked(loaded):
                scores[places] = measure.scores(capture, inputs).detach().cpu().float()
                forwards += len(places)
            table.fill(scores)
            advance(len(part))
    return forwards


@dataclass(frozen=True)
class _Picked:
    """Rows chosen for a unit, with role, rank and score; and the distribution of its scores."""

    chosen: tuple[tuple[int, Role, float, float], ...]
    percentiles: Tensor
    mean: float
    std: float
    count: int


def _pick(scores: Tensor, top: int, bottom: int, quantiles: Sequence[float]) -> _Picked:
    """Exemplars among the scores `(rows,)` of one unit; of equal scores the first picture comes first."""
    rows = (~scores.isnan()).nonzero()[:, 0]
    if not len(rows):
        raise MediaError("None of the pictures could be read: name a folder with sound pictures.")
    kept = scores[rows]
    down, up = kept.argsort(descending=True, stable=True), kept.argsort(stable=True)
    chosen: list[tuple[int, Role, float, float]] = []
    chosen += [(int(i), "top", float(r), float(kept[i])) for r, i in enumerate(down[:top])]
    chosen += [(int(i), "bottom", float(r), float(kept[i])) for r, i in enumerate(up[:bottom])]
    for q in quantiles:
        i = up[round(q * (len(up) - 1))]
        chosen.append((int(i), "middle", float(q), float(kept[i])))
    return _Picked(
        tuple((int(rows[i]), role, rank, score) for i, role, rank, score in chosen),
        torch.from_numpy(np.percentile(kept.double().numpy(), PERCENTILES)),
        float(kept.double().mean()),
        float(kept.double().std(correction=0)),
        len(kept),
    )


@dataclass
class _Look:
    """The chosen pictures, run once more."""

    field: ReceptiveField
    forwards: int
    local: bool
    seen: dict[int, tuple[Picture, Geometry]]
    maps: dict[tuple[int, int], Tensor]
    fields: dict[tuple[int, ...], ReceptiveField]

    def unit(self, unit: int, column: int, picked: _Picked) -> UnitExemplars:
        """A unit's exemplars."""
        made = [self._exemplar(column, *one) for one in picked.chosen]
        roles = {role: tuple(e for e in made if e.role == role) for role in ("top", "bottom", "middle")}
        return UnitExemplars(
            unit, **roles, percentiles=picked.percentiles, mean=picked.mean, std=picked.std, count=picked.count
        )

    def _exemplar(self, column: int, row: int, role: Role, rank: float, score: float) -> Exemplar:
        picture, geometry = self.seen[row]
        values = self.maps[row, column]
        cell = tuple(int(i) for i in torch.unravel_index(values.argmax(), values.shape))
        field = self.fields[geometry.input_size]
        box: Box = tuple((0.0, float(n)) for n in geometry.input_size)
        if self.local:
            box = field.crop(cell, LEAST_CROP * min(geometry.input_size))
        return Exemplar(picture.source, picture.name, picture.sha256, role, rank, score, cell, box, values, geometry)


def _look(loader: _Loader, measure: Measure, picks: Mapping[int, _Picked], seed: int) -> _Look:
    """Run the chosen pictures for the units' maps, and measure what the layer's cells see."""
    wanted: dict[int, set[int]] = {}
    for column, picked in picks.items():
        for row, *_ in picked.chosen:
            wanted.setdefault(row, set()).add(column)
    module = unwrap(loader.model.module)
    seen: dict[int, tuple[Picture, Geometry]] = {}
    maps: dict[tuple[int, int], Tensor] = {}
    samples: dict[tuple[int, ...], Tensor] = {}
    with task("looking at exemplars", len(wanted)) as advance, measure.opened(module) as capture:
        for part, loaded in loader.batches(sorted(wanted)):
            for places, inputs in loader.stacked(loaded):
                batch = measure.maps(capture, inputs).detach().cpu()
                for place, found in zip(places, batch, strict=True):
                    row, item = part[place], loaded[place]
                    assert item is not None
                    seen[row] = item[0], item[2]
                    maps |= {(row, column): found[column].clone() for column in wanted[row]}
                samples.setdefault(tuple(inputs.shape[2:]), inputs[:4].clone())
            advance(len(part))
    fields = {
        size: receptive_field(module, inputs, resized(measure.layer, module, inputs), seed=seed)
        for size, inputs in samples.items()
    }
    first = next(iter(fields.values()))
    return _Look(first, len(seen), measure.local, seen, maps, fields)
