"""Importance as data: a number with its interval for each player, for one input or a whole folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.explanation import Prediction, Record
from pellucid.media.geometry import Geometry
from pellucid.media.image import Picture


@dataclass
class Ranked:
    """How much each player matters to one target.

    Attributes:
        features: the kind of players: superpixels, patches, regions, channels, layers, ...
        by: the estimator.
        target: the target as people call it.
        names: of the players.
        values: `(K,)`, signed: what the player adds to the target's score.
        low, high: `(K,)`, 95 % interval of each value.
        full: score with all players in; `empty`: with all out; None where the estimator does not ask.
        prediction: the model's top classes.
        record: provenance.
        geometry: where the model looked on the original picture.
        pictures: what players look like: `labels` `(*space)`, or `maps` `(K, *grid)`.
        interactions: the strongest pairs of the leading players, `(i, j, value)`.
        group: the class of pictures a global answer is about; empty for one picture.
        count: pictures behind the answer.
        notes: what a reader must know.
        picture: the original, while in memory; not stored.
    """

    features: str
    by: str
    target: str
    names: list[str]
    values: Tensor
    low: Tensor
    high: Tensor
    prediction: list[Prediction]
    record: Record
    geometry: Geometry
    full: float | None = None
    empty: float | None = None
    pictures: dict[str, Tensor] = field(default_factory=dict)
    interactions: list[tuple[int, int, float]] = field(default_factory=list)
    group: str = ""
    count: int = 1
    notes: list[str] = field(default_factory=list)
    picture: Picture | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the explained input."""
        return str(self.record.input.get("name") or "input")

    def ranking(self) -> list[int]:
        """Players by absolute value, the largest first."""
        return [int(k) for k in self.values.abs().argsort(descending=True, stable=True)]

    @property
    def efficiency_gap(self) -> float | None:
        """`full - empty - sum(values)`: 0 for Shapley and Owen values; None where it means nothing."""
        if self.full is None or self.empty is None:
            return None
        return self.full - self.empty - float(self.values.sum())

    def table(self) -> list[dict[str, Any]]:
        """One row a player, the most important first."""
        return [
            {
                "rank": rank + 1,
                "player": self.names[k],
                "importance": float(self.values[k]),
                "low": float(self.low[k]),
                "high": float(self.high[k]),
                "target": self.target,
                "group": self.group,
                "pictures": self.count,
            }
            for rank, k in enumerate(self.ranking())
        ]


def bootstrap(rows: Tensor, draws: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Mean `(K,)` of rows `(pictures, K)` with its 95 % percentile-bootstrap interval over pictures.

    Of fewer than two pictures there is no interval: it is NaN.
    """
    mean = rows.mean(0)
    if len(rows) < 2:
        return mean, torch.full_like(mean, torch.nan), torch.full_like(mean, torch.nan)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(draws, len(rows), dtype=rows.dtype)
    picks = torch.randint(len(rows), (draws, len(rows)), generator=generator)
    counts.scatter_add_(1, picks, torch.ones_like(picks, dtype=rows.dtype))
    means = counts @ rows / len(rows)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=rows.dtype), dim=0)
    return mean, low, high
