"""What every method must beat: an order drawn blindly, and an edge detector that never saw the model."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.errors import MediaError
from pellucid.evaluation.chance import smooth_field
from pellucid.evaluation.competitors import Competitor, Drawing
from pellucid.evaluation.faithfulness import cell_grid
from pellucid.evaluation.sample import Sample
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target


class RandomOrder(Competitor):
    """Smooth noise, another for each input: single pixels in a random order would be too easy to beat."""

    blind: ClassVar[bool] = True

    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """A field on the grid of cells; which one is a matter of the input's name and content."""
        grid = cell_grid(sample.space)
        text = f"{sample.source.get('sha256') or sample.name} {sample.seed}"
        generator = torch.Generator().manual_seed(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16))
        field = smooth_field(grid, 1.5, generator).reshape(1, *grid).float()
        return Drawing(field.expand(len(x), *grid), sample.over)

    def written(self) -> list[Any] | None:
        """Its name."""
        return [self.name, "", {}]


class Edges(Competitor):
    """How much the input changes from place to place, over all channels; the model is not asked."""

    blind: ClassVar[bool] = True

    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """The norm of differences along all axes, smoothed over three places along each."""
        x = x.detach().cpu().double()
        total = torch.zeros(len(x), *x.shape[2:], dtype=torch.float64)
        for axis in range(2, x.ndim):
            step = torch.zeros_like(x)
            if x.shape[axis] > 2:
                step.narrow(axis, 1, x.shape[axis] - 2).copy_(
                    x.narrow(axis, 2, x.shape[axis] - 2) - x.narrow(axis, 0, x.shape[axis] - 2)
                )
            total += step.square().sum(1)
        edges = total.sqrt()[:, None]
        pool = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[x.ndim - 2]
        smooth = pool(3, 1, 1, count_include_pad=False)(edges)
        return Drawing(smooth[:, 0].float(), sample.over, signed=False)

    def written(self) -> list[Any] | None:
        """Its name."""
        return [self.name, "", {}]


class Painted(Competitor):
    """The truth itself as a map: the sample's mask."""

    redraws: ClassVar[bool] = False
    remodels: ClassVar[bool] = False

    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """1 where the evidence is, 0 elsewhere.

        Raises:
            MediaError: it is not known.
        """
        if sample.mask is None:
            raise MediaError(f"Nothing is known of where the truth lies in {sample.name}: give masks.")
        return Drawing(sample.mask[None].float(), sample.over, signed=False)


ANCHORS: dict[str, type[Competitor]] = {"random order": RandomOrder, "edges": Edges}
"""By the names under which they stand in every table."""
