"""The network taught further on pictures whose wrong evidence tells nothing, for a bounded time.

Where a network has learned a wrong cue in place of the right one, its features do not hold what a new last layer would
need. So a copy of it is taught further: in every batch each picture is given the wrong parts of pictures that are drawn
over all classes alike, so that a part says no more of the class than chance. It is the "mask the found evidence" of
Schramowski et al. 2020 (right for the right reasons) by exchange in the place of masks, which leaves no hole. Classes
that are learned worst weigh more (Sagawa et al. 2020), since a model is repaired when its worst group is.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.nn.modules.batchnorm import _BatchNorm

from pellucid.audit.repair import Form, Opener, Rows, telling_nothing
from pellucid.engine import leave_no_trace, unwrap
from pellucid.errors import ModelError
from pellucid.models.model import VisionModel
from pellucid.progress import task

STEPS, LEAST_STEPS = 160, 20  # of a lesson: at most, and fewer teach nothing
_BATCH = 64
_RATE, _SCALED, _MOMENTUM, _DECAY = 0.1, 0.01, 0.9, 5e-4  # the second rate: without batch normalisation
_RISE = 0.1  # share of the steps over which the rate rises; then it falls to nothing, along cosines
_SHIFT = 1 / 8  # of a side, by which pictures are moved at most
_PUSH, _MOST = 0.1, 3.0  # by which a class's weight follows its loss, and the most that it weighs

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NetworkLesson:
    """What a network is taught from.

    Attributes:
        opened: numbers of pictures -> inputs `(n, C, H, W)`.
        truth: the class of each, `(N,)`.
        weights: `(N,)`, of each picture's loss; their mean is 1.
        every: form, whose parts are to say nothing of the class.
        seed: of the order and of who gives a part to whom.
    """

    opened: Opener
    truth: Rows
    weights: Floats
    every: Sequence[Form]
    seed: int

    def batches(self) -> Iterator[tuple[Tensor, Rows]]:
        """Without an end: every picture once, in a new order, again and again."""
        rng = np.random.default_rng(self.seed)
        size = min(_BATCH, len(self.truth))
        while True:
            order = rng.permutation(len(self.truth))
            for start in range(0, len(order) - size + 1, size):
                some = order[start : start + size]
                x = moved(self._without(self.opened(some.tolist()), rng), rng)
                yield self._without(x, rng), some  # once more: now the parts lie where they do in pictures

    def _without(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        return telling_nothing(x, self.opened, self.truth, self.every, rng)


def moved(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures `(n, C, H, W)`, each moved by up to an eighth of its sides, the rim mirrored: no class depends on that.

    They are not turned over: a mirrored letter is another one.
    """
    height, width = x.shape[-2:]
    down, right = (int(_SHIFT * side) for side in (height, width))
    wide = pad(x, (right, right, down, down), mode="reflect")
    starts = zip(rng.integers(2 * down + 1, size=len(x)), rng.integers(2 * right + 1, size=len(x)), strict=True)
    return torch.stack([one[:, y : y + height, z : z + width] for one, (y, z) in zip(wide, starts, strict=True)])


class Emphasis:
    """What each class weighs in the loss: the more, the worse it is learned, up to `_MOST` (group DRO: Sagawa et al.
    2020, arXiv:1911.08731, algorithm 1, with the loss beside the batch's mean, so that classes it lacks stay).
    """

    def __init__(self, classes: int) -> None:
        self._weights = torch.ones(classes)

    def __call__(self, losses: Tensor, classes: Tensor) -> Tensor:
        """The weight of each row `(n,)`, after its batch's losses `(n,)`."""
        own = losses.detach()
        weights = self._weights = self._weights.to(own)
        count = torch.bincount(classes, minlength=len(weights))
        mean = torch.zeros_like(weights).index_add_(0, classes, own) / count.clamp(min=1)
        weights *= (_PUSH * torch.where(count > 0, mean - own.mean(), 0)).exp()
        weights *= len(weights) / weights.sum()
        weights.clamp_(1 / _MOST, _MOST)
        return weights[classes]


