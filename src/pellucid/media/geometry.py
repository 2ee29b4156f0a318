"""The exact map between what the model saw and the original: where a number in a heat map belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import MediaError


@dataclass(frozen=True)
class Geometry:
    """Per-axis affine map between model-input pixels and source pixels, over any number of space axes.

    ``box`` holds, for each axis, the half-open interval [start, stop) that the model's input covers, in
    continuous source coordinates: pixel ``i`` fills [i, i + 1). It may reach beyond the source (padding) or
    stop short of it (cropping). ``known=False`` says that the way back to the original could not be
    established; the map then lives on the model's own input, and ``source_size`` equals ``input_size``.

    ``ticks`` says where the source's samples along the FIRST axis lie, in ``unit``: the seconds at which a clip's
    frames are shown, the millimetres of a volume's slices. Empty: they are merely numbered.

    ``span`` and ``reach`` are of a map whose grid does not cover the model's input evenly: for each axis, in the
    input's pixels, the interval that the grid spans, and the interval that its cells see at all. Empty: the whole.

    ``turn`` is of an input whose axes are not the source's: for each axis of the input, which axis of the source it
    runs along, counted from 1, negative where it runs the other way. ``box`` is then told along the input's axes, in
    its direction. Empty: they are the same.

    ``affine`` is of a volume: the three rows that lead from a source index (whole numbers are voxel centres) to
    millimetres to the patient's Right, Anterior and Superior.

    Raises:
        MediaError: the axes disagree, a size is not positive, the box is empty on an axis, or ticks do not fit.
    """

    source_size: tuple[int, ...]
    input_size: tuple[int, ...]
    box: tuple[tuple[float, float], ...]
    known: bool = True
    ticks: tuple[float, ...] = ()
    unit: str = ""
    span: tuple[tuple[float, float], ...] = ()
    reach: tuple[tuple[float, float], ...] = ()
    turn: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if not len(self.source_size) == len(self.input_size) == len(self.box) > 0:
            raise MediaError(
                f"A geometry needs as many source sizes, input sizes and box intervals as space axes, not "
                f"{len(self.source_size)}, {len(self.input_size)} and {len(self.box)}."
            )
        if min(*self.source_size, *self.input_size) < 1 or not all(stop > start for start, stop in self.box):
            raise MediaError(f"A geometry needs positive sizes and non-empty intervals, not {self}.")
        if self.ticks and len(self.ticks) != self.source_size[0]:
            raise MediaError(f"{len(self.ticks)} ticks for the {self.source_size[0]} samples of the first axis.")
        if any(part and len(part) != len(self.box) for part in (self.span, self.reach)):
            raise MediaError(f"The span and the reach of a grid are given for each axis or not at all, not in {self}.")

    @property
    def turned_size(self) -> tuple[int, ...]:
        """The source's size along the input's axes."""
        return tuple(self.source_size[abs(t) - 1] for t in self.turn) if self.turn else self.source_size

    def _unturned(self, values: Tensor) -> Tensor:
        """Values (..., *turned_size) over the source's own axes."""
        if not self.turn:
            return values
        first = values.ndim - len(self.turn)
        flipped = values.flip([first + k for k, t in enumerate(self.turn) if t < 0])
        back = [first + [abs(t) - 1 for t in self.turn].index(axis) for axis in range(len(self.turn))]
        return flipped.permute(*range(first), *back).contiguous()

    @property
    def is_clip(self) -> bool:
        """Whether the first axis is time."""
        return self.unit in ("s", "frame")

    @property
    def times(self) -> tuple[float, ...]:
        """The seconds at which the source's frames are shown; empty where the first axis is not time."""
        return self.ticks if self.unit == "s" else ()

    @classmethod
    def identity(cls, size: Sequence[int], *, known: bool = True) -> Geometry:
        """The geometry of a model that sees the source as it is; ``size`` is (H, W) or any number of axes."""
        whole = tuple(int(n) for n in size)
        return cls(whole, whole, tuple((0.0, float(n)) for n in whole), known)

    def to_source(self, values: Tensor) -> Tensor:
        """Spread a map (..., *grid) over the original: float32 (..., *source_size), NaN where unseen.

        The grid, whatever its size, covers its span of the model's input evenly (all of it, unless said); each source
        pixel takes the value at its centre, linearly interpolated straight from the grid. Along an axis where the
        original is coarser than the grid, the values under a pixel are averaged (a triangle filter), so that a narrow
        peak can't fall between two pixels. A pixel counts as seen when its centre lies in the box, and in the reach of
        the grid's cells. ``values`` should be finite.
        """
        return self._unturned(_separable(values, _onto_source(self, self._grid(values))))

    def to_input(self, values: Tensor) -> Tensor:
        """Spread a map (..., *grid) over the model's input: float32 (..., *input_size), so too, but without NaN."""
        return _separable(values, _onto_input(self, self._grid(values)))

    def weights(self, axis: int, at: Tensor, cells: int, scale: float) -> Tensor:
        """Weights of the cells at fractions ``at`` of the input, whose pixels are ``scale`` source pixels long."""
        size = self.input_size[axis]
        low, high = self.span[axis] if self.span else (0.0, float(size))
        return _linear((at * size - low) / (high - low), cells, cells / ((high - low) * scale))

    def extended(self, size: int, seen: int, *, ticks: Sequence[float] = (), unit: str = "") -> Geometry:
        """This geometry with one more axis in front: ``size`` source samples, one input sample each, ``seen`` of them.

        More than ``size`` are seen where the input repeats the last sample: the box then reaches beyond the source.
        """
        return Geometry(
            (size, *self.source_size),
            (seen, *self.input_size),
            ((0.0, float(seen)), *self.box),
            self.known,
            tuple(float(at) for at in ticks),
            unit,
        )

    def seen(self) -> Tensor:
        """Which source pixels the model saw: bool (*source_size), true where its centre lies in the box."""
        mask = torch.ones(self.turned_size, dtype=torch.bool)
        for axis, (pixels, (start, stop)) in enumerate(zip(self.turned_size, self.box, strict=True)):
            centres = _centres(pixels)
            inside = (centres >= start) & (centres < stop)
            mask &= inside.reshape([-1 if other == axis else 1 for other in range(mask.ndim)])
        return self._unturned(mask)

    def source_point(self, input_point: Sequence[float]) -> tuple[float, ...]:
        """Where a point of the model's input lies in the source, per axis; whole numbers are pixel
        centres."""
        spans = zip(input_point, self.input_size, self.box, strict=True)
        along = [start + (at + 0.5) / n * (stop - start) - 0.5 for at, n, (start, stop) in spans]
        if not self.turn:
            return tuple(along)
        point = [0.0] * len(along)
        for t, at in zip(self.turn, along, strict=True):
            point[abs(t) - 1] = at if t > 0 else self.source_size[abs(t) - 1] - 1 - at
        return tuple(point)

    def input_point(self, source_point: Sequence[float]) -> tuple[float, ...]:
        """The inverse of ``source_point``; a point outside the box lands outside the model's input."""
        if self.turn:
            there = ((self.source_size[abs(t) - 1], source_point[abs(t) - 1], t) for t in self.turn)
            source_point = [at if t > 0 else n - 1 - at for n, at, t in there]
        spans = zip(source_point, self.input_size, self.box, strict=True)
        return tuple((at + 0.5 - start) / (stop - start) * n - 0.5 for at, n, (start, stop) in spans)

    def source_box(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """A box `(x0, y0, x1, y1)` of edges on the model's input, on the source and within it."""
        edges = []
        for at, axis in zip(box, (-1, -2, -1, -2), strict=True):
            start, stop = self.box[axis]
            on = start + at / self.input_size[axis] * (stop - start)
            edges.append(min(max(on, 0.0), float(self.source_size[axis])))
        return edges[0], edges[1], edges[2], edges[3]

    def input_box(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """The inverse of ``source_box``, wherever it lands."""
        edges = []
        for at, axis in zip(box, (-1, -2, -1, -2), strict=True):
            start, stop = self.box[axis]
            edges.append((at - start) / (stop - start) * self.input_size[axis])
        return edges[0], edges[1], edges[2], edges[3]

    def as_dict(self) -> dict[str, Any]:
        """The geometry as plain values, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value or name not in _RARE}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """Read back what ``as_dict`` wrote, through JSON or not."""
        span, reach = (tuple((float(a), float(b)) for a, b in values.get(name, ())) for name in ("span", "reach"))
        return cls(
            tuple(int(n) for n in values["source_size"]),
            tuple(int(n) for n in values["input_size"]),
            tuple((float(start), float(stop)) for start, stop in values["box"]),
            bool(values.get("known", True)),
            tuple(float(at) for at in values.get("ticks", ())),
            str(values.get("unit", "")),
            span,
            reach,
            tuple(int(t) for t in values.get("turn", ())),
            tuple(tuple(float(a) for a in row) for row in values.get("affine", ())),
        )

    def _grid(self, values: Tensor) -> tuple[int, ...]:
        axes = len(self.source_size)
        if values.ndim < axes or not prod(values.shape[-axes:]):
            raise MediaError(f"A map over {axes} space axes was expected, not a tensor of shape {tuple(values.shape)}.")
        return tuple(values.shape[-axes:])


_RARE = ("span", "reach", "turn", "affine")  # left out of records where they are empty


@lru_cache(maxsize=16)  # maps of one evaluation come on a few grids
@torch.inference_mode(False)
def _onto_source(geometry: Geometry, grid: tuple[int, ...]) -> tuple[Tensor | None, ...]:
    """A matrix (pixels, cells) for each axis; see `Geometry.to_source`."""
    spans = zip(grid, geometry.turned_size, geometry.box, geometry.input_size, strict=True)
    matrices = []
    for axis, (cells, pixels, (start, stop), size) in enumerate(spans):
        centres = _centres(pixels)
        at = (centres - start) / (stop - start)
        matrix = geometry.weights(axis, at, cells, (stop - start) / size)
        matrix[(centres < start) | (centres >= stop)] = float("nan")
        if geometry.reach:
            low, high = geometry.reach[axis]
            matrix[(at * size < low) | (at * size >= high)] = float("nan")
        matrices.append(_unless_own(matrix))
    return tuple(matrices)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _onto_input(geometry: Geometry, grid: tuple[int, ...]) -> tuple[Tensor | None, ...]:
    """A matrix (size, cells) for each axis; see `Geometry.to_input`."""
    spans = enumerate(zip(grid, geometry.input_size, strict=True))
    return tuple(_unless_own(geometry.weights(k, _centres(n) / n, cells, 1.0)) for k, (cells, n) in spans)


def _unless_own(matrix: Tensor) -> Tensor | None:
    """In single precision; None where each place is its own."""
    own = matrix.shape[0] == matrix.shape[1] and bool(((matrix - torch.eye(len(matrix))).abs() < _EXACT).all())
    return None if own else matrix.to(torch.float32)


_EXACT = 1e-9  # of a weight: what single precision does not see


def _centres(pixels: int) -> Tensor:
    return torch.arange(pixels, dtype=torch.float64) + 0.5


def _linear(at: Tensor, cells: int, step: float) -> Tensor:
    """Weights (len(at), cells) of linear interpolation at fractions ``at`` of an axis, ``step`` cells apart.

    Rows are normalised, which beyond the outermost cell centres is the same as repeating the border.
    """
    distance = (at[:, None] * cells - 0.5 - torch.arange(cells, dtype=torch.float64)).abs()
    weights = (1 - distance / max(step, 1.0)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)


def _separable(values: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Apply one matrix (out, in) to each of the last axes of ``values``; None leaves an axis as it is."""
    with torch.autocast(values.device.type, enabled=False):  # a half-precision product would band the map
        out = values.to(torch.float32)
        for axis, matrix in enumerate(matrices, start=-len(matrices)):
            if matrix is not None:
                out = (out.movedim(axis, -1) @ matrix.to(out.device).T).movedim(-1, axis)
    return out.contiguous()
