"""Does a model use time at all? How few frames are enough? Both asked of one clip, of any model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.frames import FrameScorer
from pellucid.errors import MethodError
from pellucid.importance.frames import Frames, check_clip
from pellucid.models.targets import Function
from pellucid.numerics.games import MAX_EXACT, all_coalitions
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze

NOTICED = 0.1  # of the probability: less is not worth saying that time matters


@dataclass(frozen=True)
class OrderSensitivity:
    """What is left of an answer when the order or the change of the frames is taken away.

    Values are probabilities for class targets, else scores.

    Attributes:
        plain: of the clip as it is.
        reversed: played backwards.
        shuffled: mean over random orders; `shuffled_std`: its spread.
        frozen: mean over still clips of one frame, T of them; `still`: each, `(T,)`.
        verdict: `order`, `change` or `static`; `sentence` says it in words.
    """

    plain: float
    reversed: float
    shuffled: float
    shuffled_std: float
    frozen: float
    still: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """`order`: shuffling hurts; `change`: only standing still does; `static`: neither."""
        if abs(self.plain - self.shuffled) > NOTICED or abs(self.plain - self.reversed) > NOTICED:
            return "order"
        return "change" if abs(self.plain - self.frozen) > NOTICED else "static"

    @property
    def sentence(self) -> str:
        """The verdict, with the numbers it rests on."""
        says = {
            "order": "The model needs the order of the frames",
            "change": "The model needs more than one frame, but not their order",
            "static": "The model does not use motion here: still frames give the same answer",
        }[self.verdict]
        return (
            f"{says} ({self.plain:.2f} as it is, {self.reversed:.2f} backwards, {self.shuffled:.2f} +- "
            f"{self.shuffled_std:.2f} shuffled, {self.frozen:.2f} frozen, {max(self.still):.2f} at best)."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for records and tables."""
        return {
            "plain": self.plain,
            "reversed": self.reversed,
            "shuffled": self.shuffled,
            "shuffled_std": self.shuffled_std,
            "frozen": self.frozen,
            "still": list(self.still),
            "verdict": self.verdict,
        }


def order_sensitivity(job: Job, *, shuffles: int = 8, seed: int = 0) -> list[OrderSensitivity]:
    """Ask for each target of one clip: does the order of the frames matter, does their change?

    Costs `T + shuffles + 2` forward passes, and next to none for a recurrent network over frames.

    Args:
        job: one clip.
        shuffles: random orders, none of them the clip's own.
        seed: of the orders.
    """
    check_clip(job, "Order sensitivity")
    if shuffles < 1:
        raise MethodError("Order sensitivity needs at least one shuffled order.")
    clip, targets = job.inputs.detach(), freeze(job)
    frames = clip.shape[2]

    def probability(output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        return [t.select(rows).probability(output, watched) for t in targets]

    time = torch.arange(frames)
    index = torch.stack(
        [time, time.flip(0), *_orders(frames, shuffles, seed), *(torch.full_like(time, t) for t in time)]
    )
    with FrameScorer(
        job.module, clip, clip[0, :, :0].transpose(0, 1), probability, targets=len(targets), watch=job.watch
    ) as scorer:
        scores = scorer(index, label="order of frames")
    found = []
    for column in scores.T:
        mixed, still = column[2 : 2 + shuffles], column[2 + shuffles :]
        spread = float(mixed.std()) if shuffles > 1 else 0.0
        found.append(
            OrderSensitivity(
                float(column[0]),
                float(column[1]),
                float(mixed.mean()),
                spread,
                float(still.mean()),
                tuple(still.tolist()),
            )
        )
    return found


def _orders(frames: int, count: int, seed: int) -> list[Tensor]:
    """Random orders, neither the clip's own nor that backwards (where there are others)."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.arange(frames)
    found: list[Tensor] = []
    while len(found) < count:
        order = torch.randperm(frames, generator=generator)
        if frames < 3 or not (torch.equal(order, own) or torch.equal(order, own.flip(0))):
            found.append(order)
    return found


@dataclass(frozen=True)
class Sufficient:
    """The fewest players that keep the prediction.

    Attributes:
        names: of the players kept; empty where no frame is needed, since a clip that shows nothing is classed the same.
        players: their numbers, ascending.
        exact: whether no smaller set does; else it is what a greedy search left, an upper bound.
        margin: by how much the predicted class still leads.
        evaluations: coalitions asked.
    """

    names: tuple[str, ...]
    players: tuple[int, ...]
    exact: bool
    margin: float
    evaluations: int


def sufficient(job: Job, players: Frames, *, share: float = 0.5) -> Sufficient:
    """The fewest frames (or segments) of a clip that alone keep the model's top class, with a good part of its lead.

    Up to 12 players every set is tried, the smallest that keeps the class wins, and among equals that with the widest
    margin. With more players the one that helps most comes in next, until the class is kept, and those that turn out
    not to be needed go again.

    Args:
        job: one clip; its targets are not asked.
        players: `Frames` or `Segments`, with what is seen instead of those that are out.
        share: of the lead over the next class that must be left; 0 asks for the class alone.

    Raises:
        MethodError: a model without class scores.
    """
    check_clip(job, "Sufficiency")
    if not 0 <= share < 1:
        raise MethodError(f"The share of the lead that must be left lies between 0 and 1; got {share}.")
    with players.game(Job(job.module, job.inputs, (_lead(job),))) as game:
        count = len(game.names)
        needed = share * float(game.value(torch.ones(1, count))[0, 0])
        if count <= MAX_EXACT:
            every = all_coalitions(count)
            margins = game.value(every)[:, 0].cpu()
            size = every.sum(1)
            kept = margins > needed
            smallest = size[kept].min()
            best = int(torch.where(kept & (size == smallest), margins, -torch.inf).argmax())
            return _sufficient(every[best], game.names, True, float(margins[best]), len(every))
        return _greedy(lambda c: game.value(c)[:, 0].cpu(), game.names, needed)


def _lead(job: Job) -> Function:
    """The score of the class now on top, less that of the best other."""
    from pellucid.engine import Capture

    with Capture(job.module) as capture, torch.no_grad():
        scores = job.reading.class_scores(capture.forward(job.inputs))
    if scores.shape[1] < 2:
        raise MethodError("Sufficiency asks whether the top class stays on top; this model has a single score.")
    top = int(scores[0].argmax())

    def lead(output: Any) -> Tensor:
        y = job.reading.class_scores(output)
        others = torch.cat([y[:, :top], y[:, top + 1 :]], dim=1)
        return y[:, top] - others.amax(1)

    return Function(lead)


def _greedy(margin: Callable[[Tensor], Tensor], names: list[str], needed: float) -> Sufficient:
    count, asked = len(names), 1
    chosen = torch.zeros(count)
    best = float(margin(chosen[None])[0])
    while best <= needed and not chosen.all():
        free = (chosen == 0).nonzero()[:, 0]
        tried = chosen.repeat(len(free), 1)
        tried[torch.arange(len(free)), free] = 1
        margins = margin(tried)
        asked += len(tried)
        chosen, best = tried[int(margins.argmax())], float(margins.max())
    for k in chosen.nonzero()[:, 0].tolist():
        without = chosen.clone()
        without[k] = 0
        left = float(margin(without[None])[0])
        asked += 1
        if left > needed:
            chosen, best = without, left
    return _sufficient(chosen, names, False, best, asked)


def _sufficient(chosen: Tensor, names: list[str], exact: bool, margin: float, asked: int) -> Sufficient:
    players = tuple(chosen.nonzero()[:, 0].tolist())
    return Sufficient(tuple(names[p] for p in players), players, exact, margin, asked)
