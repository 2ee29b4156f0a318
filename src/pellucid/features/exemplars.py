"""Natural exemplars: the pictures of a folder that excite a unit most, least, and in between.

One pass over the folder, which ends at the layer, ranks the pictures for all units at once. Its scores are kept on
disk (see `table`), so a search that was cut short goes on where it stopped, and one that is asked again costs nothing.
Only the pictures chosen are run once more, for the unit's map in each and the crop that the unit looks at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.engine import unwrap
from pellucid.errors import MediaError, MethodError
from pellucid.features.folder import Folder, Loader, Patch
from pellucid.features.measures import Look, Measure, look, resized
from pellucid.features.receptive_field import Box, ReceptiveField, receptive_field
from pellucid.features.table import ScoreTable
from pellucid.keep.artefact import strict
from pellucid.keep.home import cache_folder
from pellucid.keep.scratch import scratch
from pellucid.media import Geometry, Origin
from pellucid.models.layers import Layer
from pellucid.models.model import VisionModel
from pellucid.models.opens import require_layers_open
from pellucid.progress import task

Role = Literal["top", "bottom", "middle"]

PERCENTILES = tuple(range(101))
LEAST_CROP = 0.2  # of the input's shorter side: smaller crops are not recognisable


@dataclass(frozen=True)
class Exemplar(Patch):
    """One picture as a unit sees it: the patch is the effective receptive field of the cell that fires most.

    Attributes:
        role: `top`, `bottom` or `middle`.
        rank: its place, counted from the top (0) or from the bottom (0); for `middle` the share of pictures below.
        score: the unit's number.
        map: the unit's map `(*grid)`.
        features: `(C,)`, what the whole layer answers in that cell (for a target: on average); not stored.
    """

    role: Role
    rank: float
    score: float
    map: Tensor
    features: Tensor = field(default_factory=lambda: torch.zeros(0), compare=False, repr=False)


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
        field: the receptive field of the layer's cells; None where no exemplar was asked for.
        forwards: forward passes of one picture that were run (0 for the ranking if it was cached).
        cached: whether the ranking was on disk already.
        data: hash of the pictures, in order.
        notes: what a reader must know.
    """

    measure: Measure
    units: tuple[UnitExemplars, ...]
    field: ReceptiveField | None
    forwards: int
    cached: bool
    data: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which pictures of a ranking are looked at.

    Attributes:
        top, bottom: how many of the strongest and of the weakest.
        quantiles: pictures in between, by the share of pictures below them, such as `(0.25, 0.5, 0.75)`.
        units: those of the measure's units that are wanted; None for all.
    """

    top: int = 9
    bottom: int = 0
    quantiles: Sequence[float] = ()
    units: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if any(not 0 <= q <= 1 for q in self.quantiles):
            raise MethodError(f"Quantiles are shares of the pictures, from 0 to 1, not {list(self.quantiles)}.")


def find_exemplars(
    model: VisionModel,
    pictures: str | Path | Sequence[str | Path],
    measure: Measure,
    selection: Selection = Selection(),
    *,
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
        selection: which of them are looked at.
        cache: True for the user's cache folder, a folder of your own, or False for none.
        batch: pictures at a time.
        seed: of the receptive field's measurement.

    Raises:
        MediaError: no picture, or none that can be read.
        ModelError: a black box, which has no layers.
    """
    require_layers_open(model.module, "there are no units to look into")
    folder = Folder.of(pictures)
    wanted = list(measure.units if selection.units is None else selection.units)
    columns = [measure.units.index(u) for u in wanted]
    loader = Loader(model, folder, batch or model.batch)
    with ExitStack() as stack:
        home = cache_folder("exemplars") if cache is True else Path(cache) if cache else None
        if home is None:
            home = stack.enter_context(scratch())
        about = {
            "model": model.fingerprint(),
            "preprocess": strict(model.preprocess.as_dict()),
            "measure": measure.describe(),
            "data": folder.digest,
            **model.declared,
        }
        table = ScoreTable(home, about, len(folder), len(measure.units))
        cached = table.complete
        forwards = _rank(loader, measure, table)
        picks = {c: _pick(scores, selection) for c, scores in table.columns_at(columns)}
        table.close()
    looked = _look_at(loader, measure, picks, seed)
    found = tuple(looked.unit(u, c, picks[c]) for u, c in zip(wanted, columns, strict=True))
    ranked = found[0].count if found else 0
    notes = () if ranked == len(folder) else (folder.left_out(ranked),)
    return Exemplars(measure, found, looked.field, forwards + looked.forwards, cached, folder.digest, notes)


