"""Wrong reasons: what each class rests on that is no object, found in its heat maps and proven by exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_1samp
from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.audit.clusters import clusters, common_cells
from pellucid.audit.evidence import PicturePart, beside, centred, common_parts, region_part
from pellucid.audit.marks import distinct, fixed_marks, moved_marks
from pellucid.audit.moments import BACKWARDS, of_clips, telling_moment
from pellucid.audit.samples import SampleTable
from pellucid.engine import leave_no_trace, unwrap
from pellucid.language import chance
from pellucid.models.model import VisionModel
from pellucid.numerics.statistics import adjusted, row_mean
from pellucid.progress import task

LEAST = 8  # pictures of a class, and of others: fewer prove nothing
PAIRS = 40  # pictures of a class that are exchanged with others
_TAKERS = 2 * PAIRS  # pictures of others that are given a mark, which is the same in all that give it
_EFFECT = 0.1  # of the class's probability, that must leave and come
_LEVEL = 0.01  # of all tests together
_LEFT = 0.12  # of what a broader part does: up to which it is nothing but the marks that were left in place
_MAIN = 0.7  # share of the largest effect, fall and rise together, from which on the more specific part is named
_ORDER = ("mark", "frame", "order", "border", "background", "colour", "texture")

Opener = Callable[[Sequence[int]], Tensor]
"""Numbers of samples -> their inputs `(n, C, H, W)`, of clips `(n, C, T, H, W)`."""


@dataclass(frozen=True)
class Reliance:
    """What an exchange of one part did to one class.

    Attributes:
        label: of the class.
        kind, name: of the part.
        drop: mean fall of the class's probability where its pictures get the part of other classes.
        low, high: its 95 % interval.
        rise: mean rise on pictures of other classes that are given the part.
        rest: mean probability that is left to pictures whose part was exchanged.
        p: of no drop or no rise, whichever is larger; adjusted for all tests (Holm).
        pairs: exchanged.
        relied: whether the class rests on it.
        region: `(H, W)`, where it lies, as shares of the input's size; None where it has no place.
        members: samples of its cluster; all of the class for parts that any picture has.
        bared: whether pictures of other classes were given it in place of their own marks.
    """

    label: str
    kind: str
    name: str
    drop: float
    low: float
    high: float
    rise: float
    rest: float
    p: float
    pairs: int
    relied: bool
    region: NDArray[np.bool_] | None = None
    members: tuple[int, ...] = ()
    bared: bool = False

    @property
    def line(self) -> str:
        """The verdict in words."""
        effect = f"{self.drop:.2f} [{self.low:.2f}, {self.high:.2f}]"
        if not self.relied and self.bared:
            return (
                f"`{self.label}` is not shown to rest on {self.name}: exchanging it lowers the class by {effect}, and "
                f"giving it to pictures of other classes, whose own marks are first taken away, raises it by "
                f"{self.rise:.2f} ({chance(self.p)})"
            )
        if not self.relied:
            return (
                f"`{self.label}` is not shown to rest on {self.name}: exchanging it lowers the class by {effect}, and "
                f"giving it to pictures of other classes raises it by {self.rise:.2f} ({chance(self.p)})"
            )
        if self.bared:
            return (
                f"`{self.label}` rests on {self.name}: exchanging it for that of other classes lowers the class by "
                f"{effect}, and giving it to their pictures, whose own marks are first taken away, raises it by "
                f"{self.rise:.2f} ({chance(self.p)})"
            )
        if self.kind == "order":
            return (
                f"`{self.label}` rests on {self.name}: playing its clips backwards lowers the class by {effect}, and "
                f"playing those of other classes backwards raises it by {self.rise:.2f} ({chance(self.p)})"
            )
        return (
            f"`{self.label}` rests on {self.name}: exchanging it for that of other classes lowers the class by "
            f"{effect}, and giving it to their pictures raises it by {self.rise:.2f} ({chance(self.p)})"
        )


@dataclass(frozen=True)
class _Tried:
    """An exchange before its p-value is adjusted.

    Attributes:
        lasting: of drops and rises what is left of each without what the same exchange does among pictures of one side,
            where nothing of the other class comes in; None where the exchange does too little to ask.
        c: number of the class.
        pairs: samples of the class, and those of others that they were exchanged with.
        bared: whether those of others were without their own marks when the part was given to them.
    """

    label: str
    part: PicturePart
    members: tuple[int, ...]
    drops: NDArray[np.float64]
    rises: NDArray[np.float64]
    carried: float
    rest: float
    lasting: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    c: int = 0
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    bared: bool = False

    @property
    def effects(self) -> tuple[NDArray[np.float64], ...]:
        """Each of which must be there if the class rests on the part."""
        return self.drops, self.rises, *(self.lasting or ())

    @property
    def moved(self) -> float:
        """By how much the class falls and rises on average, together."""
        return float(self.drops.mean() + self.rises.mean())

    @property
    def p(self) -> float:
        """Of no drop or no rise, one-sided."""
        return max(map(_above, self.effects))


def _above(values: NDArray[np.float64]) -> float:
    """p-value of a mean of no more than 0 (Student)."""
    if not values.std() > 1e-9:
        return 0.0 if values.mean() > 1e-6 else 1.0
    return float(ttest_1samp(values, 0, alternative="greater").pvalue)


def find(model: VisionModel, samples: SampleTable, opened: Opener, seed: int = 0) -> list[Reliance]:
    """Every part that was tested, of every class with pictures enough; what it rests on first.

    Args:
        model: with its reading settled.
        samples: the table.
        opened: see `Opener`.
        seed: of whose parts are exchanged.
    """
    rng = np.random.default_rng(seed)
    answers = samples.answers
    right = ~samples.wrong
    classes = [int(c) for c in np.unique(answers) if LEAST <= ((answers == c) & right).sum() <= len(samples) - LEAST]
    tried: list[_Tried] = []
    with leave_no_trace(unwrap(model.module)):  # borrowed once for all
        with task("classes", len(classes)) as advance:
            for c in classes:
                tried += _of_class(model, samples, opened, c, rng)
                advance(1)
        tried = _beside_marks(model, _without_rivals(model, samples, tried, opened), opened)
    if not tried:
        return []
    p = adjusted([t.p for t in tried], "holm")
    return _judged(tried, [float(v) for v in p])


def _without_rivals(model: VisionModel, samples: SampleTable, tried: list[_Tried], opened: Opener) -> list[_Tried]:
    """The tests of marks, each given to pictures whose own class's marks are taken away.

    Where classes have their marks at different places, a picture that is given another's still holds its own, and the
    answer would stay with that. So its own are first exchanged too, and the rise counted from there.
    """
    own: dict[int, Tensor] = {}
    for t in tried:
        place = t.part.region
        if t.part.kind == "mark" and place is not None and t.drops.mean() >= _EFFECT and _above(t.drops) < _LEVEL:
            own[t.c] = place | own.get(t.c, place)

    def again(t: _Tried) -> _Tried:
        place = t.part.region
        if t.pairs is None or t.part.kind != "mark" or place is None or t.drops.mean() < _EFFECT:
            return t
        nothing = torch.zeros_like(place)
        rivals = torch.stack([own.get(int(c), nothing) for c in samples.answers[t.pairs[1]]]) & ~place
        if not rivals.any():
            return t
        x, others = (opened(rows.tolist()) for rows in t.pairs)
        there = rivals.to(x.device).reshape(len(others), *(1,) * (x.ndim - 3), *rivals.shape[1:])
        bared = torch.where(there, _in_turn(x, len(others)), others)
        found = _tried(model, t.part, t.c, t.members, x, others, bared=bared)
        return replace(found, pairs=t.pairs, bared=True)

    return [again(t) for t in tried]


def _beside_marks(model: VisionModel, tried: list[_Tried], opened: Opener) -> list[_Tried]:
    """The tests, and in place of broader parts that are no more than marks what is left of them.

    Each that an answer follows is tested anew with all marks that answers follow left in place. Where classes have
    their marks at different places, an exchange of a broader part moves two of them, and that of one mark only one: the
    part would seem to tell more, though all of it is the marks. Texture that was read where a mark lies is none.
    """
    marks = [t.part.region for t in tried if t.part.kind == "mark" and t.part.region is not None and _moves(t, t.p)]
    if not marks:
        return tried
    held = torch.stack(marks).any(0)

    def again(t: _Tried) -> _Tried:
        if t.pairs is None or t.part.kind == "mark" or not t.part.given or not _moves(t, t.p):
            return t
        x, others = (opened(rows.tolist()) for rows in t.pairs)
        left = _tried(model, beside(t.part, held), t.c, t.members, x, others)
        return replace(left, pairs=t.pairs) if t.part.apart or left.moved < _LEFT * t.moved else t

    return [again(t) for t in tried]


def _of_class(
    model: VisionModel, samples: SampleTable, opened: Opener, c: int, rng: np.random.Generator
) -> list[_Tried]:
    mine = np.flatnonzero((samples.answers == c) & ~samples.wrong)
    others = np.flatnonzero((samples.answers != c) & ~samples.wrong)
    if len(others) < LEAST:
        return []
    chosen = rng.choice(mine, min(PAIRS, len(mine)), replace=False)
    donors = rng.choice(others, len(chosen), replace=len(others) < len(chosen))
    x, d = opened(chosen.tolist()), opened(donors.tolist())
    every = tuple(int(i) for i in mine)
    size = (x.shape[-2], x.shape[-1])
    parts = [p for p in common_parts(size) if p.kind != "colour" or _has_colour(x)]
    if x.ndim == 5:
        parts = [*map(of_clips, parts), BACKWARDS]
    before = _untouched(model, x, d, c)
    found = [_tried(model, p, c, every, x, d, before) for p in parts]
    if x.ndim == 5:
        found.append(_moment_tried(model, c, every, x, d, before))
    found = [replace(t, pairs=(chosen[-len(t.drops) :], donors[-len(t.drops) :])) for t in found]
    seen: list[Tensor] = []
    for members in clusters(samples.maps[mine], seed=0):
        own = mine[members]
        if len(own) < LEAST:
            continue
        some = rng.choice(own, min(PAIRS, len(own)), replace=False)
        count = max(len(some), min(_TAKERS, len(others)))
        others_ = rng.choice(others, count, replace=len(others) < count)
        y, e = opened(some.tolist()), opened(others_.tolist())
        for cells in common_cells(samples.maps[own]):
            region = _spread(cells, size)
            fixed = fixed_marks(region, y, e)
            marks = distinct(fixed or moved_marks(region, y, e), seen)
            seen += marks
            for mark in marks:
                place = centred(mark)
                name = f"a fixed mark at the {place}" if fixed else f"a mark near the {place}"
                part = region_part("mark", name, mark)
                t = _tried(model, part, c, tuple(int(i) for i in own), y, e)
                found.append(replace(t, pairs=(some, others_)))
    return found


def _moment_tried(
    model: VisionModel, c: int, members: tuple[int, ...], x: Tensor, others: Tensor, untouched: Untouched
) -> _Tried:
    """The moment that tells most in one half of the clips, exchanged in the other half."""
    half = len(x) // 2
    usual, rest = untouched[0][:half].mean(), (untouched[0][half:], untouched[1][half:])

    def fall(part: PicturePart) -> float:
        return float(usual - _probability(model, part.exchange(x[:half], others[:half]), c).mean())

    return _tried(model, telling_moment(fall, x.shape[2]), c, members, x[half:], others[half:], rest)


def _has_colour(x: Tensor) -> bool:
    return x.shape[1] == 3 and float((x - x.mean(1, keepdim=True)).abs().max()) > 1e-3


def _spread(cells: NDArray[np.bool_], size: tuple[int, int]) -> Tensor:
    """Cells of the common grid as a region of the input."""
    grown: Tensor = interpolate(torch.from_numpy(cells)[None, None].float(), size, mode="nearest")[0, 0] > 0
    return grown


Untouched = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The class's probability of pictures and of others, before anything is exchanged."""


