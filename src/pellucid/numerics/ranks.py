"""Ranks with ties, and what is made of them: correlations row by row, without a loop."""

from __future__ import annotations

import torch
from torch import Tensor


def mid_ranks(values: Tensor) -> Tensor:
    """Ascending ranks along the last axis, from 0.5 up; equal values share the middle of their places (`(..., n)`).

    With the half, the ranks of a row and of its negative add up to `n` at each place.
    """
    ordered, order = values.sort(dim=-1, stable=True)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    group = fresh.cumsum(-1) - 1
    places = torch.arange(values.shape[-1], dtype=torch.float64, device=values.device) + 0.5
    empty = torch.zeros(values.shape, dtype=torch.float64, device=values.device)
    total = empty.scatter_add(-1, group, places.expand(values.shape))
    count = empty.scatter_add(-1, group, torch.ones_like(empty))
    middle = (total / count.clamp(min=1)).gather(-1, group)
    return torch.empty_like(empty).scatter_(-1, order, middle)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation along the last axis of two tensors that broadcast; 0 where one of them is flat."""
    a, b = a.double(), b.double()
    size = torch.ones((), dtype=torch.float64, device=a.device)
    centred = []
    for values in (a, b):
        away = values - values.mean(-1, keepdim=True)
        norm = away.norm(dim=-1)
        rounding = 1e-12 * values.shape[-1] ** 0.5 * values.abs().amax(-1)
        size = size * torch.where(norm > rounding, norm, 0.0)
        centred.append(away)
    return torch.where(size > 0, (centred[0] * centred[1]).sum(-1) / torch.where(size > 0, size, 1.0), 0.0)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation along the last axis; 0 where one of them is flat."""
    return pearson(mid_ranks(a), mid_ranks(b))