def _rank(loader: Loader, measure: Measure, table: ScoreTable) -> int:
    """Fill what is missing of the table; the forward passes it took."""
    rows = range(table.done, len(loader.folder))
    forwards = 0
    if not rows:
        return forwards
    with task("ranking pictures", len(rows)) as advance, measure.opened(unwrap(loader.model.module)) as capture:
        for part, loaded in loader.batches(rows):
            scores = torch.full((len(part), len(measure.units)), torch.nan)
            for places, inputs in loader.stacked(loaded):
                forwards += capture.quicken(inputs[:1], len(rows))
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


def _pick(scores: Tensor, selection: Selection) -> _Picked:
    """Exemplars among the scores `(rows,)` of one unit; of equal scores the first picture comes first."""
    rows = (~scores.isnan()).nonzero()[:, 0]
    if not len(rows):
        raise MediaError("None of the pictures could be read: name a folder with sound pictures.")
    kept = scores[rows]
    down, up = kept.argsort(descending=True, stable=True), kept.argsort(stable=True)
    chosen: list[tuple[int, Role, float, float]] = []
    chosen += [(int(i), "top", float(r), float(kept[i])) for r, i in enumerate(down[: selection.top])]
    chosen += [(int(i), "bottom", float(r), float(kept[i])) for r, i in enumerate(up[: selection.bottom])]
    for q in selection.quantiles:
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
class _Looked:
    """The chosen pictures, run once more."""

    field: ReceptiveField | None
    forwards: int
    local: bool
    seen: dict[int, tuple[Origin, Geometry]]
    looks: dict[tuple[int, int], Look]
    fields: dict[tuple[int, ...], ReceptiveField]

    def unit(self, unit: int, column: int, picked: _Picked) -> UnitExemplars:
        """A unit's exemplars."""
        made = [self._exemplar(column, *one) for one in picked.chosen]
        roles = {role: tuple(e for e in made if e.role == role) for role in ("top", "bottom", "middle")}
        return UnitExemplars(
            unit, **roles, percentiles=picked.percentiles, mean=picked.mean, std=picked.std, count=picked.count
        )

    def _exemplar(self, column: int, row: int, role: Role, rank: float, score: float) -> Exemplar:
        origin, geometry = self.seen[row]
        look = self.looks[row, column]
        field = self.fields[geometry.input_size]
        box: Box = tuple((0.0, float(n)) for n in geometry.input_size)
        if self.local:
            box = field.crop(look.cell, LEAST_CROP * min(geometry.input_size))
        return Exemplar(origin, look.cell, box, geometry, role, rank, score, look.map, look.features)


def _look_at(loader: Loader, measure: Measure, picks: Mapping[int, _Picked], seed: int) -> _Looked:
    """Run the chosen pictures for the units' maps, and measure what the layer's cells see."""
    wanted: dict[int, set[int]] = {}
    for column, picked in picks.items():
        for row, *_ in picked.chosen:
            wanted.setdefault(row, set()).add(column)
    module = unwrap(loader.model.module)
    seen: dict[int, tuple[Origin, Geometry]] = {}
    looks: dict[tuple[int, int], Look] = {}
    samples: dict[tuple[int, ...], tuple[Tensor, Layer]] = {}
    with task("looking at exemplars", len(wanted)) as advance, measure.opened(module) as capture:
        for part, loaded in loader.batches(sorted(wanted)):
            for places, inputs in loader.stacked(loaded):
                seen_by = look(measure, capture, inputs)
                for i, place in enumerate(places):
                    row, item = part[place], loaded[place]
                    assert item is not None
                    seen[row] = Origin.of(item[0]), item[2]
                    looks |= {(row, column): seen_by(i, column) for column in wanted[row]}
                space = tuple(inputs.shape[2:])
                if space not in samples:
                    shape = tuple(capture.activations[measure.layer.name].shape)
                    samples[space] = inputs[:4].clone(), resized(measure.layer, shape, space)
            advance(len(part))
    fields = {space: receptive_field(module, inputs, layer, seed=seed) for space, (inputs, layer) in samples.items()}
    first = next(iter(fields.values()), None)
    return _Looked(first, len(seen), measure.local, seen, looks, fields)