@torch.no_grad()
def _tried(
    model: VisionModel, part: PicturePart, c: int, members: tuple[int, ...], x: Tensor, others: Tensor,
    untouched: Untouched | None = None, bared: Tensor | None = None,
) -> _Tried:  # fmt: skip
    """The part exchanged between pictures of the class and others; where that does much, among each side too.

    An exchange may harm a picture whoever gives the part, and a harmed picture has a favourite class. `bared`: the
    others as they are when the part is given to them, where that is not as they were. Where they are more than `x`,
    the first take part in both exchanges, and those of `x` give in turn.
    """
    taking = others if bared is None else bared
    lost, given = part.exchange(x, others[: len(x)]), part.exchange(taking, _in_turn(x, len(taking)))
    before, usual = untouched or _untouched(model, x, taking, c)
    without, carried = (_probability(model, pictures, c) for pictures in (lost, given))
    drops, rises, lasting = before - without, carried - usual, None
    if part.given and min(drops.mean(), rises.mean()) >= _EFFECT:
        same = [_probability(model, part.exchange(a, b.roll(1, 0)), c) for a, b in ((x, x), (taking, others))]
        lasting = same[0] - without, carried - same[1]
    return _Tried(model.label(c), part, members, drops, rises, float(carried.mean()), float(without.mean()), lasting, c)


