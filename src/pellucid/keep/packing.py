"""Arrays as a few bytes in a table's cell: a map as float16 with its scale, anything else as it is."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ERROR = (2.0**-11, 2.0**-25)
"""Of float16 with a scale: a value is off by at most the first times itself, or the second times the scale."""


@dataclass(frozen=True)
class Packed:
    """An array in a cell.

    Attributes:
        data: its values, little-endian, in the order of the last axis.
        shape: its axes.
        type: `float16` (to be multiplied by `scale`) or `float32`.
        scale: the largest absolute value; 1 for float32.
    """

    data: bytes
    shape: tuple[int, ...]
    type: str
    scale: float

    def values(self) -> NDArray[np.float32]:
        """The array again, float32."""
        found = np.frombuffer(self.data, f"<{'f2' if self.type == 'float16' else 'f4'}").reshape(self.shape)
        return (found.astype(np.float64) * self.scale).astype(np.float32)


def pack(values: NDArray[Any], precision: str = "float16") -> Packed:
    """A map for a cell; one with NaN or infinity, or of subnormal values only, stays float32."""
    values = np.asarray(values, np.float32)
    scale = float(np.abs(values).max(initial=0.0))
    if precision == "float32" or not np.isfinite(scale) or 0 < scale < np.finfo(np.float32).tiny:
        return Packed(np.ascontiguousarray(values, "<f4").tobytes(), values.shape, "float32", 1.0)
    scale = scale or 1.0
    return Packed((values.astype(np.float64) / scale).astype("<f2").tobytes(), values.shape, "float16", scale)


def pack_all(arrays: Mapping[str, NDArray[Any]]) -> bytes | None:
    """Any arrays, as they are; None where there are none."""
    if not arrays:
        return None
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def unpack_all(data: bytes | None) -> dict[str, NDArray[Any]]:
    """The inverse of `pack_all`."""
    if data is None:
        return {}
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
