"""Which way the axes of a volume run in the patient, and how they are turned: letters, affines, exact permutations.

An affine `(4, 4)` leads from an index (whole numbers are voxel centres) to millimetres to the Right, Anterior and
Superior of the patient, as in NIfTI. DICOM counts to the Left and Posterior: `from_lps`. A turn names for each axis
which axis it was, counted from 1, and negative where it now runs the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError

Affine = NDArray[np.float64]
Turn = tuple[int, ...]

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def from_lps(affine: Affine) -> Affine:
    """An affine to DICOM's millimetres made one to Right, Anterior, Superior; and the other way round."""
    return _LPS @ affine


def spacing(affine: Affine) -> tuple[float, float, float]:
    """The distance in millimetres from one index to the next, along each axis."""
    a, b, c = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0).tolist()
    return a, b, c


def axes_of(affine: Affine) -> Turn:
    """For each axis of the index, which axis of the patient (1 R, 2 A, 3 S) it runs along, negative the other way."""
    cosines = np.asarray(affine, np.float64)[:3, :3] / spacing(affine)
    best = max(permutations(range(3)), key=lambda p: sum(abs(cosines[p[k], k]) for k in range(3)))
    return tuple((p + 1) * (1 if cosines[p, k] >= 0 else -1) for k, p in enumerate(best))


def codes(affine: Affine) -> str:
    """The letters that the axes run towards, such as `RAS`."""
    return "".join(_LETTERS[abs(a) - 1][a > 0] for a in axes_of(affine))


def turn_to(affine: Affine, wanted: str) -> Turn:
    """How the axes are turned so that they run towards these letters.

    Raises:
        MediaError: not three letters, one of each pair R/L, A/P, S/I.
    """
    goal = [
        next((s * (k + 1) for k, pair in enumerate(_LETTERS) for s, x in zip((-1, 1), pair, strict=True) if x == c), 0)
        for c in wanted.upper()
    ]
    if sorted(map(abs, goal)) != [1, 2, 3]:
        raise MediaError(f"An orientation is three letters, one of each of R/L, A/P, S/I, such as RAS; not {wanted!r}.")
    there = axes_of(affine)
    found = []
    for g in goal:
        k = [abs(t) for t in there].index(abs(g))
        found.append((k + 1) * (1 if there[k] * g > 0 else -1))
    return tuple(found)


def turned(values: NDArray[Any], turn: Sequence[int]) -> NDArray[Any]:
    """An array with its last axes turned."""
    first = values.ndim - len(turn)
    order = [*range(first), *(first + abs(t) - 1 for t in turn)]
    flips = [first + k for k, t in enumerate(turn) if t < 0]
    upright: NDArray[Any] = np.flip(values.transpose(order), tuple(flips))
    return upright


def turned_affine(affine: Affine, size: Sequence[int], turn: Sequence[int]) -> Affine:
    """The affine of an array of `size` after its turn: every voxel keeps its place."""
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for k, t in enumerate(turn):
        step[abs(t) - 1, k] = np.sign(t)
        if t < 0:
            step[abs(t) - 1, 3] = size[abs(t) - 1] - 1
    return np.asarray(affine, np.float64) @ step


def checked(affine: NDArray[Any], label: str) -> Affine:
    """An affine that places every voxel.

    Raises:
        MediaError: it is no 4 x 4 of finite numbers, or squeezes the volume flat.
    """
    found = np.asarray(affine, np.float64)
    if found.shape != (4, 4) or not np.isfinite(found).all() or abs(np.linalg.det(found[:3, :3])) < 1e-9:
        raise MediaError(f"{label} does not say where its voxels lie (its affine is zero or flat): export it again.")
    return found


def to_mm(affine: Affine, index: Sequence[float] | NDArray[Any]) -> tuple[float, float, float]:
    """Where an index lies, in millimetres to Right, Anterior, Superior."""
    x, y, z = (np.asarray(affine)[:3] @ [*index, 1.0]).tolist()
    return x, y, z


def said(mm: Sequence[float]) -> str:
    """Millimetres in words: `L 12.0, A 3.5, S 40.2 mm`."""
    return ", ".join(f"{_LETTERS[k][v >= 0]} {abs(v):.1f}" for k, v in enumerate(mm)) + " mm"
