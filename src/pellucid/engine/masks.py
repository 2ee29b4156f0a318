"""Masks: which part of an input is kept. Stored small, drawn large only for the batch that is about to run.

A mask holds 1 where the input is kept and 0 where the baseline shows. Both kinds here are linear in their stored
values, so a weighted sum of many masks is one matrix product on the small values, drawn once.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.errors import MethodError
from pellucid.registry import settings_of

KEY = 16  # bytes of a mask's name
_SHIFTS = 64  # of masks that are summed at a time
_OF_EACH = ("values", "shifts")  # what the masks of one object do not share


class Masks(ABC):
    """Many masks over inputs of one size."""

    values: Tensor  # (M, ...), the small values
    space: tuple[int, ...]  # what they are drawn over

    def __len__(self) -> int:
        return len(self.values)

    @abstractmethod
    def render(self, rows: slice | Tensor) -> Tensor:
        """The masks `rows` as `(m, 1, *space)`, single precision."""

    @abstractmethod
    def accumulate(self, weights: Tensor) -> Tensor:
        """`sum_m weights[m, t] mask_m`, `(M, T) -> (T, *space)`, without drawing the masks."""

    @abstractmethod
    def take(self, rows: Tensor) -> Masks:
        """The masks with these indices."""

    def boxes(self) -> tuple[Tensor, Tensor] | None:
        """Where a box begins and ends outside of which a mask is 1, `(M, axes)` each; None: it may hide anything."""
        return None

    def distinct(self) -> tuple[Masks, Tensor]:
        """Each different mask once, and for every mask which of them it is, `(M,)`."""
        _, inverse = torch.unique(self.values.flatten(1), dim=0, return_inverse=True)
        first = torch.full((int(inverse.max()) + 1,), len(self), dtype=torch.long, device=inverse.device)
        first.scatter_reduce_(0, inverse, torch.arange(len(self), device=inverse.device), "amin")
        order = first.argsort()  # by first appearance: results must not hang on how values sort
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return self.take(first[order]), rank[inverse]

    def keys(self) -> list[bytes]:
        """A short name for each mask, the same for all masks that are drawn the same from the same kind of values."""
        own = [(name, getattr(self, name)) for name in settings_of(self)]
        shared = hashlib.blake2b(type(self).__name__.encode())
        for name, value in own:
            if name not in _OF_EACH:
                shared.update(_plain(value).tobytes() if isinstance(value, Tensor) else repr(value).encode())
        rows = [_plain(v).reshape(len(self), -1) for name, v in own if name in _OF_EACH and isinstance(v, Tensor)]
        frame = shared.digest()
        return [
            hashlib.blake2b(b"".join(part.tobytes() for part in row), key=frame, digest_size=KEY).digest()
            for row in zip(*rows, strict=True)
        ]


def _plain(values: Tensor) -> NDArray[Any]:
    return (values.double() if values.is_floating_point() else values.long()).cpu().contiguous().numpy()


@dataclass(frozen=True)
class SegmentMasks(Masks):
    """Coalitions of segments: superpixels, patches, windows, frames, tubes or any regions.

    Attributes:
        values: `(M, K)`, 1 where segment k is kept.
        labels: `(*space)`, the segment of each place, 0 to K - 1.
    """

    values: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        top = int(self.labels.max()) + 1
        if self.labels.is_floating_point() or int(self.labels.min()) < 0 or top > self.values.shape[1]:
            raise MethodError(
                f"Segments are numbered 0 to {self.values.shape[1] - 1}, one integer a place; these run from "
                f"{int(self.labels.min())} to {top - 1}."
            )

    @property
    def space(self) -> tuple[int, ...]:  # type: ignore[override]
        """The size of the labels."""
        return tuple(self.labels.shape)

    def render(self, rows: slice | Tensor) -> Tensor:
        """Each place takes its segment's value."""
        return self._drawn(self.values[rows].float())[:, None]

    def accumulate(self, weights: Tensor) -> Tensor:
        """The weighted sum per segment, then drawn."""
        return self._drawn(weights.T.to(torch.float32) @ self.values.float())

    def _drawn(self, values: Tensor) -> Tensor:
        """`(m, K) -> (m, *space)`; a fifth of the time that indexing takes, and short integers a third less again."""
        return values.index_select(1, self.labels.flatten().int()).reshape(len(values), *self.labels.shape)

    def boxes(self) -> tuple[Tensor, Tensor] | None:
        """Around the segments that are not kept."""
        labels, hidden = self.labels.flatten().long(), self.values != 1
        starts, ends = [], []
        for axis, length in enumerate(self.space):
            shape = [length if k == axis else 1 for k in range(len(self.space))]
            at = torch.arange(length, device=labels.device).reshape(shape).expand(self.space).flatten()
            first = at.new_full((self.values.shape[1],), length).scatter_reduce(0, labels, at, "amin")
            last = at.new_full((self.values.shape[1],), -1).scatter_reduce(0, labels, at, "amax")
            starts.append(torch.where(hidden, first, length).amin(1))
            ends.append(torch.where(hidden, last, -1).amax(1) + 1)
        return torch.stack(starts, 1), torch.stack(ends, 1)

    def take(self, rows: Tensor) -> SegmentMasks:
        """The coalitions with these indices."""
        return SegmentMasks(self.values[rows], self.labels)


