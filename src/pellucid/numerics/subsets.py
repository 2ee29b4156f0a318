"""The smallest set that passes a test: a search that remembers every set it tried.

The test is a function of sets: above 0 is a pass, and the greater the safer. It need not be monotone (a set may pass
where a larger one fails), so nothing short of trying all sets proves the least size. What a search can vouch for is
this: of all sets that it tried, none that passes is smaller. Where few enough sets are left, it tries them all, and
then the size is proven.

The steps: bisection over given orders of the elements (a set is the first k), then removal of what can be missed, most
dispensable first, several at a time; then one element of the set is exchanged for one outside wherever that makes the
pass safer, so that another may go. The first two are delta debugging (Zeller & Hildebrandt 2002) guided by margins.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Test = Callable[[Tensor], Tensor]
"""Sets `(M, K)`, bool -> margins `(M,)`; above 0: the set passes."""

_PARTS = 4  # an interval of sizes is cut into so many at a time
_OUTSIDERS = 16  # candidates of an exchange at a time
_CHUNK = 64  # sets asked for at a time where all are tried


@dataclass(frozen=True)
class Smallest:
    """What was found.

    Attributes:
        members: `(K,)`, bool: the smallest set that passed; None where none did.
        margin: how safely it passes.
        tried: sets tried.
        smaller: of these, how many are smaller than it (none of them passes).
        minimal: whether no single element of it can be missed.
        proven: whether all smaller sets were tried.
    """

    members: Tensor | None
    margin: float
    tried: int
    smaller: int
    minimal: bool
    proven: bool


@dataclass
class Tried:
    """A test with a memory: each set is asked for once, and no more than `budget` of them.

    Args:
        test: see `Test`.
        size: elements.
        budget: sets at most; beyond it the answer is minus infinity, which is never taken for a failure.
    """

    test: Test
    size: int
    budget: int
    margins: dict[bytes, float] = field(default_factory=dict)
    best: Tensor | None = None
    margin: float = -math.inf
    sizes: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Sets that may still be asked for."""
        return self.budget - len(self.margins)

    def __call__(self, sets: Tensor) -> Tensor:
        """Margins `(M,)` of sets `(M, K)`."""
        names = [row.numpy().tobytes() for row in sets]
        unknown = list(dict.fromkeys(name for name in names if name not in self.margins))[: max(0, self.left)]
        if unknown:
            rows = [names.index(name) for name in unknown]
            for row, name, margin in zip(rows, unknown, self.test(sets[rows]).tolist(), strict=True):
                self._learn(sets[row], name, margin)
        return torch.tensor([self.margins.get(name, -math.inf) for name in names], dtype=torch.float64)

    def _learn(self, members: Tensor, name: bytes, margin: float) -> None:
        self.margins[name] = margin
        count = int(members.sum())
        self.sizes.append(count)
        if margin > 0 and (self.best is None or (-count, margin) > (-int(self.best.sum()), self.margin)):
            self.best, self.margin = members.clone(), margin

    def knows(self, sets: Tensor) -> bool:
        """Whether all of these sets were tried."""
        return all(row.numpy().tobytes() in self.margins for row in sets)


def smallest(
    test: Test, orders: Sequence[Tensor], *, budget: int, among: Tensor | None = None, groups: Tensor | None = None
) -> Smallest:
    """The smallest set found that passes `test`.

    Args:
        test: see `Test`.
        orders: of the elements `(K,)`, each its own idea of which matter most, first to last.
        budget: how many sets are tried at most.
        among: `(K,)`, bool: the elements that may be taken; None: all.
        groups: `(K,)`, the group of each element, numbered from 0: half of the budget is for sets of whole groups, the
            best of which is then cut element by element.
    """
    size = len(orders[0])
    among = torch.ones(size, dtype=torch.bool) if among is None else among
    tried = Tried(test, size, budget)
    tried(torch.stack([torch.zeros_like(among), among]))
    if tried.best is None or int(tried.best.sum()):
        allowed = [order[among[order]] for order in orders]
        if groups is not None:
            _in_groups(tried, orders, among, groups)
        if tried.best is not None and not torch.equal(tried.best, among):
            allowed = [order[tried.best[order]] for order in orders]
        _narrow(tried, allowed, among, consensus([order[among[order]] for order in orders]))
        _exhaust(tried, among)
    return _found(tried, among)


def _narrow(tried: Tried, orders: Sequence[Tensor], among: Tensor, ranking: Tensor) -> None:
    """From what is first in the orders to what cannot be made smaller by one removal or exchange."""
    for order in orders:
        _bisect(tried, order)
    while tried.best is not None and tried.left > 0:
        before = tried.best
        _shrink(tried)
        if tried.best is before and not _exchange(tried, ranking, among):
            return


