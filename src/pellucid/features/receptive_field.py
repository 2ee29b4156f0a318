"""Which pixels a cell of a layer can see, and from which it really takes its value: measured by gradient.

The gradient of one cell to the input is zero wherever the cell cannot look. The edges of the non-zero region of a few
cells give the affine rule of all of them. The *effective* field is the part that holds most of the gradient's energy
(Luo et al. 2016, arXiv:1701.04128): deep units could see everything, but live from the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, unwrap
from pellucid.errors import ModelError, TargetError
from pellucid.models.layers import Layer

Box = tuple[tuple[float, float], ...]

ENERGY = 0.95  # of the squared gradient along an axis lies inside the effective field
_VANISHED = 1e-9  # of the largest gradient: what floating point leaves of a zero
_DRAWS = 4


@dataclass(frozen=True)
class ReceptiveField:
    """What the cells of a layer see of an input, in input pixels, for each space axis.

    Attributes:
        input_size: the input's size.
        grid: cells along each axis.
        stride: pixels from one cell's field to the next one's.
        start: where the field of cell 0 begins; -inf where no cell's field begins inside the input.
        size: extent of a field; inf where it reaches beyond the input from every cell.
        effective: extent of the part with 95 % of the gradient's energy.
    """

    input_size: tuple[int, ...]
    grid: tuple[int, ...]
    stride: tuple[float, ...]
    start: tuple[float, ...]
    size: tuple[float, ...]
    effective: tuple[float, ...]

    @property
    def whole(self) -> bool:
        """Whether every cell may depend on the whole input, as behind attention or global pooling."""
        return all(math.isinf(s) for s in self.size)

    def box(self, cell: Sequence[int]) -> Box:
        """The field of a cell, `[start, stop)` an axis, cut at the input's borders."""
        spans = zip(cell, self.input_size, self.stride, self.start, self.size, strict=True)
        return tuple(
            (max(0.0, at + p * stride), min(float(n), at + p * stride + size) if math.isfinite(at) else float(n))
            for p, n, stride, at, size in spans
        )

    def centre(self, cell: Sequence[int]) -> tuple[float, ...]:
        """The middle of a cell's field."""
        spans = zip(cell, self.grid, self.input_size, self.stride, self.start, self.size, strict=True)
        return tuple(
            at + p * stride + size / 2 if math.isfinite(at) and math.isfinite(size) else (p + 0.5) * n / cells
            for p, cells, n, stride, at, size in spans
        )

    def crop(self, cell: Sequence[int], least: float = 0.0) -> Box:
        """The effective field of a cell, moved (not cut) so that it lies inside the input.

        Args:
            cell: its place on the grid.
            least: pixels that a crop measures at the least, to be recognisable.
        """
        spans = zip(self.centre(cell), self.input_size, self.effective, strict=True)
        return tuple(_inside(middle, max(size, least), n) for middle, n, size in spans)


def _inside(middle: float, size: float, n: int) -> tuple[float, float]:
    size = min(size, float(n))
    start = min(max(0.0, middle - size / 2), n - size)
    return start, start + size


def whole_input(layer: Layer, input_size: Sequence[int]) -> ReceptiveField:
    """The field of a layer of which nothing could be measured: every cell may see everything."""
    size, grid = tuple(input_size), layer.layout.grid
    everywhere = (math.inf,) * len(size)
    stride = tuple(n / g for n, g in zip(size, grid, strict=True))
    return ReceptiveField(size, grid, stride, tuple(-x for x in everywhere), everywhere, tuple(float(n) for n in size))


def receptive_field(module: nn.Module, inputs: Tensor, layer: Layer, *, seed: int = 0) -> ReceptiveField:
    """Measure the receptive field of a layer's cells.

    Costs one forward and three backward passes of four inputs. ReLU and max pooling let the gradient
    of one input through some ways only, so the union over two inputs is taken for each of up to six cells.

    Args:
        module: the model; left as it was.
        inputs: `(N, C, *space)`: the first four are measured on, with fixed noise for what is missing.
        layer: the layer, with its proven layout.
        seed: of the noise and of the channels' weights.
    """
    space, grid = tuple(inputs.shape[2:]), layer.layout.grid
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((_DRAWS, *inputs.shape[1:]), generator=generator).to(inputs)
    samples = torch.cat([inputs[:_DRAWS].detach(), noise])[:_DRAWS]
    cells = _probed(grid)
    try:
        energy = _energy(module, samples, layer, cells, generator)
    except (TargetError, ModelError):  # no gradient leads back to the input
        return whole_input(layer, space)
    if not energy.any() or not energy.isfinite().all():
        return whole_input(layer, space)
    axes = [_axis(energy, axis, [c[axis] for c in cells], grid[axis]) for axis in range(len(space))]
    stride, start, size, effective = zip(*axes, strict=True)
    return ReceptiveField(space, grid, stride, start, size, effective)


