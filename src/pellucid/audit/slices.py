"""Slices of samples on which a model errs more often: searched on one half of them, tested on the other; both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from pellucid.audit.columns import Columns, described
from pellucid.audit.groups import Likeness, ProposedSlice
from pellucid.language import chance
from pellucid.numerics.proportions import difference, grouped_difference
from pellucid.numerics.statistics import adjusted

ALPHA, DEPTH = 0.95, 2  # SliceLine's weight of the error against the size; literals of a slice at the most
LEAST = 10  # samples of a slice, in the half where it is searched
_LEAST_TESTED = 3  # samples of a slice, in the half where it is tested: with fewer hardly any is beyond chance
SURE = 0.05  # slices up to this p-value are said
_SAID = 5  # slices that a summary names
_TESTED = 12

Bools = NDArray[np.bool_]


class HasMembers(Protocol):
    """Anything that is about some samples."""

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of the samples."""


S = TypeVar("S", bound=HasMembers)


@dataclass(frozen=True)
class WeakSlice:
    """Samples that share something.

    Attributes:
        name: what they share.
        literals: numbers of the columns; none of a group of like pictures.
        members: numbers of the samples, of both halves: those that are wrong first, and of these the surest members.
        count: those of the half on which it was tested.
        error: their error rate there; `others`: that of the samples outside of it.
        gap, low, high: by how much it errs more, with the 95 % interval.
        p: of no more errors than outside (Fisher, one-sided), adjusted for all slices tested (Benjamini & Hochberg).
        kind: how it was found: `conjunction`, `mixture` or `spotlight`.
        fault: what its samples are: `wrong`; of boxes `missed`, `misplaced` or `false`.
    """

    name: str
    literals: tuple[int, ...]
    members: tuple[int, ...]
    count: int
    error: float
    others: float
    gap: float
    low: float
    high: float
    p: float
    kind: str = "conjunction"
    fault: str = "wrong"

    @property
    def line(self) -> str:
        """It in words."""
        gap = f"{self.gap:+.0%} [{self.low:+.0%}, {self.high:+.0%}]"
        return (
            f"{self.name}: {self.error:.0%} of {self.count} {self.fault}, {gap} against all others ({chance(self.p)})"
        )


def score(size: float, errors: float, count: int, total: float, alpha: float = ALPHA) -> float:
    """SliceLine's score (Sagadeeva & Boehm 2021, eq. 5) of a slice of `size` samples with so many errors, among `count`
    samples with `total`: how much more often it errs, less how much smaller it is.
    """
    return alpha * (errors / size / (total / count) - 1) - (1 - alpha) * (count / size - 1)


def best_slices(
    values: Bools, errors: Bools, sources: Sequence[str], *, top: int = _TESTED, least: int = LEAST, depth: int = DEPTH
) -> list[tuple[tuple[int, ...], float]]:
    """The conjunctions of columns with the highest positive scores, as SliceLine finds them: exactly.

    Level by level; a slice is extended only while some extension of it may still be among the best: it would be no
    larger and have no more errors than each of its parents.

    Args:
        values: `(N, d)`, literals.
        errors: `(N,)`.
        sources: of each literal; two of one source never meet.
        top: how many.
        least: samples.
        depth: literals at the most.
    """
    count, total = len(errors), float(errors.sum())
    if total == 0:
        return []
    found: list[tuple[tuple[int, ...], float]] = []

    def worst() -> float:
        return found[-1][1] if len(found) == top else 0.0

    def note(literals: tuple[int, ...], size: int, wrong: int) -> None:
        value = score(size, wrong, count, total)
        if value > worst():
            found.append((literals, value))
            found.sort(key=lambda f: (-f[1], f[0]))
            del found[top:]

    level: dict[tuple[int, ...], Bools] = {(j,): values[:, j] for j in range(values.shape[1])}
    for length in range(1, depth + 1):
        bounds: dict[tuple[int, ...], float] = {}
        for literals, inside in level.items():
            size, wrong = int(inside.sum()), int((inside & errors).sum())
            if size >= least and wrong:
                note(literals, size, wrong)
                bounds[literals] = _bound(size, wrong, count, total, least)
        kept = {literals: level[literals] for literals, bound in bounds.items() if bound > worst()}
        level = {} if length == depth else _extended(kept, values, sources)
    return found


def _bound(size: int, wrong: int, count: int, total: float, least: int) -> float:
    """The highest score of any part of a slice: it grows while only errors are left, and is monotone beyond."""
    sizes = {least, min(size, max(least, wrong)), size}
    return max(score(s, min(s, wrong), count, total) for s in sizes)


def _extended(
    kept: dict[tuple[int, ...], Bools], values: Bools, sources: Sequence[str]
) -> dict[tuple[int, ...], Bools]:
    """Slices of one literal more, all of whose parents were kept."""
    found: dict[tuple[int, ...], Bools] = {}
    singles = sorted({j for literals in kept for j in literals})
    for literals, inside in kept.items():
        for j in singles:
            longer = (*literals, j)
            if j <= literals[-1] or sources[j] in {sources[i] for i in literals}:
                continue
            if all(part in kept for part in combinations(longer, len(literals))):
                found[longer] = inside & values[:, j]
    return found


