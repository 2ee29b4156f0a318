"""Volumes: values on a grid in the patient, with the affine that says where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.media.orientation import Affine, Turn, codes, spacing, turn_to, turned, turned_affine

MAX_VOXELS = 600_000_000
"""The largest volume read, in voxels; checked from the header."""


_SAME = 0.1  # of a voxel: by how much one grid may lie beside another


@dataclass(frozen=True, eq=False)
class Volume:
    """Values in the patient.

    Attributes:
        values: `(I, J, K)`, float32, in the order of the file (of a DICOM series: slices, rows, columns).
        affine: `(4, 4)`, from an index to millimetres Right, Anterior, Superior.
        name: tells nothing of the patient.
        source: what opens it again; empty for what was made in memory, or where a path names the patient.
        sha256: of the files' bytes.
        unit: of the values, such as `HU`.
        seen: false where nothing was measured; None: all of it was.
        window: (centre, width) in which it is drawn; None: its own range.
        notes: what a reader must know.
        origin: what of it goes into records: kind, codes, spacing.
        made_from: the files or headers that results are written after; never printed or saved.
        given: the path as it was given, by which what belongs to it is found; never printed or saved, since it may name
            the patient.
    """

    values: NDArray[np.float32]
    affine: Affine
    name: str
    source: str
    sha256: str
    unit: str = ""
    seen: NDArray[np.bool_] | None = None
    window: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    made_from: Any = field(default=None, repr=False)
    given: str = field(default="", repr=False)

    @property
    def size(self) -> tuple[int, int, int]:
        """(I, J, K)."""
        return self.values.shape[0], self.values.shape[1], self.values.shape[2]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from one voxel to the next, along each axis."""
        return spacing(self.affine)

    @property
    def codes(self) -> str:
        """The letters that its axes run towards."""
        return codes(self.affine)

    def turned(self, turn: Turn) -> Volume:
        """The same volume with its axes permuted and flipped; every voxel keeps its place."""
        seen = None if self.seen is None else turned(self.seen, turn)
        affine = turned_affine(self.affine, self.size, turn)
        return replace(self, values=turned(self.values, turn), seen=seen, affine=affine)

    def along(self, affine: Affine, size: tuple[int, ...]) -> Volume | None:
        """The same volume on another grid that differs by turned axes alone; None where it lies elsewhere."""
        there = self.turned(turn_to(self.affine, codes(affine)))
        corners = np.array([[*np.array(c) * there.size, 1.0] for c in np.ndindex(2, 2, 2)])
        beside = np.abs((np.linalg.inv(affine) @ (there.affine - affine) @ corners.T)[:3])
        return there if there.size == tuple(size) and float(beside.max()) <= _SAME else None

    def windowed(self, window: tuple[float, float]) -> Volume:
        """The same volume, drawn in another window (centre, width)."""
        return replace(self, window=window)

    def brightness(self, values: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Its values, or some of them, as they are drawn: in [0, 1]."""
        shown = self.values if values is None else values
        if self.window is not None:
            low, high = self.window[0] - self.window[1] / 2, self.window[0] + self.window[1] / 2
        else:
            a, b, c = (max(1, n // 64) for n in self.size)
            some = self.values[::a, ::b, ::c]
            some = some[np.isfinite(some)]
            low, high = (float(q) for q in np.quantile(some, (0.01, 0.995))) if some.size else (0.0, 1.0)
        scaled: NDArray[np.float32] = ((np.nan_to_num(shown, nan=low) - low) / max(high - low, 1e-12)).clip(0, 1)
        return scaled.astype(np.float32)