def _in_turn(x: Tensor, count: int) -> Tensor:
    """As many pictures, those of `x` over and over."""
    return x[torch.arange(count, device=x.device) % len(x)]


def _untouched(model: VisionModel, x: Tensor, others: Tensor, c: int) -> Untouched:
    return _probability(model, x, c), _probability(model, others, c)


def _probability(model: VisionModel, x: Tensor, c: int) -> NDArray[np.float64]:
    """Of a class, for each input; its score where there are no probabilities."""
    rows = []
    for start in range(0, len(x), model.batch):
        scores = model.reading.class_scores(model.outputs(x[start : start + model.batch])).float()
        rows.append(model.reading.probabilities(scores)[:, c])
    found: NDArray[np.float64] = torch.cat(rows).double().cpu().numpy()
    return found


def _judged(tried: Sequence[_Tried], p: Sequence[float]) -> list[Reliance]:
    """The tests, each class's most specific part that explains its largest effect marked as what it rests on."""
    found: list[Reliance] = []
    for label in dict.fromkeys(t.label for t in tried):
        rows = [(t, q) for t, q in zip(tried, p, strict=True) if t.label == label]
        moved = [t for t, q in rows if _moves(t, q)]
        most = max((t.moved for t in moved), default=math.inf)
        named = min(
            (t for t in moved if t.moved >= _MAIN * most),
            key=lambda t: (_ORDER.index(t.part.kind), -t.moved),
            default=None,
        )
        found += [_reason(t, q, relied=t is named) for t, q in rows]
    return sorted(found, key=lambda r: (not r.relied, -r.drop))


def _moves(t: _Tried, p: float) -> bool:
    """Whether the answer follows the part; of parts that any picture has, more than it follows all the rest."""
    alone = t.part.kind == "mark" or t.carried > t.rest
    return p < _LEVEL and alone and min(float(effect.mean()) for effect in t.effects) >= _EFFECT


def _reason(t: _Tried, p: float, *, relied: bool) -> Reliance:
    mean, low, high = (float(v[0]) for v in row_mean(t.drops[:, None]))
    region = None if t.part.region is None else t.part.region.numpy()
    return Reliance(
        t.label, t.part.kind, t.part.name, mean, low, high, float(t.rises.mean()), t.rest, p, len(t.drops), relied,
        region, t.members, t.bared,
    )  # fmt: skip