@dataclass(frozen=True)
class GridMasks(Masks):
    """Smooth or blocky masks on a coarse grid, optionally shifted by whole pixels (as RISE shifts its cells).

    Attributes:
        values: `(M, *grid)`, 0 to 1.
        space: the input's size.
        mode: `nearest` for blocks, `linear` for smooth masks.
        shifts: `(M, axes)`, pixels cut off at the start of each axis after drawing one cell more than fits; None: no
            shift.
    """

    values: Tensor
    space: tuple[int, ...]
    mode: Literal["nearest", "linear"] = "nearest"
    shifts: Tensor | None = None

    @cached_property
    def _whole(self) -> list[Tensor]:
        """What each cell adds to each place, axis by axis: `(places, cells)`, since drawing is linear in the cells."""
        mode, corners = ("nearest-exact", None) if self.mode == "nearest" else ("linear", False)
        profiles = []
        for cells, places in zip(self.values.shape[1:], self.space, strict=True):
            # Where masks are shifted, each cell spans ceil(places / (cells - 1)) of them, so that one cell is to spare.
            drawn = places if self.shifts is None else cells * -(-places // max(1, cells - 1))
            each = torch.eye(cells, device=self.values.device)[None]
            profiles.append(interpolate(each, size=drawn, mode=mode, align_corners=corners)[0].T.contiguous())
        return profiles

    def _profiles(self, shifts: Tensor | None) -> list[Tensor]:
        """The same for masks at these shifts `(k, axes)`: `(k, places, cells)`, or `(1, places, cells)` for all."""
        if shifts is None:
            return [whole[None] for whole in self._whole]
        at = [
            shift[:, None] + torch.arange(n, device=shift.device) for shift, n in zip(shifts.T, self.space, strict=True)
        ]
        return [whole[rows] for whole, rows in zip(self._whole, at, strict=True)]

    def render(self, rows: slice | Tensor) -> Tensor:
        """Drawn, and shifted."""
        shifts = None if self.shifts is None else self.shifts[rows]
        return _drawn(self.values[rows].float(), self._profiles(shifts))[:, None]

    def accumulate(self, weights: Tensor) -> Tensor:
        """One product on the grid for each different shift; along the first axis these are drawn and summed at once."""
        flat, weights, grid = self.values.float().flatten(1), weights.to(torch.float32), self.values.shape[1:]
        if self.shifts is None:
            return _drawn((weights.T @ flat).reshape(-1, *grid), self._profiles(None))
        kinds, inverse = torch.unique(self.shifts, dim=0, return_inverse=True)
        total = torch.zeros(self.space[0], weights.shape[1] * math.prod(self.space[1:]), device=flat.device)
        for some in torch.split(torch.arange(len(kinds), device=flat.device), _SHIFTS):
            first, *others = self._profiles(kinds[some])
            sums = torch.stack([weights[inverse == k].T @ flat[inverse == k] for k in some])  # (k, T, cells)
            cells = sums.reshape(len(some), -1, *grid).permute(0, *range(3, 2 + len(grid)), 2, 1)
            drawn = _drawn(cells.flatten(-2), others)  # (k, cells of the first axis * T, *other places)
            total += first.transpose(0, 1).flatten(1) @ drawn.reshape(len(some) * grid[0], -1)
        return total.reshape(self.space[0], -1, *self.space[1:]).transpose(0, 1).contiguous()

    def take(self, rows: Tensor) -> GridMasks:
        """The masks with these indices."""
        shifts = None if self.shifts is None else self.shifts[rows]
        return GridMasks(self.values[rows], self.space, self.mode, shifts)

    def distinct(self) -> tuple[Masks, Tensor]:
        """Shifted masks are as good as never equal."""
        if self.shifts is not None:
            return self, torch.arange(len(self), device=self.values.device)
        return super().distinct()


def _drawn(values: Tensor, profiles: Sequence[Tensor]) -> Tensor:
    """`(m, *grid, ...) -> (m, ..., *space)`: one matrix product an axis, each of which then stands at the end."""
    for profile in profiles:
        values = values.movedim(1, -1)
        kept = values.shape[1:-1]
        rows = values.reshape(len(values), -1, values.shape[-1])
        values = torch.matmul(rows, profile.transpose(1, 2)).reshape(len(values), *kept, -1)
    return values


def grid_labels(space: Sequence[int], grid: Sequence[int]) -> Tensor:
    """`(*space)` segment numbers of an even grid of blocks, row by row."""
    labels = torch.zeros((), dtype=torch.long)
    for size, cells in zip(space, grid, strict=True):
        index = torch.arange(size) * cells // size
        labels = labels[..., None] * cells + index
    return labels


@dataclass(frozen=True)
class WindowMasks(Masks):
    """Boxes cut out of the input, of one size, at any place (they may overlap, and reach over the edge).

    Attributes:
        values: `(M, axes)` integers, where each box starts.
        size: the box along each axis.
        space: the input's size.
    """

    values: Tensor
    size: tuple[int, ...]
    space: tuple[int, ...]

    def inside(self, rows: slice | Tensor) -> list[Tensor]:
        """For each axis, `(m, length)`: whether each place lies in each box's range on that axis."""
        starts = self.values[rows]
        ranges = []
        for axis, (size, length) in enumerate(zip(self.size, self.space, strict=True)):
            at = torch.arange(length, device=starts.device)
            begin = starts[:, axis, None]
            ranges.append(((at >= begin) & (at < begin + size)).float())
        return ranges

    def render(self, rows: slice | Tensor) -> Tensor:
        """0 inside the box."""
        return 1 - _outer(self.inside(rows))[:, None]

    def boxes(self) -> tuple[Tensor, Tensor] | None:
        """The boxes, as far as they lie in the input."""
        space = torch.tensor(self.space, device=self.values.device)
        size = torch.tensor(self.size, device=self.values.device)
        return self.values.clamp(min=0), torch.minimum(self.values + size, space)

    def accumulate(self, weights: Tensor) -> Tensor:
        """The sum of weights, less what falls into the boxes."""
        return weights.T.sum(1).float().reshape(-1, *[1] * len(self.space)) - self.accumulate_inside(weights)

    def accumulate_inside(self, weights: Tensor) -> Tensor:
        """`sum_m weights[m, t] (1 - mask_m)`, `(M, T) -> (T, *space)`: one product per axis, no mask drawn."""
        first, *others = self.inside(slice(None))
        if not others:
            return weights.T.float() @ first
        rest = _outer(others).flatten(1)
        total = torch.einsum("mt,ma,mb->tab", weights.float(), first, rest)
        return total.reshape(weights.shape[1], *self.space)

    def take(self, rows: Tensor) -> WindowMasks:
        """The boxes with these indices."""
        return WindowMasks(self.values[rows], self.size, self.space)


def _outer(ranges: Sequence[Tensor]) -> Tensor:
    """`(m, a), (m, b), ... -> (m, a, b, ...)`."""
    product = ranges[0]
    for more in ranges[1:]:
        product = product[..., None] * more.reshape(len(more), *[1] * (product.ndim - 1), -1)
    return product
