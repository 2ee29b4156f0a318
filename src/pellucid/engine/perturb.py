"""The scorer of masked inputs: the one engine under every method that needs only a model's outputs.

Given inputs, a baseline and targets it yields the scores of `mask * x + (1 - mask) * baseline` for many masks: masks
drawn batch by batch on the device, blended into one buffer, run without a graph, each different mask once, batches
filled across inputs. Everything else is left to the methods, which are sums over scores.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from pellucid.engine.baselines import Backdrop, Baseline
from pellucid.engine.batching import adaptive_batches, default_batch
from pellucid.engine.capture import Capture, Cost
from pellucid.engine.masks import KEY, Masks
from pellucid.engine.memory import Memory
from pellucid.engine.names import named, remembers
from pellucid.engine.patches import PatchNet, are_windows, find_patches
from pellucid.errors import ModelError, UnsteadyError
from pellucid.numerics.statistics import spearman

_COMPARED = (8, 32)  # masks that tell how rough sums are: at least, at most
_WIDER = 4  # how many times more inputs make a batch where patches of them run in place of the first, largest layers

Scores = Callable[[Any, Mapping[str, Tensor], Tensor], Sequence[Tensor]]
"""(model output, watched activations, rows `(m,)` of the inputs) -> one score `(m,)` for each target."""


class MaskScorer(ABC):
    """Scores of inputs of which masks hide some part; a context, since the model is borrowed while it is open.

    Attributes:
        inputs: `(N, C, *space)`.
        targets: how many scores each masked input has.
        space: what masks are drawn over, unless they are drawn over the inputs' own space.
        unit: places of the input in one step of `space`, along each axis.
        soft: whether a mask may have values between 0 and 1.
        in_order: whether masks are scored in the order they are given in.
        batch: masked inputs at a time; halved when memory runs out.
        cost: passes so far.
        memory: scores already known, and those found; None: they are not kept.
        expected: masked inputs that will be asked for altogether, as far as that is known beforehand.
    """

    inputs: Tensor
    targets: int
    space: tuple[int, ...]
    unit: tuple[int, ...]
    soft: bool
    in_order: bool = True
    batch: int
    cost: Cost
    memory: Memory | None = None
    expected: int = 0
    score: Scores
    _capture: Capture

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def plain(self) -> Tensor:
        """Scores `(N, targets)` of the inputs as they are."""

    @abstractmethod
    def blank(self) -> Tensor:
        """Scores `(N, targets)` with all hidden."""

    @abstractmethod
    def score_masks(self, masks: Sequence[Masks], out: Sequence[Tensor], label: str) -> None:
        """Write the scores of each input's masks, all different, to `out`, `(M_n, targets)` each, as they come."""

    def evaluate(
        self, inputs: Tensor, rows: Tensor, *, scratch: bool = False, network: nn.Module | None = None
    ) -> Tensor:
        """Scores `(m, targets)` of ready inputs `(m, C, *space)`, which belong to the samples `rows` `(m,)`.

        With `scratch` the model may write to the inputs, so they are not copied. With `network`, a copy of the model
        that answers the same runs in its place; its passes count as the model's.

        Raises:
            ModelError: the model answers with something else than one finite score a sample.
        """
        with torch.no_grad():
            output = self._capture.forward(inputs, network, scratch=scratch)
            scores = torch.stack([s.double() for s in self.score(output, self._capture.watched, rows)], dim=1)
        self.cost.forwards += len(inputs)
        if len(scores) != len(inputs):
            raise ModelError(
                f"The model answered {len(scores)} scores for {len(inputs)} inputs; it must answer one each."
            )
        if not math.isfinite(float(scores.sum())) and not torch.isfinite(scores).all():  # one number is soon looked at
            raise ModelError(
                "The model answered NaN or infinity to a masked input: check its weights and preprocessing."
            )
        return scores

    def fit_segments(self, labels: Tensor) -> Tensor:
        """Segments `(*space)` as this scorer can hide them, numbered without gaps."""
        return labels

    def __call__(self, masks: Masks | Sequence[Masks], label: str = "masked inputs") -> Tensor:
        """Scores `(N, M, targets)`, double precision; each different mask is scored once.

        Args:
            masks: the same for all inputs, or one `Masks` of equal length for each input.
            label: of the progress bar.
        """
        scores, failure = self.answered(masks, label)
        if failure is not None:
            raise failure
        return scores

    def answered(
        self, masks: Masks | Sequence[Masks], label: str = "masked inputs"
    ) -> tuple[Tensor, ModelError | None]:
        """The same as far as the model comes: NaN from where it failed on, and how it did.

        Masks that are not scored in order are all NaN then: the few that were reached are no fair sample of them.

        Raises:
            UnsteadyError: nothing that the model has answered can be relied on.
        """
        if isinstance(masks, Masks):
            unique, inverse = (list(part) for part in zip(*[masks.distinct()] * len(self.inputs), strict=True))
        else:
            unique, inverse = (list(part) for part in zip(*(m.distinct() for m in masks), strict=True))
        found = [self._unknown(len(u)) for u in unique]
        failure = None
        try:
            if self.memory is None:
                self.score_masks(unique, found, label)
            else:
                self._with_memory(self.memory, unique, found, label)
        except UnsteadyError:
            raise
        except ModelError as error:
            failure = error
            if not self.in_order:
                found = [self._unknown(len(u)) for u in unique]
        return torch.stack([part[i.to(part.device)] for part, i in zip(found, inverse, strict=True)]), failure

    def _unknown(self, count: int) -> Tensor:
        return torch.full((count, self.targets), torch.nan, dtype=torch.float64, device=self.inputs.device)

    def _with_memory(self, memory: Memory, unique: Sequence[Masks], found: Sequence[Tensor], label: str) -> None:
        """Only what is not known yet is run; what was answered is kept even if the rest fails."""
        named = {id(u): u.keys() for u in unique}  # masks that all inputs share are named once
        keys = [named[id(u)] for u in unique]
        rest = [memory.recall(n, k, f) for n, (k, f) in enumerate(zip(keys, found, strict=True))]
        if not any(map(len, rest)):
            return
        fresh = [self._unknown(len(rows)) for rows in rest]
        todo = [u.take(rows.to(u.values.device)) for u, rows in zip(unique, rest, strict=True)]
        try:
            self.score_masks(todo, fresh, label)
        finally:
            for n, (rows, scores) in enumerate(zip(rest, fresh, strict=True)):
                found[n][rows.to(found[n].device)] = scores
                memory.keep(n, [keys[n][r] for r in rows.tolist()], scores)


