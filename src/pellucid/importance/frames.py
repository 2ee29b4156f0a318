"""Players of a clip: single frames, stretches of frames, tubes of places and frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pellucid.engine.baselines import blur
from pellucid.engine.frames import FrameScorer
from pellucid.engine.masks import grid_labels
from pellucid.errors import MethodError
from pellucid.importance.game import Game, Players
from pellucid.numerics.games import MAX_EXACT
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze, masked, score_of, segment_game
from pellucid.scoring.tokens import TokenScorer, token_scorer

Baseline = Literal["freeze", "drop", "blur", "mean", "zero"]
BASELINES = ("freeze", "drop", "blur", "mean", "zero")
_BLUR = 0.15  # of a frame that is out, as a share of its sides: shapes go, the mean light of a quarter stays


def check_clip(job: Job, what: str) -> None:
    """Raises MethodError for inputs that are no clip of two frames or more."""
    if not job.is_clip or len(job.inputs) != 1 or job.inputs.shape[2] < 2:
        raise MethodError(
            f"{what} needs one clip (1, C, T, H, W) of at least 2 frames; this input is {tuple(job.inputs.shape)}."
        )


def shown_instead(kept: Tensor, out: str) -> Tensor:
    """Which frame of the bank is shown at each step when only `kept` `(M, T)` frames are in: `(M, T)` numbers.

    Numbers below T are the clip's own frames, the others those of `stand_ins`: `T + t` stands for frame t (`blur`,
    `mean`, `zero`); for `freeze` and `drop`, T is the mean frame, shown where no frame is kept to hold or to stretch.
    """
    count, frames = kept.shape
    kept = kept > 0
    time = torch.arange(frames).expand(count, -1)
    if out == "drop":
        ranked = (~kept).int().argsort(dim=1, stable=True)  # the kept ones first, in order
        left = kept.sum(1, keepdim=True)
        index = ranked.gather(1, time * left.clamp(min=1) // frames)
    elif out == "freeze":
        before = torch.where(kept, time, -1).cummax(1).values
        after = torch.where(kept, time, frames).flip(1).cummin(1).values.flip(1)
        index = torch.where(before >= 0, before, after)
    else:
        return torch.where(kept, time, frames + time)
    return torch.where(kept.any(1, keepdim=True), index, frames)


def stand_ins(clip: Tensor, out: str) -> Tensor:
    """What may be shown beside the frames of a clip `(1, C, T, H, W)`, `(B, C, H, W)`: see `shown_instead`."""
    frames = clip[0].transpose(0, 1)
    if out in ("freeze", "drop"):
        return frames.mean(0, keepdim=True)
    if out == "blur":
        return blur(frames, torch.Generator(), sigma=_BLUR)
    return frames.mean((2, 3), keepdim=True).expand_as(frames) if out == "mean" else torch.zeros_like(frames)


def _spans(owners: Tensor) -> list[str]:
    """The names of stretches of frames, from the stretch of each frame: `frame 1`, or `frames 1-4`."""
    ends = [(int(s[0]) + 1, int(s[-1]) + 1) for s in _stretches(owners)]
    return [f"frame {first}" if first == last else f"frames {first}-{last}" for first, last in ends]


def _stretches(owners: Tensor) -> list[Tensor]:
    """The frames of each player."""
    return [(owners == k).nonzero()[:, 0] for k in range(int(owners.max()) + 1)]


@dataclass(frozen=True, kw_only=True)
class Frames(Players):
    """The frames of a clip, each a player.

    A frame that is out is not there to be seen, and the baseline says what is seen instead: `freeze` holds the frame
    before it (the first one kept, at the start), so that still evidence counts for nothing; `drop` shows the frames
    kept, in their order, stretched over the whole time; `blur`, `mean` and `zero` put a picture without shapes in its
    place. With no frame kept, `freeze` and `drop` show the mean of all frames.

    Args:
        baseline: `freeze`, `drop`, `blur`, `mean` or `zero`.
        fast: False shows whole clips even to a network that reads each frame by itself before its recurrent layer.
    """

    baseline: Baseline = "freeze"
    fast: bool = True
    kind: ClassVar[str] = "frames"

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise MethodError(f"A frame is taken out by {', '.join(BASELINES)}, not {self.baseline!r}.")

    def owners(self, frames: int) -> Tensor:
        """The player of each frame, `(T,)`."""
        return torch.arange(frames)

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Clips of the frames that stand, through the frame scorer."""
        check_clip(job, f"Importance of {self.kind}")
        clip, targets = job.inputs.detach(), freeze(job)
        owners = self.owners(clip.shape[2])
        with FrameScorer(
            job.module,
            clip,
            stand_ins(clip, self.baseline),
            score_of(targets),
            targets=len(targets),
            watch=job.watch,
            fast=self.fast,
        ) as scorer:
            scorer.cost.forwards += 1  # the pass that fixed the targets
            middles = [int(span[len(span) // 2]) for span in _stretches(owners)]
            yield Game(
                lambda coalitions: scorer(
                    shown_instead(coalitions.cpu()[:, owners], self.baseline), label="coalitions"
                ),
                _spans(owners),
                scorer.cost,
                {"frames": clip[0, :, middles].transpose(0, 1)[:, :, None]},
            )


@dataclass(frozen=True, kw_only=True)
class Segments(Frames):
    """Stretches of frames, as even as can be; few enough for exact Shapley values.

    Args:
        count: how many, at most one a frame.
        baseline: `freeze`, `drop`, `blur`, `mean` or `zero`, as for frames.
        fast: False shows whole clips even to a network that reads each frame by itself before its recurrent layer.
    """

    count: int = 8
    kind: ClassVar[str] = "segments"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 2:
            raise MethodError(f"{self.count} segment tells nothing apart: give a count of 2 to {MAX_EXACT}.")

    def owners(self, frames: int) -> Tensor:
        """The segment of each frame."""
        return torch.arange(frames) * min(self.count, frames) // frames


@dataclass(frozen=True, kw_only=True)
class Tubes(Players):
    """Boxes of neighbouring frames and places.

    Args:
        count: about how many, as many cells along time as along height and width.
        cells: along time, height and width, in place of a count.
        baseline: what shows where a tube is out (`mean`, `blur`, `freeze`, `time-mean`, ...), or `dropped`: a
            transformer is not given its tokens at all, where that is proven sound.
        seed: of a random baseline.
    """

    count: int = 64
    cells: tuple[int, int, int] | None = None
    baseline: str = "mean"
    seed: int = 0
    kind: ClassVar[str] = "tubes"

    def __post_init__(self) -> None:
        cells = self.cells
        if self.count < 2 or (cells is not None and (len(cells) != 3 or min(cells) < 1 or math.prod(cells) < 2)):
            raise MethodError(
                f"Tubes are at least two, or cells along time, height and width such as (4, 4, 4); got {self.count} "
                f"and {cells}."
            )

    def _cells(self, space: tuple[int, ...]) -> tuple[int, ...]:
        if self.cells is None:
            side = max(2, round(self.count ** (1 / 3)))
            return tuple(min(side, s) for s in space)
        if any(c > s for c, s in zip(self.cells, space, strict=True)):
            raise MethodError(f"{self.cells} tubes are finer than the clip {space}: give fewer cells.")
        return self.cells

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Masked clips, or tokens left out."""
        check_clip(job, "Importance of tubes")
        cells = self._cells(job.space)
        labels = grid_labels(job.space, cells)
        spans = _spans(torch.arange(job.space[0]) * cells[0] // job.space[0])
        places = torch.cartesian_prod(*[torch.arange(c) for c in cells]).reshape(-1, 3).tolist()
        names = [f"{spans[t]}, row {r + 1}, column {c + 1}" for t, r, c in places]
        if self.baseline == "dropped":
            targets = freeze(job)
            scorer = token_scorer(
                job.module, job.inputs.detach(), score_of(targets), targets=len(targets), watch=job.watch
            )
            if scorer is None:
                raise MethodError(
                    "Tubes can be dropped only from a plain transformer (one token for each box of the clip, absolute "
                    "positions), and this model is none: take them out by mean, blur or freeze."
                )
            owners = _token_owners(scorer, labels, cells)
            with scorer as tokens:
                yield Game(
                    lambda coalitions: tokens(coalitions.cpu()[:, owners] > 0, label="coalitions")[0].cpu(),
                    names,
                    tokens.cost,
                    {"inputs": _looks(job.inputs.detach(), labels)},
                )
            return
        with masked(job, self.baseline, self.seed) as scorer_of_masks:
            looks = {"inputs": _looks(job.inputs.detach(), labels)}
            yield Game(segment_game(scorer_of_masks, labels), names, scorer_of_masks.cost, looks)


def _looks(clip: Tensor, labels: Tensor) -> Tensor:
    """Each tube in its middle frame, on the clip's mean: `(K, C, 1, H, W)`."""
    mean, found = clip[0].mean((1, 2, 3))[:, None, None], []
    for k in range(int(labels.max()) + 1):
        frames = (labels == k).flatten(1).any(1).nonzero()[:, 0]
        at = int(frames[len(frames) // 2])
        found.append(torch.where((labels[at] == k).to(clip.device), clip[0, :, at], mean))
    return torch.stack(found)[:, :, None]


def _token_owners(scorer: TokenScorer, labels: Tensor, cells: tuple[int, ...]) -> Tensor:
    """The tube of each token, that of its middle; a tube without a token of its own is refused."""
    middles = [(2 * torch.arange(g) + 1) * p // 2 for g, p in zip(scorer.grid, scorer.entry.patch, strict=True)]
    owners = labels[torch.meshgrid(*middles, indexing="ij")].flatten()
    if len(torch.unique(owners)) < math.prod(cells):
        raise MethodError(f"The transformer has {scorer.grid} tokens, too few for {cells} tubes: give fewer cells.")
    return owners