def distinct(found: Sequence[S], most: float = 0.5) -> list[S]:
    """Slices that are not nearly one that stands before them: of the samples of both, at most half are in both."""
    kept: list[S] = []
    for s in found:
        own = set(s.members)
        if all(len(own & set(k.members)) <= most * len(own | set(k.members)) for k in kept):
            kept.append(s)
    return kept


def sure(slices: Sequence[WeakSlice]) -> list[WeakSlice]:
    """Slices that err more often beyond chance; of those that are nearly the same the first."""
    return distinct([s for s in slices if s.p <= SURE])


def told(weak: Sequence[WeakSlice]) -> Iterator[str]:
    """The first few in words, and how many there are besides."""
    yield from (f"{s.line}." for s in weak[:_SAID])
    if len(weak) > _SAID:
        yield f"Further slices that err more often: {len(weak) - _SAID}; they stand on the page and in the table."


def find(
    columns: Columns, wrong: Bools, known: Bools, seed: int = 0, likeness: Likeness | None = None
) -> list[WeakSlice]:
    """Slices that err more often, those that do by the most first: searched on each random half, tested on the other.

    Args:
        columns: the literals.
        wrong: `(N,)`, whether each answer is wrong.
        known: `(N,)`, whether that is known.
        seed: of the halves.
        likeness: in what samples can be alike; None looks for conjunctions alone.
    """
    return ranked(proposed(columns, wrong, np.flatnonzero(known), seed, likeness=likeness))


def proposed(
    columns: Columns, wrong: Bools, rows: NDArray[np.int64], seed: int = 0, *,
    likeness: Likeness | None = None, groups: NDArray[np.int64] | None = None, fault: str = "wrong",
) -> list[WeakSlice]:  # fmt: skip
    """Slices and their tests before the p-values are adjusted.

    Args:
        columns, wrong, seed, likeness: see `find`.
        rows: numbers of the samples that count.
        groups: `(N,)`, the group of each sample, such as the picture that a box lies in: groups are dealt out as one,
            and samples of one group are not taken for independent.
        fault: what the samples are that are not as they should be.
    """
    rng, slices = np.random.default_rng(seed), list[WeakSlice]()
    if groups is None:
        order = rng.permutation(rows)
        halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    else:
        dealt = rng.permutation(np.unique(groups[rows]))
        first = np.isin(groups[rows], dealt[: len(dealt) // 2])
        halves = rows[first], rows[~first]
    for search, test in (halves, halves[::-1]):
        if len(search) and wrong[search].any():
            found = [*conjunctions(columns, wrong, search), *(likeness.propose(search) if likeness else ())]
            slices += [s for candidate in found if (s := _tested(columns, candidate, wrong, test, groups))]
    return [replace(s, fault=fault) for s in slices]


def ranked(slices: Sequence[WeakSlice]) -> list[WeakSlice]:
    """Slices with p-values for all of their tests (Benjamini & Hochberg), in their order."""
    if not slices:
        return []
    p = adjusted([s.p for s in slices], "bh")
    return sorted((replace(s, p=float(q)) for s, q in zip(slices, p, strict=True)), key=_rank)


def _rank(s: WeakSlice) -> tuple[bool, float, bool, float]:
    """What is sure first, then what errs by the most; of equals (5 %) what has a name of its own."""
    beyond = s.p <= SURE
    return not beyond, -round(20 * s.gap) if beyond else 0, s.kind != "conjunction", s.p


def conjunctions(columns: Columns, wrong: Bools, search: NDArray[np.int64]) -> Iterator[ProposedSlice]:
    """SliceLine's best on the samples `search`, over all; what was answered describes none."""
    kept = np.array([j for j, source in enumerate(columns.sources) if source != "answer"], np.int64)
    if not len(kept):
        return
    sources = [columns.sources[j] for j in kept]
    for literals, _ in best_slices(columns.values[np.ix_(search, kept)], wrong[search], sources):
        own = tuple(int(kept[j]) for j in literals)
        yield ProposedSlice("conjunction", columns.values[:, list(own)].all(1).astype(float), own)


def _tested(
    columns: Columns, found: ProposedSlice, wrong: Bools, test: NDArray[np.int64], groups: NDArray[np.int64] | None
) -> WeakSlice | None:
    inside = found.inside
    here, errors = inside[test], wrong[test]
    size, bad, count, total = int(here.sum()), int((here & errors).sum()), len(test), int(errors.sum())
    if not _LEAST_TESTED <= size < count:
        return None
    gap, low, high = difference(bad, size, total - bad, count - size)
    name = (
        " and ".join(columns.names[j] for j in found.literals) or f"like pictures, mostly {described(columns, inside)}"
    )
    order = np.lexsort((np.arange(len(inside)), -found.score, ~wrong))
    members = tuple(int(i) for i in order if inside[i])
    p = float(hypergeom.sf(bad - 1, count, total, size))
    if groups is not None:  # whichever is more careful
        _, wide, wider, q = grouped_difference(errors, here, groups[test])
        low, high, p = min(low, wide), max(high, wider), max(p, q)
    rates = bad / size, (total - bad) / (count - size)
    return WeakSlice(name, found.literals, members, size, *rates, gap, low, high, p, found.kind)
