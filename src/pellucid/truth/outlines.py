"""Outlines of objects as annotations hold them, polygons or run lengths in the way of COCO, and as masks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Outline:
    """Where an object lies: polygons, or runs.

    Attributes:
        polygons: of each its corners `x0, y0, x1, y1, ...` in pixels, edges being whole numbers; together they are it.
        runs: how many pixels lie outside and inside in turn, down the columns one after the other.
        size: `(H, W)` that the runs are of.
    """

    polygons: tuple[tuple[float, ...], ...] = ()
    runs: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)

    def mask(self, size: tuple[int, int]) -> Mask:
        """The pixels whose centres lie inside, `(H, W)`.

        Raises:
            DataError: the runs are of a picture of another size.
        """
        if not self.runs:
            filled = np.zeros(size, bool)
            for polygon in self.polygons:
                filled |= _filled(polygon, size)
            return filled
        if self.size != size or sum(self.runs) != size[0] * size[1]:
            raise DataError(
                f"The outline is of {sum(self.runs)} pixels in a picture of {self.size[1]} x {self.size[0]}, and this "
                f"one is {size[1]} x {size[0]}: give annotations of these very files."
            )
        inside = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(inside, self.runs).reshape(size[1], size[0]).T

    def scaled(self, x: float, y: float) -> Outline:
        """With its polygons stretched."""
        stretched = tuple(tuple(v * (y if k % 2 else x) for k, v in enumerate(p)) for p in self.polygons)
        return replace(self, polygons=stretched)


def outline_of(mask: Mask) -> Outline:
    """A mask as runs."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return Outline(runs=tuple([0, *runs] if len(flat) and flat[0] else runs), size=(mask.shape[0], mask.shape[1]))


def box_around(mask: Mask) -> tuple[float, float, float, float]:
    """The smallest box around a mask that is not empty, `(x0, y0, x1, y1)`."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _filled(polygon: Sequence[float], size: tuple[int, int]) -> Mask:
    """The pixels whose centres an odd number of edges lies to the left of."""
    height, width = size
    corners = np.asarray(polygon, float).reshape(-1, 2)
    rows = np.arange(height) + 0.5
    turns = np.zeros((height, width + 1), bool)
    for (xa, ya), (xb, yb) in pairwise([*corners, corners[0]]):
        crossed = np.flatnonzero((ya <= rows) != (yb <= rows))
        if len(crossed):
            at = xa + (rows[crossed] - ya) / (yb - ya) * (xb - xa)
            turns[crossed, np.ceil(at - 0.5).clip(0, width).astype(int)] ^= True
    filled: Mask = np.logical_xor.accumulate(turns, 1)[:, :width]
    return filled


_BITS, _SIGN, _MORE, _FIRST = 0x1F, 0x10, 0x20, 48  # five bits a letter, from "0" on


def runs_from_text(text: str) -> tuple[int, ...]:
    """Run lengths out of COCO's compressed text, in which each from the fourth on is told less the one two before.

    Raises:
        DataError: it ends in the middle of a number.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - _FIRST
        value |= (code & _BITS) << shift
        shift += 5
        if code & _MORE:
            continue
        if code & _SIGN:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or min(runs, default=0) < 0:
        raise DataError("The compressed run lengths of a mask are cut off or damaged: write the annotations again.")
    return tuple(runs)


def runs_as_text(runs: Sequence[int]) -> str:
    """The inverse of `runs_from_text`."""
    letters: list[str] = []
    for k, run in enumerate(runs):
        value, more = run - (runs[k - 2] if k > 2 else 0), True
        while more:
            code = value & _BITS
            value >>= 5
            more = value != (-1 if code & _SIGN else 0)
            letters.append(chr((code | _MORE if more else code) + _FIRST))
    return "".join(letters)