def _digest(x: Tensor) -> bytes:
    about = hashlib.blake2b(f"{tuple(x.shape)} {x.dtype}".encode(), digest_size=KEY)
    about.update(x.double().cpu().contiguous().numpy().tobytes())
    return about.digest()


class Scorer(MaskScorer):
    """Scores of masked inputs, something else in the place of what is hidden.

    Args:
        module: the model.
        inputs: `(N, C, *space)`.
        baseline: what shows where a mask is 0: pictures `(N, C, *space)`, or a `Baseline`.
        score: see `Scores`.
        targets: how many targets `score` yields.
        watch: layers that `score` reads.
        batch: masked inputs at a time; halved when memory runs out. None: a default, and four times that where the
            first layers, whose activations are the largest, compute patches only.

    Example:
        with Scorer(module, x, zeros, score, targets=1) as scorer:
            values = scorer(SegmentMasks(coalitions, labels))  # (N, M, 1)
    """

    soft = True

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        baseline: Tensor | Baseline,
        score: Scores,
        *,
        targets: int = 1,
        watch: Sequence[str] = (),
        batch: int | None = None,
    ) -> None:
        self.inputs, self.space = inputs.detach(), tuple(inputs.shape[2:])
        self.unit = (1,) * len(self.space)
        self.baseline: Baseline = (
            Backdrop(baseline.detach().expand_as(inputs)) if isinstance(baseline, Tensor) else baseline
        )
        self.score, self.targets = score, targets
        self._boxed = remembers(module)
        self.batch = batch or default_batch(self.inputs, elsewhere=self._boxed)
        self.cost = Cost()
        self._wider = 1 if batch else _WIDER
        self._asked = 0  # masked inputs so far
        self._grounds: list[bytes] | None = None
        self._capture = Capture(module, watch=watch)

    def __enter__(self) -> Self:
        self._capture.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.__exit__(kind, error, trace)

    def score_masks(self, masks: Sequence[Masks], out: Sequence[Tensor], label: str) -> None:
        """Masks are drawn and blended batch by batch, batches filled across inputs."""
        ends = list(accumulate(map(len, masks), initial=0))  # where each input's masks begin and end, one after another
        if not ends[-1]:
            return
        patches = self._quicken(masks)
        batch = self.batch * (self._wider if patches else 1)
        names = self._names(masks)
        owner = torch.repeat_interleave(torch.arange(len(masks)), torch.tensor(ends).diff())
        buffer = torch.empty((min(batch, ends[-1]), *self.inputs.shape[1:])).to(self.inputs)

        def run(start: int, stop: int) -> None:
            blended = buffer[: stop - start]
            parts = []
            for n in range(int(owner[start]), int(owner[stop - 1]) + 1):
                low, high = max(start, ends[n]), min(stop, ends[n + 1])
                rows, at = slice(low - ends[n], high - ends[n]), slice(low - start, high - start)
                mask = masks[n].render(rows).to(self.inputs)
                torch.lerp(self.baseline.behind(n, mask), self.inputs[n : n + 1], mask, out=blended[at])
                parts.append((n, rows, at))
            if names:
                named(blended, names[start:stop])
            if patches:
                patches.expect([(n, row) for n, rows, _ in parts for row in range(rows.start, rows.stop)])
            scores = self.evaluate(
                blended, owner[start:stop], scratch=True, network=patches.network if patches else None
            )
            for n, rows, at in parts:
                out[n][rows] = scores[at]

        try:
            self.batch = min(self.batch, adaptive_batches(run, ends[-1], batch, label=label))
        finally:
            if patches:
                patches.expect([])

    def _names(self, masks: Sequence[Masks]) -> list[bytes]:
        """Of masked inputs, for a model that remembers its answers by them: input, backdrop and mask; else none."""
        if not self._boxed or not isinstance(self.baseline, Backdrop):
            return []
        if self._grounds is None:
            pairs = zip(self.inputs, self.baseline.pictures.expand_as(self.inputs), strict=True)
            self._grounds = [_digest(torch.stack(pair)) for pair in pairs]
        keys = [some.keys() for some in masks]
        return [ground + key for ground, some in zip(self._grounds, keys, strict=True) for key in some]

    def _quicken(self, masks: Sequence[Masks]) -> PatchNet | None:
        """Enough masked inputs are worth patches of windows, another runtime, or a quicker twin of the model."""
        self._asked += sum(map(len, masks))
        x, asked = self.inputs[:1], max(self._asked, self.expected)
        patches = None
        if self._capture.converted is None:
            if are_windows(self.inputs, masks):
                self.cost.forwards += self._capture.fold(x, asked, layout=False)
            patches = find_patches(self._capture, self.inputs, masks, self.batch, self.cost)
        if patches is None:
            self.cost.forwards += self._capture.quicken(x, asked)
            self.cost.ran = self._capture.ran
            self._compare(masks[0])
        return patches

    def _compare(self, masks: Masks) -> None:
        """Once, where sums are rough: whether the map of some masks keeps its order."""
        ran, least, most = self.cost.ran, *_COMPARED
        if ran.precision == "f32" or ran.notes or len(masks) < least:
            return
        some = masks.take(torch.arange(min(len(masks), most), device=masks.values.device))
        mask = some.render(slice(None)).to(self.inputs)
        shown = torch.lerp(self.baseline.behind(0, mask), self.inputs[:1], mask)
        maps = []
        for network in (None, self._capture.network):
            scores = self._over(shown, torch.zeros(len(some), dtype=torch.long), network)
            maps.append(some.accumulate((scores - scores.mean(0)).to(some.values.device))[0])
        said = (
            f"Sums in {ran.precision}: of {len(some)} masks the map's rank correlation with single precision is "
            f"{spearman(*maps):.3f}."
        )
        self._capture.ran = self.cost.ran = replace(ran, notes=(said,))

    def plain(self) -> Tensor:
        """Scores `(N, targets)` of the inputs as they are."""
        return self._over(self.inputs, torch.arange(len(self.inputs)))

    def blank(self) -> Tensor:
        """Scores `(N, targets)` of the baselines."""
        return self._over(self.baseline.blank(), torch.arange(len(self.inputs)))

    def _over(self, inputs: Tensor, rows: Tensor, network: nn.Module | None = None) -> Tensor:
        out = torch.empty(len(inputs), self.targets, dtype=torch.float64, device=inputs.device)

        def run(start: int, stop: int) -> None:
            out[start:stop] = self.evaluate(inputs[start:stop], rows[start:stop], network=network)

        adaptive_batches(run, len(inputs), self.batch)
        return out
