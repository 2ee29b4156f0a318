"""What the score does when parts of the input are taken away: needs only a model's outputs.

The methods are sums over the scores of masked inputs (`scoring.masked`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine.masks import SegmentMasks, WindowMasks, grid_labels
from pellucid.engine.memory import Memory
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.scoring.job import Job
from pellucid.scoring.masked import is_dropped, masked
from pellucid.scoring.tokens import entries


class PerturbationMethod(Method):
    """Base: a method runs alone; its work is in `perturb`.

    What `continues` keeps the scores of its masks (`extras["asked"]`, `extras["answered"]`), so that a longer run asks
    only for what is new.
    """

    continues: ClassVar[bool] = False

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method on its own."""
        return [on_patches(m, job, m._kept(job) if m.continues else m.perturb(job)) for m in methods]

    def _kept(self, job: Job) -> list[Attribution]:
        memory = Memory(len(job.inputs)) if job.memory is None else job.memory
        found = self.perturb(replace(job, memory=memory))
        for t, attribution in enumerate(found):
            attribution.extras |= memory.arrays(t)
        return found

    def perturb(self, job: Job) -> list[Attribution]:
        """One attribution per target."""
        raise MethodError(f"{self.name} cannot run.")


def on_patches(method: Any, job: Job, found: list[Attribution]) -> list[Attribution]:
    """Says which part of the input the patches cover of maps over patches that were dropped."""
    if not is_dropped(getattr(method, "baseline", "")):
        return found
    spans = {entry.layout.grid: entry.span(job.space) for entry in reversed(entries(job.module, job.inputs))}
    return [replace(a, span=spans.get(tuple(a.values.shape[1:]), ())) for a in found]


@method(
    "occlusion",
    family="perturbation",
    needs="outputs",
    cost="1 forward a window",
    paper="Zeiler & Fergus 2014, arXiv:1311.2901, sec. 4.2",
)
@dataclass(frozen=True, kw_only=True)
class Occlusion(PerturbationMethod):
    """Score lost when a window is covered; each place takes the mean over the windows that cover it. `(N, *space)`.

    Args:
        window: size along each space axis, or one number for all; 0 on an axis covers the whole of it, such as (2, 0,
            0) for two whole frames; None: an eighth of the input, a quarter for three axes.
        stride: steps between windows; None: half a window.
        baseline: what covers: a name such as `zero` (see the page on baselines), or a tensor. On `dropped`, windows
            and strides are whole patches, and the map is `(N, *grid)` of the patches.
        seed: of a random baseline.
    """

    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    baseline: str | Tensor = "zero"
    seed: int = 0

    def perturb(self, job: Job) -> list[Attribution]:
        """One pass over all windows, for all inputs and targets."""
        with masked(job, self.baseline, self.seed) as scorer:
            windows = self._windows(job.space, scorer.space, scorer.unit)
            lost = self.lost(scorer.plain()[:, None], scorer(windows, label=self.name))  # (N, M, T)
            covered = windows.accumulate_inside(torch.ones(len(windows), 1))
            maps = torch.stack([windows.accumulate_inside(drops) for drops in lost]) / covered.clamp(min=1)
            return [Attribution(maps[:, t].float(), cost=scorer.cost) for t in range(len(job.targets))]

    def lost(self, plain: Tensor, scores: Tensor) -> Tensor:
        """What counts for a window: the score lost."""
        return plain - scores

    def _windows(self, space: tuple[int, ...], units: tuple[int, ...], one: tuple[int, ...]) -> WindowMasks:
        """Windows over an input of size `space`, in `units` along each axis: its places, or patches of size `one`."""
        size = _in_units(self.window, units, [max(1, u // (8 if len(units) < 3 else 4)) for u in units], one, "window")
        size = [w or u for w, u in zip(size, units, strict=True)]
        step = _in_units(self.stride, units, [max(1, w // 2) for w in size], one, "stride")
        if any(w > u for w, u in zip(size, units, strict=True)):
            given = [w * o for w, o in zip(size, one, strict=True)]
            raise MethodError(f"An occlusion window of {given} is larger than the input {space}: make it smaller.")
        axes = []
        for u, w, d in zip(units, size, step, strict=True):
            last = -(-(u - w) // d) * d  # the last window reaches the edge, as far as it must
            axes.append(torch.arange(0, last + 1, d))
        return WindowMasks(torch.cartesian_prod(*axes).reshape(-1, len(units)), tuple(size), units)


def _in_units(
    given: int | tuple[int, ...] | None, units: tuple[int, ...], default: list[int], one: tuple[int, ...], what: str
) -> list[int]:
    if given is None:
        return default
    sizes = [given] * len(units) if isinstance(given, int) else list(given)
    if len(sizes) != len(units) or any(s < (what == "stride") for s in sizes) or not any(sizes):
        raise MethodError(f"The {what} is one positive number, or one for each of {len(units)} axes; got {given}.")
    if any(s % o for s, o in zip(sizes, one, strict=True)):
        raise MethodError(f"With the baseline 'dropped' the {what} is a multiple of the patch {one}; got {given}.")
    return [s // o for s, o in zip(sizes, one, strict=True)]


@method(
    "feature-ablation",
    family="perturbation",
    needs="outputs",
    cost="1 forward a segment",
    paper="leave-one-out over segments",
)
@dataclass(frozen=True, kw_only=True)
class FeatureAblation(PerturbationMethod):
    """Score lost when one segment is replaced by the baseline, the rest kept. `(N, *space)`.

    Args:
        segments: `(*space)` integers, the segment of each place; None: an even grid of 14 blocks to the longest axis.
        baseline: what replaces: a name such as `zero` (see the page on baselines), or a tensor. On `dropped`, without
            segments, the map is `(N, *grid)` of the patches.
        seed: of a random baseline.
    """

    segments: Tensor | None = None
    baseline: str | Tensor = "zero"
    seed: int = 0

    def perturb(self, job: Job) -> list[Attribution]:
        """One forward a segment."""
        with masked(job, self.baseline, self.seed) as scorer:
            labels = segments_or_grid(self.segments, job.space if self.segments is not None else scorer.space)
            masks = SegmentMasks(1 - torch.eye(int(labels.max()) + 1), labels)
            lost = scorer.plain()[:, None] - scorer(masks, label="feature ablation")
            return [
                Attribution(
                    lost[:, :, t].float()[:, labels], extras={"segments": lost[:, :, t].float()}, cost=scorer.cost
                )
                for t in range(len(job.targets))
            ]


def segments_or_grid(segments: Tensor | None, space: tuple[int, ...], cells: int = 14) -> Tensor:
    """The user's segments, checked and numbered without gaps, or an even grid.

    Raises:
        MethodError: segments that don't match the input, or only one.
    """
    if segments is None:
        longest = max(space)
        return grid_labels(space, [max(1, min(s, round(cells * s / longest))) for s in space])
    if segments.is_floating_point() or tuple(segments.shape) != space:
        raise MethodError(
            f"Segments are one integer for each place of the input {space}; got {segments.dtype} "
            f"{tuple(segments.shape)}."
        )
    labels: Tensor = torch.unique(segments, return_inverse=True)[1]
    if int(labels.max()) == 0:
        raise MethodError("There is only one segment, so nothing can be told apart: give a finer segmentation.")
    return labels
