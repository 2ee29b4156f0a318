"""Fill holes from their rims: each hidden place is the weighted mean of its neighbours, all of them at once.

That is a sparse linear system for each mask, `x_i = sum_j w_ij x_j` for hidden places `i`, over neighbours `j` inside
the input. It is solved for a batch of masks by multigrid: from coarse to fine, on each grid a few cycles that take
what is left of the equations to the coarser grids, where a hole is small. The number of cycles is fixed, so a filling
depends neither on the other masks of its batch nor on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d, interpolate

_POOL = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_CYCLES = 5  # on the finest grid: a mean error of some 0.1 % of the spread for holes of many places
_COARSE_CYCLES = 3
_DAMPING = 0.8  # of a Jacobi step
_TINY = 1e-20
_COARSEST = 2  # places along an axis


def fill(values: Tensor, known: Tensor, *, diagonal: bool) -> Tensor:
    """What `values` are where they are known, and where not, weighted means of their neighbours.

    Args:
        values: `(1, C, *space)`, one to three space axes.
        known: `(m, 1, *space)`, 1 where known, 0 where to fill.
        diagonal: neighbours touch by a corner too, and weigh `1 / distance^2` (on pictures 1/6 beside and 1/12 across a
            corner); False: only those beside.

    Returns:
        `(m, C, *space)`. Values stay between the least and the greatest known one of a channel, as means must. Where
        nothing is known, each channel's mean.
    """
    axes = tuple(range(2, values.ndim))
    mean = values.mean(axes, keepdim=True)
    shown = values.expand(len(known), *values.shape[1:])
    nothing = known.amax(axes, keepdim=True) == 0
    filled = torch.where(nothing, mean, _solve(torch.where(nothing, mean, shown), known, diagonal, _CYCLES))
    low = torch.where(known > 0, shown, torch.inf).amin(axes, keepdim=True)
    high = torch.where(known > 0, shown, -torch.inf).amax(axes, keepdim=True)
    bounded = torch.where(nothing, mean, torch.minimum(torch.maximum(filled, low), high))
    return torch.where(known > 0, shown, bounded)


def _solve(values: Tensor, known: Tensor, diagonal: bool, cycles: int) -> Tensor:
    """Start from the coarser grid's solution, then cycles on this one."""
    hidden = 1 - known
    share = _pooled(known)
    if max(values.shape[2:]) > _COARSEST and bool((known == 0).any()):
        means = _pooled(values * known) / share.clamp(min=1e-12)
        start = _drawn(_solve(means, (share > 0).to(known), diagonal, _COARSE_CYCLES), values)
    else:
        axes = tuple(range(2, values.ndim))
        start = (values * known).sum(axes, keepdim=True) / known.sum(axes, keepdim=True).clamp(min=1)
    found = values * known + hidden * start
    holes = _holes(hidden)
    weights = [_weights(h, level, diagonal) for level, h in enumerate(holes)]

    def pull(step: Tensor) -> Tensor:
        return hidden * (weights[0] * step - _neighbours(step, diagonal))

    left = hidden * (_neighbours(found, diagonal) - weights[0] * found)
    way = correction = torch.zeros_like(found)
    size = torch.ones(1).to(found)
    for _ in range(cycles):  # conjugate gradients in the flexible form, since a cycle is no symmetric correction
        before, correction = correction, _cycle(holes, weights, left, 0, diagonal)
        new = _dot(correction, left)
        way = correction + (new - _dot(before, left)) / size * way
        size = new.clamp(min=_TINY)
        pulled = pull(way)
        step = _dot(way, left) / _dot(way, pulled).clamp(min=_TINY)
        found, left = found + step * way, left - step * pulled
    return found


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(tuple(range(2, a.ndim)), keepdim=True)


def _holes(hidden: Tensor) -> list[Tensor]:
    """The hidden places on this and all coarser grids: a coarse place is hidden if all of it is."""
    holes = [hidden]
    while max(holes[-1].shape[2:]) > _COARSEST and bool(holes[-1].any()):
        holes.append((_pooled(holes[-1]) >= 1 - 1e-6).to(hidden))
    return holes


def _weights(hidden: Tensor, level: int, diagonal: bool) -> Tensor:
    """What a place itself weighs in its equation: the weights of its neighbours inside the input.

    On a coarser grid the rim of a hole is nearer than the middle of the next place, and pulls the more.
    """
    nearer = 2 / (1 + 2.0**-level)
    inside = _neighbours(torch.ones_like(hidden[:1]), diagonal)
    return nearer * inside - (nearer - 1) * _neighbours(hidden, diagonal)


def _cycle(holes: list[Tensor], weights: list[Tensor], left: Tensor, level: int, diagonal: bool) -> Tensor:
    """A correction that does away with most of what is `left` of the equations: a V-cycle."""
    hidden, own = holes[level], weights[level]

    def rest(step: Tensor) -> Tensor:
        return hidden * (left - own * step + _neighbours(step, diagonal))

    step = _DAMPING * hidden * left / own
    if level + 1 < len(holes):
        coarse = 4 * _pooled(rest(step)) * holes[level + 1]  # places twice as far apart pull a quarter as hard
        step = step + hidden * _drawn(_cycle(holes, weights, coarse, level + 1, diagonal), step)
    else:
        for _ in range(6):
            step = step + _DAMPING * rest(step) / own
    return step + _DAMPING * rest(step) / own


def _neighbours(values: Tensor, diagonal: bool) -> Tensor:
    """The weighted sum of each place's neighbours, nothing beyond the edge; weights add up to one inside."""
    dims = values.ndim - 2
    beside = _beside(values)
    if not diagonal or dims == 1:
        return beside / (2 * dims)
    if dims == 2:  # 2 beside, 1 across a corner, 0 in the middle: a box of ones, and once more those beside
        return (_box(values, (2, 3)) + beside - values) / 12
    # 1 beside, 1/2 across an edge, 1/3 across a corner: boxes in the planes hold edges once, those beside twice
    planes = _box(values, (2, 3)) + _box(values, (2, 4)) + _box(values, (3, 4))
    return (2 * _box(values, (2, 3, 4)) + planes + 2 * beside - 5 * values) / (6 * 6 + 12 * 3 + 8 * 2)


def _beside(values: Tensor) -> Tensor:
    total = torch.zeros_like(values)
    for axis in range(2, values.ndim):
        _add_beside(total, values, axis)
    return total


def _box(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sums over three places along each of the axes."""
    for axis in axes:
        total = values.clone()
        _add_beside(total, values, axis)
        values = total
    return values


def _add_beside(total: Tensor, values: Tensor, axis: int) -> None:
    rest = values.shape[axis] - 1
    total.narrow(axis, 0, rest).add_(values.narrow(axis, 1, rest))
    total.narrow(axis, 1, rest).add_(values.narrow(axis, 0, rest))


def _pooled(values: Tensor) -> Tensor:
    """Means of neighbouring pairs along each axis that is not short already."""
    size = [2 if s > _COARSEST else 1 for s in values.shape[2:]]
    return _POOL[len(size)](values, size, ceil_mode=True, count_include_pad=False)


def _drawn(values: Tensor, like: Tensor) -> Tensor:
    return interpolate(values, size=like.shape[2:], mode=_LINEAR[like.ndim - 2], align_corners=False)
