"""A class activation map of a feature pyramid: each level by itself, then all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.engine import Capture, Cost
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.cam import LayerCAM
from pellucid.heatmaps.newer_cams import LayerPasses
from pellucid.models.layers import Layer, describe, layers
from pellucid.models.targets import BoxTarget, Target
from pellucid.scoring.job import Job

_WIDE = 0.5  # of the cells of a grid that reach the target from anywhere: a layer with fewer stands inside a head


@method(
    "multi-scale-cam",
    family="cam",
    needs="gradients, a layer",
    cost="1 forward + tail backward",
    paper="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, eq. 6, at each level of a pyramid (Lin et al. 2017, "
    "arXiv:1612.03144), summed",
)
@dataclass(frozen=True, kw_only=True)
class MultiScaleCAM(LayerPasses):
    """`sum over levels l of spread(sum_c relu(g_c) A_c at l)`: Layer-CAM at each level, its sum kept when it is spread.

    All levels come out of one pass. Activation x gradient has the score's unit at every level, so their sums may be
    compared: each level's share of the whole is said beside the map, and kept in the facts. It is drawn on the finest.

    Args:
        layer: of the coarsest level; None finds one for each level.
        levels: module paths with commas, a layer each; empty: of each of the `count` coarsest grids the last layer from
            which at least half as many cells reach the target as from any other of that grid, so that it stands in
            front of the heads.
        count: of levels that are looked for.

    Raises:
        MethodError: no level, or less than one is looked for.
        LayerError: a layer that is named does not read as a picture of the input.
    """

    levels: str = ""
    count: int = 3
    signed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise MethodError(f"multi-scale-cam looks for at least one level, not {self.count}.")

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """The sum over levels, at the finest grid."""
        chosen = self._chosen(job, target, layer)
        names = [each.name for each in chosen]
        runs = {each.name: each.runs for each in chosen}
        with Capture(job.module, names, watch=job.watch, runs=runs) as capture:
            _, scores = capture.scored(job.inputs, lambda y, w: [target.score(y, w)])
            (slopes,) = capture.gradients(scores)
            maps = [_layer_cam(each, capture.activations[each.name], slopes[each.name]) for each in chosen]
        finest = max(chosen, key=lambda each: each.layout.cells)
        values = torch.stack([_spread(one, finest.layout.grid) for one in maps]).sum(0)
        made = self.attribution(values, finest, Cost(len(values), len(values)))
        sums = torch.stack([one.flatten(1).sum(1) for one in maps], 1)  # (N, levels)
        shares = sums / sums.sum(1, keepdim=True).clamp(min=1e-30)
        said = [f"{each.name} ({' x '.join(map(str, each.layout.grid))})" for each in chosen]
        made.facts |= {f"share of {name}": share for name, share in zip(said, shares.T.tolist(), strict=True)}
        made.remarks = [[_told(said, row)] if sum(row) > 0 else [] for row in shares.tolist()]
        return made

    def _chosen(self, job: Job, target: Target, layer: Layer) -> list[Layer]:
        """A layer a level, in the order of execution."""
        if names := [name.strip() for name in self.levels.split(",") if name.strip()]:
            return [describe(job.module, job.inputs, name, watch=job.watch) for name in names]
        # Which layers a box or a region hangs on differs from one to the next.
        key = ("levels", target.way, target.boxes if isinstance(target, BoxTarget) else None)
        every = layers(job.module, job.inputs, lambda y, w: target.score(y, w).sum(), watch=job.watch, key=key)
        found: dict[tuple[int, ...], Layer] = {}
        for each in every:
            same = [other.coverage for other in every if other.layout.grid == each.layout.grid]
            if each.runs is None and not each.is_output and each.coverage > 0 and each.coverage >= _WIDE * max(same):
                found[each.layout.grid] = each
        if self.layer is not None:
            found = {grid: each for grid, each in found.items() if each.layout.cells > layer.layout.cells}
            found[layer.layout.grid] = layer
        coarsest = sorted(found.values(), key=lambda each: each.layout.cells)[: self.count]
        if not coarsest:
            coarsest = [layer]
        return sorted(coarsest, key=lambda each: -each.layout.cells)


def _layer_cam(layer: Layer, activation: Tensor, slope: Tensor) -> Tensor:
    A, G = (layer.layout.to_map(t.detach()).float() for t in (activation, slope))
    return LayerCAM().combine(A, G)


def _spread(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A map `(N, *coarse)` on a finer grid, with the same sum."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    finer = functional.interpolate(values[:, None], size=grid, mode=mode)[:, 0]
    dims = tuple(range(1, values.ndim))
    before, now = values.sum(dims, keepdim=True), finer.sum(dims, keepdim=True)
    return finer * before / now.clamp(min=1e-30)


def _told(names: list[str], shares: list[float]) -> str:
    parts = ", ".join(f"{share:.0%} {name}" for name, share in zip(names, shares, strict=True))
    return f"Of the evidence each level has: {parts}."
