"""Spatio-temporal extremal perturbation: the tube of a given size that scores most when it alone is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv3d, pad

from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.mask_optimisation import Blend, MaskOptimisation, descend
from pellucid.scoring.job import Job

_SHAPE_FROM = 0.1  # share of the iterations after which the mask must begin to be solid
_GROWTH = 1000.0  # of the weights, from the first iteration to the last
_CELLS = (16, 12, 12)  # most along time, height and width, of a grid that is not given


@method(
    "step",
    family="mask",
    needs="gradients, a clip",
    cost="1 forward and 1 backward an iteration (100) and volume",
    paper="Li et al. 2021, arXiv:2005.00375; arXiv:2109.00222",
)
@dataclass(frozen=True, kw_only=True)
class STEP(MaskOptimisation):
    """`argmax_m s(m) - w (|sort(m) - r_a|^2 + |sort(k * m) - r_a|^2)`: extremal perturbation of a clip. `(N, *grid)`.

    `r_a` is 0 for a share `1 - a` of the cells and 1 for the rest; it is asked of the whole volume, so the mask is free
    to spend it on few frames. The second term asks the same of the mask averaged over an ellipsoid `k` of frames and
    places: only tubes as thick as the ellipsoid meet both, and specks that fool the network do not. It sets in after a
    tenth of the iterations, when the score has chosen the place. Weights grow a thousandfold on the way.

    Args:
        volumes: shares of the clip to show, each fitted by itself; the map is the mean of the masks.
        core: the ellipsoid's axes along time, height and width, as shares of the mask's; 0 leaves the term out.
        weight: w at the end.
        iterations: steps of Adam.
        cells: of the mask along time, height and width; None: a cell a frame, and at most 12 x 12 places.
        rate: of Adam.
        baseline: what shows where the mask is 0: `zero`, `mean`, `blur`, `freeze`, `time-mean`, ..., or a tensor.
        seed: of a random baseline.
    """

    volumes: tuple[float, ...] = (0.1,)
    core: tuple[float, float, float] = (0.2, 0.2, 0.2)
    weight: float = 300.0
    rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.volumes or any(not 0 < v < 1 for v in self.volumes):
            raise MethodError(f"Volumes are shares between 0 and 1, such as (0.1,); got {self.volumes}.")
        if len(self.core) != 3 or any(not 0 <= c <= 1 for c in self.core):
            raise MethodError(f"The core is three shares of the mask's axes, such as (0.2, 0.2, 0.2); got {self.core}.")

    def perturb(self, job: Job) -> list[Attribution]:
        """One fit per target, of all inputs side by side."""
        if not job.is_clip:
            raise MethodError(
                f"step explains clips (N, C, T, H, W); this input is {tuple(job.inputs.shape)}: use "
                "extremal-perturbation."
            )
        return super().perturb(job)

    def grid(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """A cell for each frame, as far as they go, and fewer places."""
        if self.cells is not None:
            return super().grid(space)
        return tuple(min(c, s) for c, s in zip(_CELLS, space, strict=True))

    def fit(self, blend: Blend, grid: tuple[int, ...]) -> Attribution:
        """All inputs and volumes side by side, from the mask that shows half of everything."""
        count, device, cells = len(blend.inputs), blend.inputs.device, math.prod(grid)
        rows = torch.arange(count, device=device).repeat_interleave(len(self.volumes))
        ramps = [(torch.arange(cells) >= cells - round(v * cells)).float() for v in self.volumes]
        reference = torch.stack(ramps).repeat(count, 1).to(device)
        core = ellipsoid(tuple(c * g for c, g in zip(self.core, grid, strict=True))).to(device)
        mask = torch.full((len(rows), *grid), 0.5, device=device, requires_grad=True)

        def misfit(m: Tensor) -> Tensor:
            ranked = m.flatten(1).sort(1).values
            return (ranked - reference).square().mean(1)

        def loss(i: int) -> Tensor:
            progress = i / max(1, self.iterations - 1)
            # At first all cells are equal, and sorting them would choose by their numbers.
            weight = self.weight * math.pow(_GROWTH, progress - 1) if i else 0.0
            price = misfit(mask)
            if progress >= _SHAPE_FROM and core.numel() > 1:
                price = price + misfit(averaged(mask, core))
            return weight * price - blend.score(mask, rows)

        descend([mask], loss, self.iterations, self.rate, self.name)
        found = mask.detach()
        shown = blend.score(found, rows).detach()
        facts = {
            f"{what}_{v:g}": value.tolist()
            for what, values in (("score", shown), ("volume", found.flatten(1).mean(1)))
            for v, value in zip(self.volumes, values.reshape(count, -1).T, strict=True)
        }
        masks = found.reshape(count, len(self.volumes), *grid)
        return Attribution(masks.mean(1), facts=facts, extras={"masks": masks})


def ellipsoid(axes: tuple[float, ...]) -> Tensor:
    """A solid ellipsoid with these full axes in cells, `(a, b, c)` odd, summing to 1."""
    sizes = [max(1, 2 * math.floor(a / 2) + 1) for a in axes]
    places = [(torch.arange(s) - s // 2) / max(a / 2, 0.5) for s, a in zip(sizes, axes, strict=True)]
    inside = torch.stack(torch.meshgrid(*places, indexing="ij")).square().sum(0) <= 1 + 1e-6
    return inside.float() / inside.sum()


def averaged(masks: Tensor, core: Tensor) -> Tensor:
    """Masks `(R, *grid)` averaged over the core around each cell; at the rim the mask is continued."""
    margins = [m for s in reversed(core.shape) for m in (s // 2, s // 2)]
    padded = pad(masks[:, None], margins, mode="replicate")
    return conv3d(padded, core[None, None])[:, 0]