def taught_further(
    model: VisionModel, lesson: NetworkLesson, seconds: float, steps: int = STEPS
) -> tuple[VisionModel, int]:
    """A copy of the model after a lesson of at most `seconds` of processor time, and its steps; the model itself stays.

    Stochastic gradients with momentum (Nesterov), at a rate that rises and falls once (Smith 2018). In front of a batch
    normalisation weights have no scale, so a high rate does no harm (Arora et al. 2019); elsewhere it is a tenth.

    Raises:
        ModelError: the network cannot be taught, or there is no time for `LEAST_STEPS` steps.
    """
    begun = time.process_time()
    own = unwrap(model.module)
    trial, module = copy.deepcopy(own), copy.deepcopy(own)  # before the loan, which changes modes
    with leave_no_trace(own):
        layout = _layout(model, trial, lesson)
        one = _clock(lambda: _taught(model, trial, lesson, 2, layout)) / 2
        left = seconds - (time.process_time() - begun)
        fits = math.floor(left / one)
        if fits < min(LEAST_STEPS, steps):
            raise ModelError(
                f"In {seconds:g} s the network can be taught for {max(0, fits)} steps, which is too few: give it more "
                "processor time (seconds=...)."
            )
        count = min(steps, fits)
        _taught(model, module, lesson, count, layout, told=True)
    again = VisionModel(module, model.preprocess, model.labels, model.name, {}, model.reading, model.task)
    return again, count


def _layout(model: VisionModel, trial: nn.Module, lesson: NetworkLesson) -> torch.memory_format:
    """Channels last, in which convolutions learn a fifth faster, unless the network views its activations as rows."""
    try:
        _taught(model, trial, lesson, 1, torch.channels_last)
    except (ModelError, RuntimeError):
        _taught(model, trial, lesson, 1, torch.contiguous_format)
        return torch.contiguous_format
    return torch.channels_last


def _clock(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _taught(
    model: VisionModel,
    module: nn.Module,
    lesson: NetworkLesson,
    steps: int,
    layout: torch.memory_format,
    *,
    told: bool = False,
) -> None:
    """The module itself after so many steps; modes and flags of its parts are put back."""
    modes = {part: part.training for part in module.modules()}
    flags = {p: p.requires_grad for p in module.parameters()}
    learns = [p.requires_grad_() for p in flags if p.is_floating_point()]
    if not learns:
        raise ModelError("The network has no weights of floating point, so it cannot be taught further.")
    rate = _RATE if any(isinstance(part, _BatchNorm) for part in modes) else _SCALED
    steering = torch.optim.SGD(learns, rate, momentum=_MOMENTUM, weight_decay=_DECAY, nesterov=True)
    weights, truth = (torch.from_numpy(v).to(model.device) for v in (lesson.weights, lesson.truth))
    emphasis = Emphasis(int(lesson.truth.max()) + 1)
    module.train().to(memory_format=layout)
    steering.zero_grad()
    with task("steps", steps if told else 0) as advance:
        for k, (x, some) in zip(range(steps), lesson.batches(), strict=False):
            for group in steering.param_groups:
                group["lr"] = rate * _risen((k + 1) / steps)
            try:
                scores = model.reading.class_scores(module(x.contiguous(memory_format=layout)))
                losses = cross_entropy(scores, truth[some], reduction="none")
                loss = (weights[some] * emphasis(losses, truth[some]) * losses).mean()
                loss.backward()  # type: ignore[no-untyped-call]
            except Exception as error:
                raise ModelError(f"The network cannot be taught further: {error}") from error
            steering.step()
            steering.zero_grad()
            advance(1 if told else 0)
    module.to(memory_format=torch.contiguous_format)
    for part, mode in modes.items():
        part.training = mode
    for p, flag in flags.items():
        p.requires_grad_(flag)
    if not all(bool(p.isfinite().all()) for p in learns):
        raise ModelError("The network lost its numbers while it was taught further.")


def _risen(done: float) -> float:
    """Share of the rate after a share of the steps."""
    if done <= _RISE:
        return (1 - math.cos(math.pi * done / _RISE)) / 2
    return (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE))) / 2