def _in_groups(tried: Tried, orders: Sequence[Tensor], among: Tensor, groups: Tensor) -> None:
    """The same search over whole groups, each in its place by the mean rank of its elements."""
    count = int(groups.max()) + 1
    members = groups.bincount(minlength=count)
    free = torch.zeros(count, dtype=torch.long).index_add_(0, groups, among.long()) == members
    coarse = Tried(lambda sets: tried(sets[:, groups]), count, tried.budget // 2)
    coarse(torch.stack([torch.zeros_like(free), free]))
    ranked = []
    for order in orders:
        rank = torch.zeros(count, dtype=torch.float64)
        rank.index_add_(0, groups[order], torch.arange(len(order), dtype=torch.float64))
        by_rank = (rank / members).argsort(stable=True)
        ranked.append(by_rank[free[by_rank]])
    if free.any():
        _narrow(coarse, ranked, free, consensus(ranked))


def _found(tried: Tried, among: Tensor) -> Smallest:
    if tried.best is None:
        return Smallest(None, -math.inf, len(tried.margins), 0, False, _all_known(tried, among, int(among.sum()) + 1))
    count = int(tried.best.sum())
    return Smallest(
        tried.best,
        tried.margin,
        len(tried.margins),
        sum(n < count for n in tried.sizes),
        count == 0 or tried.knows(_without_one(tried.best)),
        _all_known(tried, among, count),
    )


def _all_known(tried: Tried, among: Tensor, count: int) -> bool:
    """Whether all sets of fewer than `count` elements were tried."""
    return sum(n < count for n in tried.sizes) == _how_many(int(among.sum()), count)


def _how_many(size: int, below: int) -> int:
    return sum(math.comb(size, k) for k in range(below))


def first(order: Tensor, counts: Sequence[int], size: int) -> Tensor:
    """The sets `(M, K)` of the first `counts` elements of an order."""
    sets = torch.zeros(len(counts), size, dtype=torch.bool)
    for row, count in enumerate(counts):
        sets[row, order[:count]] = True
    return sets


def _bisect(tried: Tried, order: Tensor) -> None:
    """The first k of an order, k between one that fails and one that passes, cut ever finer."""
    low, high = 0, len(order)
    while high - low > 1 and tried.left > 0:
        inner = sorted({low + (high - low) * part // _PARTS for part in range(1, _PARTS)} - {low})
        passed = [k for k, margin in zip(inner, tried(first(order, inner, tried.size)), strict=True) if margin > 0]
        below = [low, *inner]
        high = min([high, *passed])
        low = max(k for k in below if k < high)
        if not passed:
            low = inner[-1]


def consensus(orders: Sequence[Tensor]) -> Tensor:
    """Elements by their mean rank over orders of the same ones."""
    rank = torch.zeros(int(orders[0].max()) + 1 if len(orders[0]) else 0, dtype=torch.float64)
    for order in orders:
        rank[order] += torch.arange(len(order), dtype=torch.float64)
    members = orders[0]
    return members[rank[members].argsort(stable=True)]


def _without_one(members: Tensor) -> Tensor:
    """The set less each of its elements in turn."""
    inside = members.nonzero()[:, 0]
    sets = members.repeat(len(inside), 1)
    sets[torch.arange(len(inside)), inside] = False
    return sets


def _shrink(tried: Tried) -> None:
    """Leave out what is missed least, as many at a time as can be, until nothing can be missed any more."""
    while tried.best is not None and tried.left > 0 and int(tried.best.sum()):
        members = tried.best
        inside = members.nonzero()[:, 0]
        margins = tried(_without_one(members))
        order = inside[margins.argsort(stable=True)]  # what is missed most comes first, and stays longest
        if int((margins > 0).sum()) == 0:
            return
        _bisect(tried, order)
        if tried.best is members:
            return


def _exchange(tried: Tried, ranking: Tensor, among: Tensor) -> bool:
    """One element from outside for one or two of the set, as their margins add up; whether that is better.

    An element gains what it adds to the margin, and one of the set is worth what the margin falls without it. Where the
    gain is the larger, the exchange is tried: a smaller set, or one as small and safer, which may be cut further.
    """
    members = tried.best
    if members is None or int(members.sum()) < 2:
        return False
    inside = members.nonzero()[:, 0]
    losses = tried.margin - tried(_without_one(members))
    cheapest = losses.argsort(stable=True)[:2]
    outside = ranking[~members[ranking] & among[ranking]]
    for start in range(0, len(outside), _OUTSIDERS):
        some = outside[start : start + _OUTSIDERS]
        wider = members.repeat(len(some), 1)
        wider[torch.arange(len(some)), some] = True
        gains = tried(wider) - tried.margin
        wider = wider[gains > losses[cheapest[0]]]
        fewer = wider.clone()
        wider[:, inside[cheapest[0]]] = False
        fewer[:, inside[cheapest]] = False
        tried(torch.cat([fewer, wider]))
        if tried.best is not members:
            return True
        if tried.left <= 0:
            return False
    return False


def _exhaust(tried: Tried, among: Tensor) -> None:
    """All smaller sets, if so many may still be asked for: then the size is proven."""
    count = int(among.sum()) + 1 if tried.best is None else int(tried.best.sum())
    elements = among.nonzero()[:, 0].tolist()
    if _how_many(len(elements), count) - sum(n < count for n in tried.sizes) > tried.left:
        return
    for k in range(count):
        for chunk in _chunks(itertools.combinations(elements, k)):
            sets = torch.zeros(len(chunk), tried.size, dtype=torch.bool)
            for row, chosen in enumerate(chunk):
                sets[row, list(chosen)] = True
            tried(sets)
        if tried.best is not None and int(tried.best.sum()) <= k:
            return


def _chunks(sets: Iterator[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    while chunk := list(itertools.islice(sets, _CHUNK)):
        yield chunk
