"""The mean of a rough vector function along a path, on nodes placed where the score bends, refined by halving.

In a rectifier network the gradient along a path changes by many small independent kinks: it moves like a random walk
of local rate `q(a)`, and a cell of width `h` adds `q h^3 / 12` to the squared error of a midpoint rule. The best
density of nodes is therefore `q^(1/3)`; the curvature of the score shows `q` without any gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

Gradients = Callable[[Tensor, Tensor, Tensor], Tensor]  # rows (R,), alphas (R, n), weights (R, n) -> (R, *shape)

_FIRST = 12  # least number of nodes on the first level of refinement


@dataclass
class Integral:
    """What `integrate` found for each of N paths.

    Attributes:
        attribution: `(N, *shape)`, delta times the mean gradient.
        gap: `(N,)`, `|sum of attribution - change of score|`, relative to the change of score.
        error: `(N,)`, estimated relative L2 error of the attribution; NaN without a refinement.
        steps: `(N,)`, gradients spent.
    """

    attribution: Tensor
    gap: Tensor
    error: Tensor
    steps: Tensor


def gap_scale(scores: Tensor) -> Tensor:
    """What gaps `(N,)` are relative to: the change of the scores `(N, S + 1)`, or 1 % of their size if that is more."""
    return torch.maximum((scores[:, -1] - scores[:, 0]).abs(), 1e-2 * scores.abs().amax(1))


def placement(scores: Tensor, uniform: float = 0.1) -> Tensor:
    """Cumulative density of nodes `(N, S + 1)`, from 0 to 1, for scores on `S + 1` even knots of [0, 1].

    The density is `uniform + (1 - uniform) |f''|^(1/3)`, smoothed; uniform where the score is straight.
    """
    scores = scores.double()
    noise = 1e-6 * scores.abs().amax(1, keepdim=True)
    bend = pad((scores.diff(n=2).abs() - noise).clamp(min=0), (3, 3), mode="replicate")
    kernel = torch.tensor([[[1.0, 4.0, 6.0, 4.0, 1.0]]], dtype=bend.dtype, device=bend.device) / 16
    density = conv1d(bend[:, None], kernel)[:, 0] ** (1 / 3)
    mean = density.mean(1, keepdim=True)
    density = uniform + (1 - uniform) * torch.where(mean > 0, density / mean, 1.0)
    cumulative = pad((density[:, 1:] + density[:, :-1]).cumsum(1), (1, 0))
    return cumulative / cumulative[:, -1:]


def cell_edges(cumulative: Tensor, cells: int) -> Tensor:
    """Edges `(N, cells + 1)` of cells that hold equal shares of the density."""
    share = torch.linspace(0, 1, cells + 1, dtype=cumulative.dtype, device=cumulative.device)
    share = share.expand(len(cumulative), -1).contiguous()
    right = torch.searchsorted(cumulative, share).clamp(1, cumulative.shape[1] - 1)
    low, high = cumulative.gather(1, right - 1), cumulative.gather(1, right)
    return (right - 1 + (share - low) / (high - low)) / (cumulative.shape[1] - 1)


def first_cells(max_steps: int) -> int:
    """Cells of the first level, such that levels of m, 2m + 1, 4m + 1, ... nodes end at or below `max_steps`."""
    m = max_steps - 1
    while m >= 2 * _FIRST:
        m //= 2
    return m if m < max_steps - 1 else max_steps


def integrate(
    scores: Tensor, gradients: Gradients, delta: Tensor, max_steps: int, tolerance: float | None = None
) -> Integral:
    """`delta` times the mean gradient along N paths, each on its own nodes.

    Without a tolerance, `max_steps` midpoints are spent. With one, the midpoints of the cells come first (M); their
    edges make the trapezoid rule (T) of the same cells, and (M + T) / 2 is the trapezoid rule of the halved cells:
    every level reuses all earlier gradients and keeps two images, however many nodes there are. Paths stop on their
    own when the gap is within the tolerance and the estimated error within twice it (the gap alone can be small by
    luck). For a random walk the last correction is sqrt(3) times the error that remains; that gives the estimate.

    Args:
        scores: `(N, S + 1)`, the score at even knots of each path, both ends among them.
        gradients: the weighted sum of gradients at points of the paths `rows`; may run them in chunks.
        delta: `(N, *shape)`, end minus start of each path.
        max_steps: gradients to spend on a path at the most.
        tolerance: relative completeness gap to reach.
    """
    scores = scores.double()
    change = scores[:, -1] - scores[:, 0]
    tiny = torch.finfo(delta.dtype).tiny
    scale = gap_scale(scores).clamp(min=tiny)
    cells = max_steps if tolerance is None else first_cells(max_steps)
    edges = cell_edges(placement(scores), cells)

    rows, spent = torch.arange(len(delta), device=delta.device), 0
    mean, total = torch.zeros_like(delta), torch.zeros_like(change)
    result = Integral(torch.zeros_like(delta), torch.zeros_like(change), torch.full_like(change, torch.nan), rows * 0)
    while True:
        nodes, weights = _edge_rule(edges) if spent == cells else _midpoint_rule(edges)
        level = gradients(rows, nodes, weights) * delta[rows]
        step = (level - mean) / 2 if spent else level
        mean, total = mean + step, total + step.flatten(1).double().sum(1)
        if spent:
            size = mean.flatten(1).norm(dim=1).clamp(min=tiny)
            result.error[rows] = (step.flatten(1).norm(dim=1) / size / 3**0.5).double()
            edges = _halved(edges)
        spent += nodes.shape[1]
        gap = (total - change[rows]).abs() / scale[rows]
        result.attribution[rows], result.gap[rows], result.steps[rows] = mean, gap, spent
        if tolerance is None:
            return result
        keep = ~((gap <= tolerance) & (result.error[rows] <= 2 * tolerance))
        following = edges.shape[1] - (spent > cells)
        if spent + following > max_steps or not bool(keep.any()):
            return result
        rows, edges, mean, total = rows[keep], edges[keep], mean[keep], total[keep]


def _midpoint_rule(edges: Tensor) -> tuple[Tensor, Tensor]:
    return (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=1)


def _edge_rule(edges: Tensor) -> tuple[Tensor, Tensor]:
    widths = edges.diff(dim=1)
    return edges, (pad(widths, (1, 0)) + pad(widths, (0, 1))) / 2


def _halved(edges: Tensor) -> Tensor:
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    return torch.cat((torch.stack((edges[:, :-1], middles), 2).flatten(1), edges[:, -1:]), 1)
