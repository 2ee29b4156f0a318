"""Shapley's division of a score among the segments of an input: exact, sampled, by regression, or in nested groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.heatmaps.base import method
from pellucid.heatmaps.segmented import Found, SegmentMethod
from pellucid.numerics.games import (
    MAX_EXACT,
    Hierarchy,
    Solution,
    Value,
    exact_shapley,
    kernel_shap,
    owen,
    permutation_shapley,
)

_UNSURE = 0.3  # relative standard error from which a map is mostly noise to the eye


def _found(solution: Solution, **facts: Tensor) -> Found:
    change = (solution.full - solution.empty).abs().clamp(min=1e-12)
    facts |= {
        "efficiency_gap": solution.efficiency_gap.abs() / change,
        "samples": torch.full_like(change, solution.evaluations),
        "players": torch.full_like(change, len(solution.values)),
    }
    told = solution.values, solution.standard_error, solution.low, solution.high
    return Found(*told, facts, broken=solution.broken, no_interval=solution.no_interval)


def _sampled(solution: Solution) -> Found:
    return _found(solution, relative_error=solution.relative_error)


def _unsure(facts: dict[str, list[float]], limit: float, cure: str) -> list[str]:
    worst = max(facts["relative_error"])
    if worst <= limit:
        return []
    return [f"The standard error is {worst:.0%} of the values after {max(facts['samples']):.0f} forwards: {cure}."]


@method(
    "shapley",
    family="perturbation",
    needs="outputs",
    cost="2^K forwards for up to 12 segments, else K - 1 an order",
    paper="Shapley 1953; Castro et al. 2009, doi:10.1016/j.cor.2008.04.004",
)
@dataclass(frozen=True, kw_only=True)
class Shapley(SegmentMethod):
    """Mean gain of the score when a segment comes in, over all orders in which segments can come in. `(N, *space)`.

    Args:
        segments: `grid`, `slic`, `felzenszwalb`, or `(*space)` integers, the segment of each place.
        count: about how many segments to cut.
        samples: `auto`: exact up to 12 segments, random orders beyond, until `tolerance` or `max_evaluations`; a
            number of orders; or `exact`.
        tolerance: relative standard error at which `auto` stops.
        max_evaluations: forwards that `auto` may spend on an input.
        baseline: what shows where a segment is out: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the orders and of a random baseline.
    """

    samples: int | Literal["auto", "exact"] = "auto"
    tolerance: float = 0.2
    max_evaluations: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.samples, str) and self.samples not in ("auto", "exact"):
            raise MethodError(f"samples is a number of orders, 'auto' or 'exact', not {self.samples!r}.")
        if not self.tolerance > 0:
            raise MethodError("The tolerance is a positive share, such as 0.2.")

    def quick(self) -> Shapley:
        """At most 512 forwards."""
        return replace(self, samples="auto", max_evaluations=min(512, self.max_evaluations))

    def solve(self, value: Value, labels: Tensor) -> Found:
        """Exact where that costs no more than sampling would."""
        players = int(labels.max()) + 1
        if self.samples == "exact":
            return _sampled(exact_shapley(value, players))
        budget = self.max_evaluations if self.samples == "auto" else self.samples * (players - 1) + 2
        if players <= MAX_EXACT and 2**players <= budget:
            return _sampled(exact_shapley(value, players))
        solution = permutation_shapley(
            value,
            players,
            samples=self.samples,
            generator=torch.Generator().manual_seed(self.seed),
            tolerance=self.tolerance,
            max_evaluations=self.max_evaluations,
        )
        return _sampled(solution)

    def notes(self, facts: dict[str, list[float]]) -> list[str]:
        """Whether the sampling error is too large to read the map."""
        limit = max(self.tolerance, 1e-9) if self.samples == "auto" else _UNSURE
        return _unsure(facts, limit, "raise max_evaluations (or samples), or cut fewer segments")


@method(
    "kernel-shap",
    family="perturbation",
    needs="outputs",
    cost="1 forward a sample",
    paper="Lundberg & Lee 2017, arXiv:1705.07874, theorem 2",
)
@dataclass(frozen=True, kw_only=True)
class KernelSHAP(SegmentMethod):
    """Shapley values of segments as a weighted least-squares fit to the scores of coalitions. `(N, *space)`.

    Args:
        segments: `grid`, `slic`, `felzenszwalb`, or `(*space)` integers, the segment of each place.
        count: about how many segments to cut.
        samples: coalitions to score, at least two a segment; 2^K - 2 make it exact.
        baseline: what shows where a segment is out: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of the coalitions and of a random baseline.
    """

    samples: int = 1000

    def quick(self) -> KernelSHAP:
        """8 samples a segment, where their number is known beforehand."""
        return self if isinstance(self.segments, Tensor) else replace(self, samples=min(self.samples, 8 * self.count))

    def solve(self, value: Value, labels: Tensor) -> Found:
        """All coalitions of the smallest and largest sizes, the rest drawn in pairs."""
        players = int(labels.max()) + 1
        generator = torch.Generator().manual_seed(self.seed)
        return _sampled(kernel_shap(value, players, samples=self.samples, generator=generator))

    def notes(self, facts: dict[str, list[float]]) -> list[str]:
        """Whether the sampling error is too large to read the map."""
        return _unsure(facts, _UNSURE, "raise samples, or cut fewer segments")


@method(
    "owen",
    family="perturbation",
    needs="outputs",
    cost="max_evaluations forwards at the most",
    paper="Owen 1977, doi:10.1007/978-3-642-45494-3_7; Winter 1989, doi:10.1007/BF01268161",
)
@dataclass(frozen=True, kw_only=True)
class Owen(SegmentMethod):
    """Shapley's rule in nested groups of segments: the part with the largest gain is halved next. `(N, *space)`.

    Args:
        segments: `grid`, `slic`, `felzenszwalb`, or `(*space)` integers, the segment of each place.
        count: about how many segments to cut, the finest detail there can be.
        max_evaluations: forwards to spend on an input.
        baseline: what shows where a segment is out: a name such as `zero` (see the page on baselines), or a tensor.
        seed: of a random baseline.
    """

    count: int = 256
    max_evaluations: int = 1024

    def quick(self) -> Owen:
        """At most 256 forwards."""
        return replace(self, max_evaluations=min(256, self.max_evaluations))

    def solve(self, value: Value, labels: Tensor) -> Found:
        """Groups are made by halving the box around their segments."""
        solution = owen(value, halves(labels), budget=self.max_evaluations)
        whole = solution.extra["unsplit"]
        share = whole.sum(0) / (solution.values.abs().sum(0) + whole.sum(0)).clamp(min=1e-300)
        return _found(solution, unsplit=share)


def halves(labels: Tensor) -> Hierarchy:
    """Segments `(*space)` in nested pairs: the box around a group is halved along its longest side.

    A segment goes to the half in which the middle of its own box lies.
    """
    count = int(labels.max()) + 1
    places = torch.stack(torch.meshgrid(*[torch.arange(s) for s in labels.shape], indexing="ij"), -1)
    where = labels.flatten()[:, None].expand(-1, labels.ndim)
    flat = places.reshape(-1, labels.ndim)
    low = torch.full((count, labels.ndim), max(labels.shape)).scatter_reduce(0, where, flat, "amin")
    high = torch.zeros(count, labels.ndim, dtype=torch.long).scatter_reduce(0, where, flat, "amax") + 1

    def cut(ids: Tensor) -> Hierarchy:
        if len(ids) == 1:
            return int(ids)
        start, stop = low[ids].amin(0), high[ids].amax(0)
        axis = int((stop - start).argmax())
        middles = low[ids, axis] + high[ids, axis]  # doubled, to stay with integers
        first = middles < start[axis] + stop[axis]
        if first.all() or not first.any():  # boxes that all share a middle: by their order
            first = torch.arange(len(ids)) < len(ids) // 2
            ids = ids[middles.argsort(stable=True)]
        return (cut(ids[first]), cut(ids[~first]))

    return cut(torch.arange(count))
