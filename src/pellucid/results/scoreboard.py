"""What `evaluate` found, as people hold it: in words, as a table, as a figure, as a page, on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid import storage
from pellucid.errors import StorageError
from pellucid.evaluation.measure import MeasuredSample, values_of
from pellucid.evaluation.metrics.registry import MetricFacts
from pellucid.evaluation.schedule import Schedule
from pellucid.evaluation.scores import PRICE, ScoreData
from pellucid.explanation import Record
from pellucid.keep.files import comma_separated
from pellucid.keep.shards import encoded, table_of
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

FORMAT = "pellucid-scoreboard/1"
_COLUMNS = {"method": "string", "metric": "string", "sample": "string", "value": "float64", "cost": "int32"}


@dataclass(repr=False)
class Scoreboard(ScoreData, Result):
    """What `evaluate` found: see `ScoreData`."""

    def csv(self) -> str:
        """The rows as comma-separated values."""
        return comma_separated(list(self.rows()))

    def parquet(self) -> bytes:
        """The rows as a Parquet file.

        Raises:
            StorageError: pyarrow is missing.
        """
        return encoded(table_of(list(self.rows()), _COLUMNS))

    @property
    def caption(self) -> str:
        """What was evaluated, on what."""
        return self.title

    def figure(self) -> Figure:
        """The curves with their bands, and every method on every metric with its interval."""
        from pellucid.render.scoreboard import draw

        return draw(self)

    def plot(self) -> Figure:
        """The same as `figure`."""
        return self.figure()

    def on_page(self, file: str = "") -> Card:
        """The table, the curves, each metric's definition and traps, and maps side by side."""
        from pellucid.render.pages.scoreboard import scoreboard_card

        return scoreboard_card(self, file=file)

    def save(self, folder: str | Path) -> list[Path]:
        """Write values (.npz), record (.json), rows (.parquet, or .csv without pyarrow) and page (.html); the page
        comes last.
        """
        name = f"{slug(str(self.record.input.get('name') or 'inputs'))}.scores"
        stem = Path(folder) / unused(name, names_of_inputs(folder, self.samples))
        try:
            rows = {stem.with_name(f"{stem.name}.parquet"): self.parquet()}
        except StorageError:
            rows = {stem.with_name(f"{stem.name}.csv"): self.csv().encode()}
        further = {**rows, stem.with_name(f"{stem.name}.html"): self.html().encode()}
        return storage.write_artefact(stem.with_name(f"{stem.name}.npz"), FORMAT, self._arrays(), self._meta(), further)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        named = {f"scores.{m.name}": self.scores[:, k] for k, m in enumerate(self.metrics)}
        masks = {f"mask.{n}": np.packbits(mask.numpy()) for n, mask in self.masks.items()}
        facts: dict[str, NDArray[Any]] = {
            "price": self.price,
            "curves": self.curves,
            "shown": self.shown,
            "thumbs": self.thumbs,
        }
        return {**named, **masks, **facts}

    def _meta(self) -> dict[str, Any]:
        return {
            "methods": self.methods,
            "blind": self.blind,
            "metrics": [asdict(m) for m in self.metrics],
            "samples": self.samples,
            "own": self.own,
            "masks": {str(n): list(mask.shape) for n, mask in self.masks.items()},
            "said": [list(each) for each in self.said],
            "record": asdict(self.record),
            "notes": self.notes,
        }


def scoreboard(
    measured: Sequence[MeasuredSample], schedule: Schedule, record: Record, notes: list[str], thumbs: NDArray[np.uint8]
) -> Scoreboard:
    """What the loop gave, as people hold it."""
    by_method = list(zip(*(m.rows for m in measured), strict=True))
    steps = max((len(r.curves[0]) for column in by_method for r in column if r.curves), default=0)
    curves = np.full((len(by_method), len(measured), 2, steps), np.nan)
    shape = measured[0].shape
    shown = np.full((len(by_method), len(measured), *shape), np.nan, np.float32)
    said = []
    for c, column in enumerate(by_method):
        for n, row in enumerate(column):
            if row.curves:
                curves[c, n] = row.curves
            if row.shown and measured[n].shape == shape:
                shown[c, n] = np.reshape(row.shown, shape)
            said += [(schedule.competitors[c].name, measured[n].sample.name, sentence) for sentence in row.said]
    price = [[[getattr(r, name) if r.shown else math.nan for r in column] for name in PRICE] for column in by_method]
    space = measured[0].sample.space
    return Scoreboard(
        methods=[c.name for c in schedule.competitors],
        blind=[c.blind for c in schedule.competitors],
        metrics=[m.facts for m in schedule.metrics],
        samples=[m.sample.name for m in measured],
        scores=values_of(measured, schedule.metrics),
        price=np.array(price, np.float64),
        own=[m.bank.own(space) for m in schedule.metrics],
        curves=curves,
        shown=shown,
        thumbs=thumbs,
        masks={n: m.sample.mask for n, m in enumerate(measured) if m.sample.mask is not None},
        said=said,
        record=record,
        notes=notes,
    )


def read_scoreboard(artefact: storage.Artefact) -> Scoreboard:
    """An artefact as the scoreboard that it holds."""
    with storage.reading(artefact):
        meta, found = artefact.meta, artefact.arrays
        metrics = [MetricFacts(**m) for m in meta["metrics"]]
        masks = {}
        for n, shape in meta["masks"].items():
            bits = np.unpackbits(found[f"mask.{n}"])[: math.prod(shape)]
            masks[int(n)] = torch.from_numpy(bits.astype(bool).reshape(shape))
        return Scoreboard(
            methods=meta["methods"],
            blind=meta["blind"],
            metrics=metrics,
            samples=meta["samples"],
            scores=np.stack([found[f"scores.{m.name}"] for m in metrics], 1),
            price=found["price"],
            own=meta["own"],
            curves=found["curves"],
            shown=found["shown"],
            thumbs=found["thumbs"],
            masks=masks,
            said=[(m, s, text) for m, s, text in meta["said"]],
            record=storage.record_from(meta),
            notes=meta["notes"],
        )
