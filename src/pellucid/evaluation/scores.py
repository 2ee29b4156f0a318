"""What was measured, as data: values of methods on metrics and samples; in words, as a table, as an order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pellucid.evaluation.banks.oracle import ORACLE
from pellucid.evaluation.metrics.registry import MetricFacts
from pellucid.evaluation.ranking import (
    OverallRanking,
    Recommendation,
    leads,
    mean_ranks,
    mean_table,
    ranking,
    recommend,
)
from pellucid.explanation import Brief, Record
from pellucid.language import counted, some
from pellucid.numerics.agreement import PairedTest

PRICE = ("forwards", "backwards", "seconds")
"""What a map takes."""

SURE = 0.05
"""p-value up to which a difference is called one."""

Array = NDArray[np.float64]


@dataclass(repr=False)
class ScoreData(Brief):
    """Values of methods on metrics and samples, as data: in words, as a table, as an order.

    Attributes:
        methods: names, anchors last.
        blind: which of them are anchors, that never looked at the model.
        metrics: in the order asked.
        samples: names of the inputs.
        scores: `(methods, metrics, samples)`; NaN where there is no value.
        price: `(methods, 3, samples)`: forwards, backwards and processor seconds that each map took.
        own: passes that each metric asked for each map besides, `(metrics,)`; what all maps share is not in it.
        curves: probabilities `(methods, samples, 2, S + 1)`, most and least relevant first; NaN where there are none.
        shown: coarse maps `(methods, samples, *cells)`.
        thumbs: the inputs as the model saw them, `(samples, h, w, 3)`, uint8.
        masks: where the truth lies in each input, by position.
        said: what went wrong: `(method, sample, sentence)`.
        record: provenance.
        notes: what a reader must know.
    """

    methods: list[str]
    blind: list[bool]
    metrics: list[MetricFacts]
    samples: list[str]
    scores: Array
    price: Array
    own: list[int]
    curves: Array
    shown: NDArray[np.float32]
    thumbs: NDArray[np.uint8]
    masks: dict[int, Tensor]
    said: list[tuple[str, str, str]]
    record: Record
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, cell: tuple[str, str]) -> Array:
        """Values `(samples,)` of a method on a metric."""
        names = [m.name for m in self.metrics]
        values: Array = self.scores[self.methods.index(cell[0]), names.index(cell[1])]
        return values

    @cached_property
    def means(self) -> Array:
        """`(methods, metrics, 3)`: mean over the samples, and its 95 % interval."""
        return mean_table(self.scores)

    def rank(self) -> OverallRanking:
        """The methods from best to worst, and how far the metrics agree."""
        return ranking(self.scores, self.metrics, self.methods, self.blind)

    @cached_property
    def recommended(self) -> Recommendation | None:
        """Which method to take; None where no metric decides."""
        return recommend(self.scores, self.metrics, self.methods, self.blind, self.price)

    @cached_property
    def beside_anchors(self) -> tuple[list[str], list[str], list[str]]:
        """Methods whose rank is surely before every anchor's, before but not surely, and not before, best first."""
        surely: list[str] = []
        barely: list[str] = []
        behind: list[str] = []
        for name, lead in leads(self.scores, self.metrics, self.methods, self.blind).items():
            if name != ORACLE:
                place = behind if not lead.difference > 0 else surely if lead.p <= SURE else barely
                place.append(name)
        return surely, barely, behind

    def table(self) -> list[dict[str, Any]]:
        """One row a method, best first: its rank, and of each metric the mean and half of its 95 % interval."""
        rows = []
        for standing in self.rank().standings:
            c = self.methods.index(standing.name)
            row: dict[str, Any] = {"method": standing.name, "rank": standing.rank}
            for k, m in enumerate(self.metrics):
                mean, low, high = self.means[c, k]
                row |= {m.name: float(mean), f"{m.name} +-": float(high - low) / 2}
            price = self.price_of(standing.name)
            rows.append(row | dict(zip(PRICE, price, strict=True)))
        return rows

    def price_of(self, method: str) -> tuple[float, float, float]:
        """Mean forwards, backwards and processor seconds of one of its maps."""
        values = self.price[self.methods.index(method)]
        means = [float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for v in values]
        return means[0], means[1], means[2]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a value: method, metric, sample, value, cost (passes that the metric asked for this map alone)."""
        for c, method in enumerate(self.methods):
            for k, m in enumerate(self.metrics):
                for n, sample in enumerate(self.samples):
                    value = float(self.scores[c, k, n])
                    yield {"method": method, "metric": m.name, "sample": sample, "value": value, "cost": self.own[k]}
            for k, name in enumerate(PRICE):
                for n, sample in enumerate(self.samples):
                    value = float(self.price[c, k, n])
                    yield {"method": method, "metric": name, "sample": sample, "value": value, "cost": 0}

    def interval(self, c: int, k: int) -> tuple[float, float]:
        """Mean of a method on a metric, and half of its 95 % interval, by number."""
        mean, low, high = self.means[c, k]
        return float(mean), float(high - low) / 2

    @property
    def order(self) -> list[int]:
        """Numbers of the methods, best first."""
        return [self.methods.index(s.name) for s in self.rank().standings]

    @cached_property
    def places(self) -> Array:
        """Mean ranks `(methods, metrics)`, 1 the best."""
        return mean_ranks(self.scores, self.metrics)

    @property
    def title(self) -> str:
        """What was evaluated, on what."""
        count = len(self.samples)
        return f"Evaluation of explanations of {self.record.model['name']} on {counted(count, 'input')}"

    def lines(self) -> Iterator[str]:
        """What was found, in sentences: who to take, by how much, at what price, where it fails, who disagrees."""
        found = self.recommended
        if found is None:
            return
        yield from found.why
        yield from _recommended(found, self.samples)
        surely, barely, behind = map(", ".join, self.beside_anchors)
        if surely:
            yield f"By rank surely above every anchor: {surely}."
        if barely:
            yield f"Above every anchor by rank, but not surely on so few inputs: {barely}."
        if behind:
            yield f"Not above every anchor, so not to be trusted here: {behind}."
        alpha = self.rank().alpha
        if math.isfinite(alpha):
            if alpha >= 0.667:
                yield f"The metrics agree well on the order of the methods (Krippendorff's alpha {alpha:.2f})."
            elif alpha >= 0.333:
                yield f"The metrics agree in part on the order of the methods (Krippendorff's alpha {alpha:.2f})."
            else:
                yield f"The metrics disagree on the order of the methods (Krippendorff's alpha {alpha:.2f})."


def _above(t: PairedTest) -> str:
    """A difference with its interval and its p-value, where there are inputs enough for them."""
    if t.count < 2:
        return f"{t.difference:+.3g} (on one input, so nothing is sure)"
    return f"{t.difference:+.3g} ({t.low:+.3g} to {t.high:+.3g}, p = {t.p:.2g})"


def _recommended(found: Recommendation, samples: Sequence[str]) -> Iterator[str]:
    name = found.name
    if not name:
        yield "No method is recommended."
        return
    forwards, backwards, seconds = found.passes
    there, back = counted(round(forwards), "forward"), counted(round(backwards), "backward")
    price = f"{there} and {back} a map"
    if math.isfinite(seconds):
        price = f"{there} and {back} a map, {seconds:.2g} s of processor time"
    unsure = [(anchor, t.p) for anchor, t in found.anchors.items() if not t.p <= SURE]
    if unsure:
        doubted = " and ".join(f"{anchor} (p = {p:.2g})" for anchor, p in unsure)
        yield (
            f"{name} has the best mean rank, for {price}; that it beats {doubted} by {found.metric} is not sure: "
            "evaluate more inputs."
        )
    else:
        yield f"Take {name}: the best mean rank, for {price}."
    if found.margin is not None:
        m = found.margin
        tie = "" if m.low > 0 else " No sure difference: the cheaper of the two will do."
        inputs = counted(m.count, "input")
        yield f"By {found.metric} it is {_above(m)} above {found.runner}, better on {m.wins:.0%} of {inputs}.{tie}"
    for anchor, t in found.anchors.items():
        if t.count < 2:
            yield f"Above {anchor} by {t.difference:+.3g} (on one input, so nothing is sure)."
        else:
            yield f"Above {anchor} by {t.difference:+.3g} ({t.low:+.3g} to {t.high:+.3g}, p = {t.p:.2g})."
    if found.failures:
        named = some((samples[n] for n in found.failures), 6)
        count, of = len(found.failures), len(samples)
        yield f"It fails on {count} of {counted(of, 'input')}, where an anchor does as well: {named}."
