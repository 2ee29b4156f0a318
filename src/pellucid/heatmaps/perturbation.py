"""What the score does when parts of the input are taken away: needs only a model's outputs.

`masked` opens the scorer that all perturbation methods share: targets fixed on the untouched inputs, one baseline, one
seed, many masks. The methods are sums over its scores.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.baselines import make_baseline
from pellucid.engine.capture import Capture
from pellucid.engine.masks import SegmentMasks, WindowMasks, grid_labels
from pellucid.engine.perturb import Scorer, Scores
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Job, Method, method
from pellucid.models.targets import Target


def freeze(job: Job) -> tuple[Target, ...]:
    """The job's targets with whatever they take from the output fixed on the untouched inputs (one forward)."""
    with Capture(job.module, watch=job.watch) as capture:
        output = capture.forward(job.inputs)
        return tuple(t.freeze(output) for t in job.targets)


def score_of(targets: Sequence[Target]) -> Scores:
    """The scores of frozen targets, as a `Scorer` or `Tail` asks for them."""

    def score(output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        return [t.select(rows).score(output, watched) for t in targets]

    return score


@contextmanager
def masked(job: Job, baseline: str | Tensor, seed: int = 0) -> Iterator[Scorer]:
    """The scorer of a job's inputs on a baseline, for all its targets at once."""
    ground = make_baseline(baseline, job.inputs, torch.Generator().manual_seed(seed))
    targets = freeze(job)
    with Scorer(job.module, job.inputs, ground, score_of(targets), targets=len(targets), watch=job.watch) as scorer:
        scorer.cost.forwards += len(job.inputs)  # the pass that fixed the targets
        yield scorer


class PerturbationMethod(Method):
    """Base: a method runs alone; its work is in `perturb`."""

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method on its own."""
        return [m.perturb(job) for m in methods]

    def perturb(self, job: Job) -> list[Attribution]:
        """One attribution per target."""
        raise MethodError(f"{self.name} cannot run.")


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
        baseline: what covers: `zero`, `mean`, `blur`, `uniform`, or a tensor.
        seed: of a random baseline.
    """

    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    baseline: str | Tensor = "zero"
    seed: int = 0

    def perturb(self, job: Job) -> list[Attribution]:
        """One pass over all windows, for all inputs and targets."""
        windows = self._windows(job.space)
        with masked(job, self.baseline, self.seed) as scorer:
            lost = scorer.plain()[:, None] - scorer(windows, label="occlusion")  # (N, M, T)
            covered = windows.accumulate_inside(torch.ones(len(windows), 1))
            maps = torch.stack([windows.accumulate_inside(drops) for drops in lost]) / covered.clamp(min=1)
            return [Attribution(maps[:, t].float(), cost=scorer.cost) for t in range(len(job.targets))]

    def _windows(self, space: tuple[int, ...]) -> WindowMasks:
        size = _per_axis(self.window, space, [max(1, s // (8 if len(space) < 3 else 4)) for s in space], "window")
        size = [w or s for w, s in zip(size, space, strict=True)]
        step = _per_axis(self.stride, space, [max(1, w // 2) for w in size], "stride")
        if any(w > s for w, s in zip(size, space, strict=True)):
            raise MethodError(f"An occlusion window of {size} is larger than the input {space}: make it smaller.")
        axes = []
        for s, w, d in zip(space, size, step, strict=True):
            last = -(-(s - w) // d) * d  # the last window reaches the edge, as far as it must
            axes.append(torch.arange(0, last + 1, d))
        return WindowMasks(torch.cartesian_prod(*axes).reshape(-1, len(space)), tuple(size), space)


def _per_axis(given: int | tuple[int, ...] | None, space: tuple[int, ...], default: list[int], what: str) -> list[int]:
    sizes = default if given is None else [given] * len(space) if isinstance(given, int) else list(given)
    if len(sizes) != len(space) or any(s < (what == "stride") for s in sizes) or not any(sizes):
        raise MethodError(f"The {what} is one positive number, or one for each of {len(space)} axes; got {given}.")
    return sizes


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
        baseline: what replaces: `zero`, `mean`, `blur`, `uniform`, or a tensor.
        seed: of a random baseline.
    """

    segments: Tensor | None = None
    baseline: str | Tensor = "zero"
    seed: int = 0

    def perturb(self, job: Job) -> list[Attribution]:
        """One forward a segment."""
        labels = segments_or_grid(self.segments, job.space)
        count = int(labels.max()) + 1
        masks = SegmentMasks(1 - torch.eye(count), labels)
        with masked(job, self.baseline, self.seed) as scorer:
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
