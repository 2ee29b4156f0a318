"""CAMs that leave something out: what similar classes share, and what other layers do not confirm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.engine import Capture, Cost
from pellucid.errors import MethodError
from pellucid.heatmaps.activations import activation_and_gradients, space_dims
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.cam import GradCAMPlusPlus
from pellucid.heatmaps.newer_cams import LayerPasses
from pellucid.models.layers import Layer, describe, layers
from pellucid.models.targets import Target
from pellucid.models.targets.classes import ClassTarget
from pellucid.scoring.job import Job


@method(
    "finer-cam",
    family="cam",
    needs="gradients, a layer",
    cost="2 forwards + tail backward",
    paper="Zhang et al. 2025, arXiv:2501.11309, eq. 3-5",
)
@dataclass(frozen=True, kw_only=True)
class FinerCAM(LayerPasses):
    """Grad-CAM of `sum_s p_s (y - gamma y_s) / sum_s p_s`: what tells the class from those with the nearest scores.

    `p_s` are the probabilities of the similar classes.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        classes: similar classes, those whose scores are nearest.
        gamma: how much of them is taken off; 0 is Grad-CAM.
    """

    classes: int = 3
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.classes < 1 or not self.gamma >= 0:
            raise MethodError("finer-cam needs classes of at least 1, and gamma of at least 0.")

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """One tail backward of the contrast."""
        name = layer.name

        def contrast(output: Any, watched: Any) -> list[Tensor]:
            own, scores = target.score(output, watched), job.reading.class_scores(output)
            if scores.shape[1] <= self.classes:
                raise MethodError(
                    f"finer-cam compares with {self.classes} classes, and the model has {scores.shape[1]}: give fewer."
                )
            away = (scores - own[:, None]).abs().detach()
            first = int(isinstance(target, ClassTarget))  # the nearest score of all is that of the class itself
            similar = away.sort(dim=1, stable=True).indices[:, first : self.classes + first]
            shares = scores.softmax(1).gather(1, similar)
            apart = own[:, None] - self.gamma * scores.gather(1, similar)
            return [(shares * apart).sum(1) / (shares.sum(1) + 1e-9)]

        with Capture(job.module, [name], watch=job.watch, runs={name: layer.runs}) as capture:
            _, scores = capture.scored(job.inputs, contrast)
            (found,) = capture.gradients(scores)
            A, G = (layer.layout.to_map(t.detach()).float() for t in (capture.activations[name], found[name]))
        values = (G.mean(space_dims(G), keepdim=True) * A).sum(1).relu()
        return self.attribution(values, layer, Cost(2 * len(A), len(A)))


@method(
    "refine-cam",
    family="cam",
    needs="gradients, a layer",
    cost="a forward + tail backward a layer (3), and 1 forward",
    paper="arXiv:2605.14641 (2026): the product of normalised maps",
)
@dataclass(frozen=True, kw_only=True)
class RefineCAM(LayerPasses):
    """`prod over layers of cam_l / max cam_l`, Grad-CAM++ at each, drawn at the finest grid: what all layers confirm.

    Args:
        layer: of the coarsest map; None finds the last layer whose cells still carry gradient to the target.
        layers: module paths with commas; empty: with the one above, the last layer of each of the two finer grids
            before it, or of one grid the layers a third and two thirds of the way.
    """

    layers: str = ""

    def at(self, layer: str | None) -> RefineCAM:
        """As it is: the layer that it draws at is the finest of those chosen, its own is the coarsest."""
        return self

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """The product, at the finest grid."""
        chosen = self._chosen(job, layer)
        maps = []
        for each in chosen:
            A, (G,) = activation_and_gradients(job, each, need_gradient=True)
            found = GradCAMPlusPlus().combine(each.layout.to_map(A).float(), each.layout.to_map(G).float())
            most = found.flatten(1).amax(1).reshape(-1, *[1] * (found.ndim - 1))
            maps.append(found / most.where(most > 0, torch.ones_like(most)))
        finest = max(chosen, key=lambda each: each.layout.cells)
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(finest.layout.grid)]
        values = torch.ones_like(maps[chosen.index(finest)])
        for found in maps:
            values = values * functional.interpolate(found[:, None], size=finest.layout.grid, mode=mode)[:, 0]
        count = len(values)
        made = self.attribution(values, finest, Cost(count * (1 + len(chosen)), count * len(chosen)))
        made.notes.append(f"It is the product of the maps at {', '.join(each.name for each in chosen)}.")
        return made

    def _chosen(self, job: Job, layer: Layer) -> list[Layer]:
        """The layers, in the order of execution."""
        if self.layers:
            names = [name.strip() for name in self.layers.split(",") if name.strip()]
            return [describe(job.module, job.inputs, name, watch=job.watch) for name in names]
        every = list(layers(job.module, job.inputs, watch=job.watch, key="output"))
        before = [each for each in every if each.runs is None]
        stop = next((k for k, each in enumerate(before) if each.name == layer.name), len(before))
        before = before[:stop]
        finer = {each.layout.grid: each for each in before if each.layout.cells > layer.layout.cells}
        last = sorted(finer.values(), key=lambda each: each.layout.cells)[:2]
        if not last:
            same = [each for each in before if each.layout == layer.layout]
            last = [same[len(same) * k // 3] for k in (2, 1)] if len(same) > 2 else same
        return [*last[::-1], layer]
