"""Marks: what lies at one place of all pictures of a class and of no others, so that it is no object."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.ndimage import label as joined
from torch import Tensor
from torch.fft import irfft2, rfft2
from torch.nn.functional import pad

_FIXED = 0.8  # share of a region's difference from other classes that is the same in all pictures of this one
_EDGE = 0.1  # of a mark's difference from other classes, that may be left right beside it
_MARKS = 3  # pieces that are tried of a region
_REACH, _ROUNDS = 16, 4  # a mark may move by this part of the shorter side; times that it is found anew
_SURE = 0.9  # as `_FIXED`, of what was moved to be alike
_LARGEST = 0.15  # share of the picture that a mark, with the room it moves in, has at most
_SAME = 0.5  # overlap of two marks from which on they are one


def distinct(marks: Iterable[Tensor], known: list[Tensor]) -> list[Tensor]:
    """Those of some marks, each `(H, W)`, that are not nearly one of the `known`, and not of each other.

    Groups of maps find one mark again and again, a pixel more or less, and each test of it weakens all others.
    """
    found: list[Tensor] = []
    for mark in marks:
        if not any(overlap(mark, k) > _SAME for k in (*known, *found)):
            found.append(mark)
    return found


def overlap(first: Tensor, second: Tensor) -> float:
    """Share of two regions `(H, W)`, taken together, that lies in both."""
    return float((first & second).sum()) / max(1, int((first | second).sum()))


def fixed_marks(region: Tensor, x: Tensor, others: Tensor, least: float = _FIXED) -> list[Tensor]:
    """The marks in a region, each `(H, W)`: places at which pictures `x` all hold the same, and others do not.

    What is the same in a class and lies at one place is no object that was photographed. Of the square deviation of
    the class from the mean of the others, at least `least` is that of its mean. And a mark has an edge: beside it the
    class is like the others, within a tenth. The core of an object that lies at about the same place in some pictures
    has none. The largest three that are no larger than a seventh of the picture.
    """
    if x.ndim == 5:  # clips: what stays in all frames
        x, others = x.mean(2), others.mean(2)
    mean, usual = x.mean(0), others.mean(0)
    away = (x - usual).square().sum(1).mean(0)
    same = (mean - usual).square().sum(0)
    spread = others.var(0).sum(0).mean().clamp(min=1e-9)
    inside = region.to(x.device) & (same >= least * away) & (away > 0.05 * spread)
    pieces, count = joined(inside.cpu().numpy(), np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    order = [int(k) for k in np.argsort(-sizes, kind="stable")[:_MARKS] if 4 <= sizes[k] <= _LARGEST * pieces.size]
    differs = same.cpu().numpy()
    found = [pieces == k + 1 for k in order]
    return [torch.from_numpy(piece) for piece in found if _has_edge(piece, differs)]


def _has_edge(piece: NDArray[np.bool_], differs: NDArray[np.float32]) -> bool:
    """Whether two pixels beside a piece the class differs from others by less than a tenth of what it does inside."""
    around = binary_dilation(piece, np.ones((3, 3)), iterations=2) & ~piece
    return float(differs[around].mean()) < _EDGE * float(differs[piece].mean())


def moved_marks(region: Tensor, x: Tensor, others: Tensor) -> list[Tensor]:
    """The marks in a region whose place differs by a few pixels, each `(H, W)` with all the room it moves in.

    Pictures are moved, each by at most a sixteenth of the shorter side, to where they are most like their own mean in
    the region (cross-correlation, from the mean as it is, four times). What then is the same in all (nine tenths, since
    they were moved to be alike), and has an edge, is a mark: see `fixed_marks`.
    """
    if x.ndim == 5:
        x, others = x.mean(2), others.mean(2)
    if region.all():  # they would be moved to where the objects are alike
        return []
    reach = max(1, min(x.shape[-2:]) // _REACH)
    there = region.to(x.device)
    rows, columns = (there.any(axis).nonzero()[[0, -1], 0].tolist() for axis in (1, 0))
    box = (slice(rows[0], rows[1] + 1), slice(columns[0], columns[1] + 1))
    wide = pad(x - others.mean(0), (reach,) * 4, mode="replicate")
    looked = wide[..., rows[0] : rows[1] + 1 + 2 * reach, columns[0] : columns[1] + 1 + 2 * reach]
    size, waves = looked.shape[-2:], rfft2(looked)
    steps = torch.full((len(x), 2), reach, device=x.device)
    for _ in range(_ROUNDS):
        mean = (_cut(wide, steps, x.shape[-2:]).mean(0) * there)[(slice(None), *box)]
        alike = irfft2((waves * rfft2(mean, s=size).conj()).sum(1), s=size)[:, : 2 * reach + 1, : 2 * reach + 1]
        best = alike.flatten(1).argmax(1)
        steps = torch.stack([best // alike.shape[2], best % alike.shape[2]], 1)
    moved = _cut(pad(x, (reach,) * 4, mode="replicate"), steps, x.shape[-2:])
    grown = torch.from_numpy(binary_dilation(region.numpy(), iterations=reach))
    roomy = [_room(mark, steps - reach) for mark in fixed_marks(grown, moved, others, _SURE)]
    return [room for room in roomy if float(room.float().mean()) <= _LARGEST]


def _cut(wide: Tensor, steps: Tensor, size: torch.Size) -> Tensor:
    """Of pictures with a margin the part that begins at each one's step."""
    height, width = size
    return torch.stack([w[:, y : y + height, z : z + width] for w, (y, z) in zip(wide, steps.tolist(), strict=True)])


def _room(mark: Tensor, moves: Tensor) -> Tensor:
    """All places of a mark `(H, W)` that moves by these steps `(n, 2)`."""
    room, (height, width) = torch.zeros_like(mark), mark.shape
    rows, columns = mark.nonzero(as_tuple=True)
    for y, x in sorted({(y, x) for y, x in moves.tolist()}):
        room[(rows + y).clamp(0, height - 1), (columns + x).clamp(0, width - 1)] = True
    return room