def _probed(grid: Sequence[int]) -> list[tuple[int, ...]]:
    """Cells along the diagonal: two at each end (whose far edges lie inside the input) and two in the middle."""
    per_axis = [[0, min(1, g - 1), (g - 1) // 2, min((g - 1) // 2 + 1, g - 1), max(g - 2, 0), g - 1] for g in grid]
    return list(dict.fromkeys(zip(*per_axis, strict=True)))


def _energy(
    module: nn.Module, samples: Tensor, layer: Layer, cells: Sequence[tuple[int, ...]], generator: torch.Generator
) -> Tensor:
    """Squared gradients `(cells, samples, *space)` of some cells, their channels summed with random weights.

    Each pass asks half of the samples for one cell, the other half for the next one.
    """
    weights = torch.randn(layer.layout.channels, generator=generator).to(samples)
    with Capture(unwrap(module), watch=[layer.name], input_gradient=True) as capture:
        capture.forward(samples[:1])
        capture.shorten()
        capture.forward(samples)
        half = len(samples) // 2
        with torch.enable_grad():
            mixed = torch.einsum("nc...,c->n...", layer.layout.to_map(capture.watched[layer.name]), weights).flatten(1)
            flat = [sum(p * s for p, s in zip(cell, _steps(layer.layout.grid), strict=True)) for cell in cells]
            pairs = zip_longest(flat[::2], flat[1::2], fillvalue=flat[0])
            scores = [torch.cat([mixed[:half, a], mixed[half:, b]]) for a, b in pairs]
        energies = [g["input"].double().square().sum(1) for g in capture.gradients(scores)]
        return torch.cat([e.reshape(2, half, *e.shape[1:]) for e in energies])[: len(cells)]


def _steps(grid: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis are in a flattened grid."""
    return [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]


def _axis(energy: Tensor, axis: int, cells: list[int], grid: int) -> tuple[float, float, float, float]:
    """Stride, start, size and effective size along one axis, from the energies of the probed cells."""
    n = energy.shape[2 + axis]
    other = [d for d in range(2, energy.ndim) if d != 2 + axis]
    profiles = energy.sum(other) if other else energy  # (cells, samples, n)
    seen = (profiles.sum(1).sqrt() > _VANISHED * profiles.sum().sqrt()).int()
    starts = [int(row.argmax()) for row in seen]
    stops = [n - int(row.flip(0).argmax()) for row in seen]
    alive = [bool(row.any()) for row in seen]
    # An edge counts where it is far from the border that could cut it (and of a dilated field might leave a gap).
    ends = list(zip(cells, starts, stops, alive, strict=True))
    left = [(p, a) for p, a, _, ok in ends if ok and a > 0 and p >= grid - 2]
    right = [(p, b) for p, _, b, ok in ends if ok and b < n and p <= 1]
    stride = _slope(right) or _slope(left) or n / grid
    start = min((s - stride * p for p, s in left), default=-math.inf)
    stop = max((s - stride * p for p, s in right), default=math.inf)
    if math.isinf(start) and math.isfinite(stop):  # one edge only: no cell's field begins inside the input
        start, size = -math.inf, math.inf
    else:
        size = stop - start if math.isfinite(start) else math.inf
    return stride, start if math.isfinite(size) else -math.inf, size, _effective(profiles, stride, start, size, cells)


def _slope(edges: list[tuple[int, int]]) -> float | None:
    """Pixels a cell, from the two outermost unclipped edges."""
    (p, s), (q, t) = (min(edges), max(edges)) if edges else ((0, 0), (0, 0))
    return (t - s) / (q - p) if q > p and t > s else None


def _effective(profiles: Tensor, stride: float, start: float, size: float, cells: list[int]) -> float:
    """Twice the mean distance from the middle cells' centres within which `ENERGY` of their energy lies."""
    n = profiles.shape[-1]
    pixels = torch.arange(n, dtype=torch.float64, device=profiles.device) + 0.5
    middle = len(cells) // 2
    widths = []
    for i in sorted({max(0, middle - 1), middle}):
        total = profiles[i].sum(0)
        if not total.any():
            continue
        centre = (
            start + stride * cells[i] + size / 2 if math.isfinite(size) else float((total * pixels).sum() / total.sum())
        )
        distance = (pixels - centre).abs()
        order = distance.argsort()
        share = total[order].cumsum(0) / total.sum()
        widths.append(2 * float(distance[order][int((share >= ENERGY).int().argmax())]) + 1)
    return min(sum(widths) / len(widths), float(n)) if widths else float(n)
