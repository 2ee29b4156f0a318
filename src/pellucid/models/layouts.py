"""Layout: how the axes of an activation read, and the way from it to a map `(N, C, *space)` and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import LayerError

Kind = Literal["channels-first", "channels-last", "tokens"]
_MAX_PREFIX = 16  # class, distillation, register tokens and their like


@dataclass(frozen=True)
class Layout:
    """Where the channels and the space axes of an activation are.

    Attributes:
        kind: `channels-first` (N, C, *grid), `channels-last` (N, *grid, C), or `tokens` (N, prefix + cells, C).
        grid: cells along each space axis.
        channels: number of channels.
        prefix: tokens before the grid (class, distillation, registers), which have no place.
        order: for tokens stored in another order than row by row: `order[i]` is the token of grid cell `i`.
        folded: frames folded into the batch: the activation is `(N * folded, ...)`, and the first axis of the grid, of
            that length, is time; the rest reads as `kind` says. 0: none are.
        runs: of a layer that runs several times in a pass, the runs put together here: frames, where they are `folded`,
            or else channels side by side.
    """

    kind: Kind
    grid: tuple[int, ...]
    channels: int
    prefix: int = 0
    order: tuple[int, ...] | None = None
    folded: int = 0
    runs: int = 1

    @property
    def frame(self) -> Layout:
        """How one folded frame reads."""
        return replace(self, grid=self.grid[1:], folded=0)

    @property
    def cells(self) -> int:
        """Number of cells of the grid."""
        return math.prod(self.grid)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an activation of this shape can be read so, whatever its batch."""
        return shape[1:] == self.shape(1)[1:] and (not self.folded or shape[0] % self.folded == 0)

    def shape(self, batch: int) -> tuple[int, ...]:
        """The shape of an activation of this layout."""
        if self.folded:
            return self.frame.shape(batch * self.folded)
        if self.kind == "channels-first":
            return (batch, self.channels, *self.grid)
        if self.kind == "channels-last":
            return (batch, *self.grid, self.channels)
        return (batch, self.prefix + self.cells, self.channels)

    def to_map(self, activation: Tensor) -> Tensor:
        """Activation of this layout -> `(N, C, *grid)`; prefix tokens are left out."""
        if not self.fits(tuple(activation.shape)):
            if self.runs > 1:
                raise LayerError(
                    f"The layer runs {self.runs} times in a pass, and only one of the runs is read here: name a layer "
                    "that runs once, or use a class activation map, which gathers them."
                )
            raise LayerError(
                f"The layer's output has shape {tuple(activation.shape)}, not {self.shape(activation.shape[0])} as "
                "when it was probed; give inputs of one size, or name another layer."
            )
        if self.folded:
            frames = self.frame.to_map(activation)
            return frames.reshape(-1, self.folded, *frames.shape[1:]).movedim(1, 2)
        if self.kind == "channels-first":
            return activation
        if self.kind == "channels-last":
            return activation.movedim(-1, 1)
        tokens = activation[:, self.prefix :].movedim(-1, 1)
        if self.order is not None:
            tokens = tokens[..., torch.tensor(self.order, device=tokens.device)]
        return tokens.reshape(*tokens.shape[:2], *self.grid)

    def from_map(self, cells: Tensor, like: Tensor) -> Tensor:
        """The way back: a map `(N, C, *grid)` -> an activation of this layout.

        Args:
            cells: what `to_map` returned, changed.
            like: an activation of this layout, of N samples or of one, whose prefix tokens are kept.
        """
        if self.folded:
            frames = cells.movedim(2, 1).flatten(0, 1)
            return self.frame.from_map(frames, like.repeat(len(frames) // len(like), *[1] * (like.ndim - 1)))
        if self.kind == "channels-first":
            return cells
        if self.kind == "channels-last":
            return cells.movedim(1, -1).contiguous()  # models view it
        tokens = cells.flatten(2)
        if self.order is not None:
            tokens = tokens[..., torch.tensor(self.order, device=tokens.device).argsort()]
        return torch.cat([like[:, : self.prefix].expand(len(cells), -1, -1), tokens.movedim(-1, 1)], 1)

    def __str__(self) -> str:
        grid = " x ".join(map(str, self.grid))
        prefix = f" after {self.prefix} prefix token{'s' * (self.prefix > 1)}" if self.prefix else ""
        order = ", re-ordered" if self.order else ""
        folded = ", frames in the batch" if self.folded and self.runs == 1 else ""
        runs = f" in {self.runs} runs" if self.runs > 1 else ""
        return f"{self.kind} {grid}{prefix}{order}{folded}, {self.channels} channels{runs}"


def readings(shape: tuple[int, ...], space: tuple[int, ...]) -> Iterator[Layout]:
    """Every way to read an activation of `shape` as a picture of an input with size `space`, likeliest first.

    A reading is a guess from the shape alone: `layers.prove` tells which guess is true. An input of three space axes is
    read as a clip too: frames folded into the batch, and tokens of which time runs fastest.

    Args:
        shape: of the activation of ONE input, its batch axis included.
        space: of that input.
    """
    if shape[0] != 1:
        if len(space) == 3 and 1 < shape[0] <= space[0]:
            for frame in readings((1, *shape[1:]), space[1:]):
                yield replace(frame, grid=(shape[0], *frame.grid), folded=shape[0])
        return
    if len(shape) == len(space) + 2:
        if _plausible(shape[2:], space):
            yield Layout("channels-first", tuple(shape[2:]), shape[1])
        if _plausible(shape[1:-1], space):
            yield Layout("channels-last", tuple(shape[1:-1]), shape[-1])
    if len(shape) == 3 and len(space) > 1:
        rows = list(_token_rows(shape, space))
        yield from rows
        if len(space) == 3:
            yield from (replace(r, order=_time_fastest(r.grid)) for r in rows if r.grid[0] > 1)


def _token_rows(shape: tuple[int, ...], space: tuple[int, ...]) -> Iterator[Layout]:
    for prefix in range(min(_MAX_PREFIX, shape[1] - 2) + 1):
        for grid in _grids(shape[1] - prefix, space):
            yield Layout("tokens", grid, shape[2], prefix)


def _time_fastest(grid: tuple[int, ...]) -> tuple[int, ...]:
    """The order of tokens that run through the frames of each place before going on to the next."""
    return tuple(torch.arange(math.prod(grid)).reshape(*grid[1:], grid[0]).movedim(-1, 0).flatten().tolist())


def _plausible(grid: tuple[int, ...], space: tuple[int, ...]) -> bool:
    """A grid covers the input: no axis finer than it, some axis longer than a cell, height and width in proportion."""
    if any(g > s for g, s in zip(grid, space, strict=True)) or math.prod(grid[-2:]) < 2:
        return False
    if len(grid) < 2:
        return True
    (gh, gw), (sh, sw) = grid[-2:], space[-2:]
    if sh == sw:
        return gh == gw
    # Strides agree, up to the cell that padding and rounding may add or take.
    return abs(gh - sh * gw / sw) <= 1 or abs(gw - sw * gh / sh) <= 1


def _grids(cells: int, space: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Factorisations of a number of tokens into a grid in the proportions of the input, the squarest cells first."""
    found = []
    for leading in itertools.product(*(range(1, s + 1) for s in space[:-2])):
        rest, remainder = divmod(cells, math.prod(leading))
        if remainder:
            continue
        for height in range(1, min(rest, space[-2]) + 1):
            width, remainder = divmod(rest, height)
            if not remainder and _plausible((*leading, height, width), space):
                skew = abs(math.log(space[-2] / height) - math.log(space[-1] / width))
                found.append((skew, (*leading, height, width)))
    yield from (grid for _, grid in sorted(found))
