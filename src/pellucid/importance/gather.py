"""From the rows of many pictures to an answer for each group of them, one row in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.importance.game import place_names
from pellucid.importance.ledger import Row
from pellucid.importance.result import Share
from pellucid.media.segments import grid
from pellucid.numerics.statistics import RowMean

SHOWN = 300  # pictures a group whose single values are kept, for the beeswarm
CELLS = 7  # along an axis, for players that only a place makes comparable


NOTES = 8  # kinds of notes of single pictures that are told

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")


def gather_notes(notes: Iterable[Sequence[str]]) -> list[str]:
    """The notes of single pictures, each once, with how many of them it is of; those that differ in numbers are one."""
    kinds: dict[str, list[str]] = {}
    every = list(notes)
    for told in every:
        for note in dict.fromkeys(told):
            kinds.setdefault(_NUMBER.sub("#", note), []).append(note)
    common = sorted(kinds.values(), key=len, reverse=True)
    found = []
    for alike in common[:NOTES]:
        numbers = " The numbers are those of the first." if len(set(alike)) > 1 else ""
        found.append(f"{alike[0]} (So for {len(alike)} of {len(every)} pictures.{numbers})")
    if len(common) > NOTES:
        found.append(f"{len(common) - NOTES} more notes are of single pictures: measure one alone to read its own.")
    return found


@dataclass
class Gathered:
    """A group's share, and for each player the picture in which it matters most."""

    share: Share
    strongest: Tensor  # (K,), positions of pictures
    mean: RowMean  # for the interval of a difference


def gather(group: str, members: Sequence[int], row: Callable[[int], Row], names: Sequence[str], seed: int) -> Gathered:
    """The mean of a group's rows with its interval over pictures.

    Args:
        group: its name.
        members: positions of its pictures.
        row: the row of a position.
        names: of the players, which must be the same in every row.
        seed: of which single values are kept.
    """
    over = RowMean()
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
    kept = set(order[:SHOWN].tolist())
    single: list[Tensor] = []
    changed: Tensor | None = None
    best = torch.full((len(names),), -1.0, dtype=torch.float64)
    strongest = torch.full((len(names),), members[0])
    for position, member in enumerate(members):
        found = row(member)
        if found.names != list(names):
            raise MethodError(
                f"The pictures have different players ({len(names)} and {len(found.names)}): give pictures of one "
                "size, or features that are the same in all, such as patches or channels."
            )
        over.add(found.values)
        if position in kept:
            single.append(found.values.float())
        if found.changed is not None:
            changed = found.changed if changed is None else changed + found.changed
        size = found.values.abs()
        strongest[size > best] = member
        best = torch.maximum(best, size)
    mean, low, high = over.interval()
    count = len(members)
    share = Share(group, mean, low, high, count, torch.stack(single), {}, None if changed is None else changed / count)
    return Gathered(share, strongest, over)


def difference(a: Gathered, b: Gathered) -> Share:
    """What matters more to one group than to the other, with the interval of the difference of the means."""
    values, low, high = a.mean.less(b.mean)
    name = f"{a.share.group} less {b.share.group}"
    return Share(name, values, low, high, a.share.count + b.share.count)


def by_place(values: Tensor, labels: Tensor) -> tuple[Tensor, list[str], Tensor]:
    """Importance of regions that no other picture has, summed where it lies: on an even grid of the model's input.

    Each region's value is spread evenly over its places, so the sum over all cells is that over all regions.

    Args:
        values: `(K, T)`.
        labels: `(*space)`, the region of each place.

    Returns:
        `(cells, T)`, the cells' names, and their labels `(*space)`.
    """
    cells = grid(labels.shape, CELLS**labels.ndim)
    density = values / torch.bincount(labels.flatten(), minlength=len(values))[:, None]
    total = torch.zeros(int(cells.max()) + 1, values.shape[1], dtype=values.dtype)
    total.index_add_(0, cells.flatten(), density[labels.flatten()])
    counts = [len(torch.unique(cells.movedim(axis, 0).flatten(1)[:, 0])) for axis in range(cells.ndim)]
    return total, place_names(counts), cells
