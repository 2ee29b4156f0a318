"""Importance as data: a number with its interval for each player, for one picture or for each group of a folder."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.explanation import Brief, Prediction, Record
from pellucid.keep.files import comma_separated
from pellucid.media.clip import Clip
from pellucid.media.geometry import Geometry
from pellucid.media.picture import Picture
from pellucid.numerics.presence_tree import PresenceTree

INTERVAL = "student"
"""How intervals are made, for the record: of an older one, or one without a word, they cannot be compared."""


@dataclass(repr=False)
class Share(Brief):
    """How much each of K players matters to one group of pictures (or to one picture).

    Attributes:
        group: what the pictures have in common: a class, a folder; the picture's name where there is one only.
        values: `(K,)`, signed: what the player adds to the score, on average.
        low, high: `(K,)`, 95 % interval; NaN where there is none (one picture of a folder, too few samples).
        count: pictures.
        single: `(n, K)`, the values of at most some hundreds of its pictures, for the beeswarm.
        examples: player -> RGB uint8 `(h, w, 3)`, the picture of the group in which it matters most.
        changed: `(K,)`, share of the pictures whose answer changes without the player, where it was asked.
    """

    group: str
    values: Tensor
    low: Tensor
    high: Tensor
    count: int = 1
    single: Tensor | None = None
    examples: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    changed: Tensor | None = None

    def ranking(self) -> list[int]:
        """Players by absolute value, the largest first; what is not finite comes last."""
        size = torch.nan_to_num(self.values.abs(), -1.0, -1.0, -1.0)
        return [int(k) for k in size.argsort(descending=True, stable=True)]


class Table(list[dict[str, Any]]):
    """Plain rows, one a player and group, with `to_csv` and `to_parquet`."""

    def to_csv(self, path: str | Path) -> Path:
        """Write comma-separated values, UTF-8; NaN is an empty cell."""
        from pellucid.keep.files import write_bytes

        return write_bytes(Path(path), self.csv().encode())

    def csv(self) -> str:
        """The table as comma-separated values."""
        return comma_separated(self, nan="")

    def to_parquet(self, path: str | Path) -> Path:
        """Write a Parquet file.

        Raises:
            PellucidError: pyarrow is not installed.
        """
        from pellucid.keep.files import write_bytes

        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise PellucidError(
                'Parquet files are written by pyarrow: run `pip install "pellucid[tables]"`, or use to_csv.'
            ) from error
        data = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(self)), data)
        return write_bytes(Path(path), data.getvalue())


@dataclass(repr=False)
class Answer(Brief):
    """How much each player matters: to one picture, or to each group of a folder.

    Attributes:
        features: the kind of players: superpixels, patches, regions, channels, layers, ...
        by: the estimator.
        target: the target as people call it.
        names: of the K players.
        shares: one for a picture; of a folder one for all pictures, then one for each group, the largest first.
        prediction: the model's top classes; empty for a folder.
        record: provenance.
        geometry: where the model looked on the original picture.
        layer: the layer measured, if any.
        full: score with all players in; `empty`: with all out; NaN for a folder.
        pictures: what players look like, see `Game`.
        interactions: the strongest pairs of the leading players, `(i, j, value)`.
        difference: of two groups, the first less the second, where there are just two.
        notes: what a reader must know.
        tree: the rules that stand in for the score, where they were asked for (`--by tree`), of one picture.
        picture: the original, while in memory; not stored.
        hidden: boxes `(N, 4)` of the original that nobody is shown; None where nothing was redacted.
    """

    features: str
    by: str
    target: str
    names: list[str]
    shares: list[Share]
    prediction: list[Prediction]
    record: Record
    geometry: Geometry
    layer: str | None = None
    full: float = math.nan
    empty: float = math.nan
    pictures: dict[str, Tensor] = field(default_factory=dict)
    interactions: list[tuple[int, int, float]] = field(default_factory=list)
    difference: Share | None = None
    notes: list[str] = field(default_factory=list)
    tree: PresenceTree | None = None
    picture: Picture | Clip | None = field(default=None, repr=False)
    hidden: Tensor | None = None

    @property
    def name(self) -> str:
        """The name of the explained input, or of the folder."""
        return str(self.record.input.get("name") or "input")

    @property
    def of_a_set(self) -> bool:
        """Whether it answers for many pictures."""
        return "pictures" in self.record.input

    @property
    def values(self) -> Tensor:
        """`(K,)`: importance for the picture, or the mean over all pictures."""
        return self.shares[0].values

    @property
    def low(self) -> Tensor:
        """`(K,)`: where the 95 % interval begins."""
        return self.shares[0].low

    @property
    def high(self) -> Tensor:
        """`(K,)`: where the 95 % interval ends."""
        return self.shares[0].high

    @property
    def efficiency_gap(self) -> float:
        """`full - empty - sum(values)`: 0 for Shapley and Owen values; NaN for a folder."""
        return self.full - self.empty - float(self.values.sum())

    def ranking(self) -> list[int]:
        """Players by absolute value, the largest first."""
        return self.shares[0].ranking()

    def share(self, group: str) -> Share:
        """The share of a group.

        Raises:
            PellucidError: there is no such group.
        """
        found = next((s for s in self.shares if s.group == group), None)
        if found is None:
            raise PellucidError(f"There is no group {group!r}: there are {', '.join(s.group for s in self.shares)}.")
        return found

    def table(self) -> Table:
        """One row a player and group, the most important first."""
        return Table(row for share in self.shares for row in self._rows(share))

    def _rows(self, share: Share) -> Iterable[dict[str, Any]]:
        for rank, k in enumerate(share.ranking()):
            row = {
                "group": share.group,
                "pictures": share.count,
                "rank": rank + 1,
                "player": self.names[k],
                "number": k,
                "importance": float(share.values[k]),
                "low": float(share.low[k]),
                "high": float(share.high[k]),
                "features": self.features,
                "by": self.by,
                "target": self.target,
            }
            if share.changed is not None:
                row["answers_changed"] = float(share.changed[k])
            yield row
