"""Cells of a grid by their number in reading order."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def coordinates(number: Tensor, grid: Sequence[int]) -> tuple[Tensor, ...]:
    """Where cells lie, an axis a tensor of the shape of `number`: `torch.unravel_index` of numbers inside the grid.

    That function imports sympy to check its arguments, 0.4 s of the processor that each short command would pay.
    """
    found = []
    for size in reversed(grid):
        found.append(number % size)
        number = number // size
    return tuple(reversed(found))
