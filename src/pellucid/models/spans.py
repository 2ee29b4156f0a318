"""Where a layer's cells look: the interval of the input that its grid spans, measured where it may fall short.

A grid that divides the input evenly is taken to fill it. Where it does not, strides may have cut off what did not fit
(ViT's patches, ConvNeXt's downsampling). The places of some cells are then read from their gradient to the input, at
the first layer of that grid, whose receptive fields are the smallest. They count only where they lie on one line of a
whole stride; otherwise, in deep networks whose receptive fields the border cuts, the even division stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.engine import leave_no_trace
from pellucid.engine.leaves import first_tensor
from pellucid.errors import PellucidError
from pellucid.models.layouts import Layout
from pellucid.models.probe import hooked

Intervals = tuple[tuple[float, float], ...]
"""For each space axis, from where to where, in pixels of the input."""

_SHORT = 1.5  # pixels that a grid must fall short of the input to be drawn otherwise than by an even division
_WHOLE = 0.25  # pixels that a stride may be from a whole number
_HARDLY = 1e-3  # of the usual influence: what has less is not seen
_BENT = 2.0  # pixels that a cell may lie from the line


def divides(layout: Layout, space: tuple[int, ...]) -> bool:
    """Whether the grid divides height and width evenly."""
    return all(size % cells == 0 for size, cells in zip(space[-2:], layout.grid[-2:], strict=True))


def measured(module: nn.Module, sample: Tensor, name: str, layout: Layout) -> tuple[Intervals, Intervals]:
    """What the grid of the layer called `name` spans, and what its cells see of the input, for each space axis.

    Args:
        module: the model.
        sample: one noise sample `(1, C, *space)`.
        name: the first layer of that grid.
        layout: how it reads.

    Returns:
        Both empty where the grid spans the input evenly and sees all of it, or where no gradient leads back.
    """
    space = tuple(sample.shape[2:])
    try:
        profiles, reach = _profiles(module, sample, name, layout)
    except (PellucidError, RuntimeError):
        return (), ()
    if not profiles:
        return (), ()
    whole = [(0.0, float(size)) for size in space]
    span = list(whole)
    for axis in range(len(space) - min(2, len(space)), len(space)):
        cells = {at[axis]: _place(by_axis[axis]) for at, by_axis in profiles.items()}
        span[axis] = _line(cells, layout.grid[axis], space[axis]) or whole[axis]
    seen = [(float(a), float(b)) for a, b in reach]
    if span == whole and seen == whole:
        return (), ()
    return tuple(span), tuple(seen)


def _profiles(
    module: nn.Module, sample: Tensor, name: str, layout: Layout
) -> tuple[dict[tuple[int, ...], list[Tensor]], list[tuple[int, int]]]:
    """For some cells, the size of the input's gradient along each axis; and the interval that all cells see."""
    kept: list[Tensor] = []

    def note(_name: str, output: object) -> None:
        if (activation := first_tensor(output)) is not None:
            kept.append(activation.clone())

    leaf = sample.detach().clone().requires_grad_()
    with leave_no_trace(module), torch.enable_grad():
        with hooked(module, note, [name]):
            module(leaf.clone())
        if len(kept) != 1 or not kept[0].requires_grad or not layout.fits(tuple(kept[0].shape)):
            return {}, []
        cells = layout.to_map(kept[0])[0].float()
        mix = torch.randn(len(cells), generator=torch.Generator().manual_seed(0)).to(cells)
        mixed = torch.einsum("c...,c->...", cells, mix)
        found = {}
        for step in (0, 1, 2, 3):
            at = tuple((0, min(1, n - 1), n // 2, n - 1)[step] for n in layout.grid)
            found[at] = _along(torch.autograd.grad(mixed[at], leaf, retain_graph=True)[0])
        signs = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1)).to(mixed)
        everything = _along(torch.autograd.grad((mixed * signs).sum(), leaf)[0])
    reach = []
    for profile in everything:
        live = (profile > _HARDLY * profile.median()).nonzero()[:, 0]
        reach.append((int(live[0]), int(live[-1]) + 1) if len(live) else (0, len(profile)))
    return found, reach


def _along(gradient: Tensor) -> list[Tensor]:
    """The absolute gradient `(1, C, *space)` summed over all but each space axis."""
    return [gradient.abs().transpose(0, axis).flatten(1).sum(1) for axis in range(2, gradient.ndim)]


def _place(profile: Tensor) -> float:
    """The centroid of what rises above a tenth of the peak: far away, a wide receptive field is cut by the border."""
    weights = (profile.double() - profile.max().double() / 10).clamp(min=0)
    centres = torch.arange(len(profile), dtype=torch.float64, device=profile.device) + 0.5
    return float((weights * centres).sum() / weights.sum().clamp(min=1e-300))


def _line(places: dict[int, float], cells: int, size: int) -> tuple[float, float] | None:
    """The interval that the cells span, where their places lie on a line that falls short of the input."""
    if cells < 3 or size % cells == 0:
        return None
    stride = (places[cells - 1] - places[0]) / (cells - 1)
    start = sum(at - stride * (k + 0.5) for k, at in places.items()) / len(places)
    straight = all(abs(start + stride * (k + 0.5) - at) <= _BENT for k, at in places.items())
    if not straight or abs(stride - round(stride)) > _WHOLE or size - round(stride) * cells < _SHORT:
        return None
    middle = start + stride * cells / 2
    half = round(stride) * cells / 2
    begin = middle - half
    begin = round(begin) if abs(begin - round(begin)) < _WHOLE else begin
    return float(max(0.0, begin)), float(min(float(size), max(0.0, begin) + 2 * half))
