"""Scores of clips put together from frames of a small bank: what frame importance asks for, thousands of times.

A network that reads each frame by itself and then runs a recurrent layer (CNN-LSTM and its kin) need not see a frame
twice: `FrameScorer` computes the features of every frame of the bank once, and of each clip only the recurrent steps
from the first changed frame on. That a network is of this kind is proven on the clip at hand; all others are given
whole clips. The numbers are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.attached import Attached
from pellucid.engine.batching import adaptive_batches, default_batch, is_out_of_memory
from pellucid.engine.capture import Capture, Cost
from pellucid.engine.hooks import End, Hooks
from pellucid.engine.perturb import Scores
from pellucid.engine.recurrent import State, called_with
from pellucid.errors import MethodError, ModelError

_ROWS = 8  # times the batch of clips: what a recurrent layer reads is small
_UNSOUND = (RuntimeError, ValueError, TypeError, IndexError, ModelError)


@dataclass
class _Prefix:
    """The recurrent layer that reads one feature vector a frame, and what it says of the clip as it is.

    Attributes:
        layer: the module.
        features: `(B, F)`, of every frame of the bank.
        stub: `(1, C, t, H, W)`, the shortest clip that brings the network to the layer.
        outputs: `(1, T, H)`, the layer's own, of the clip.
        states: before each step; empty for layers that also run backwards.
        first: the state that the model starts the layer from, whatever the clip; None for zeros.
    """

    layer: nn.RNNBase
    features: Tensor
    stub: Tensor
    outputs: Tensor
    states: list[State]
    first: State | None = None


class FrameScorer(Attached):
    """Scores of clips made of a bank's frames; a context, since the model is borrowed while it is open.

    Args:
        module: the model.
        clip: `(1, C, T, H, W)`.
        others: `(B, C, H, W)`, more frames that may be shown; number `T + b` is `others[b]`.
        score: see `Scores`; `rows` are all 0.
        targets: how many targets `score` yields.
        watch: layers that `score` reads.
        batch: clips at a time; halved when memory runs out.
        fast: False gives whole clips even to a recurrent network.

    Example:
        with FrameScorer(module, clip, blurred, score) as scorer:
            values = scorer(torch.tensor([[0, 1, 2, 2, 4]]))  # the fourth frame frozen: (1, targets)
    """

    def __init__(
        self,
        module: nn.Module,
        clip: Tensor,
        others: Tensor,
        score: Scores,
        *,
        targets: int = 1,
        watch: Sequence[str] = (),
        batch: int | None = None,
        fast: bool = True,
    ) -> None:
        if clip.ndim != 5 or len(clip) != 1:
            raise MethodError(f"Frames are those of one clip (1, C, T, H, W); the input is {tuple(clip.shape)}.")
        self.clip, self.score, self.targets, self.fast = clip.detach(), score, targets, fast
        self.bank = torch.cat([self.clip[0].transpose(0, 1), others.detach().to(self.clip)])
        self.batch = batch or default_batch(clip.device)
        self.cost, self._read = Cost(), 0  # frames read so far
        self._capture = Capture(module, watch=watch, edited=True)
        self._hooks = Hooks()
        self._prefix: _Prefix | None = None
        self._feed: tuple[Tensor, int] | None = None  # what the recurrent layer is given instead, from which step on
        self._fed = 0

    @property
    def frames(self) -> int:
        """T."""
        return self.clip.shape[2]

    @property
    def recurrent(self) -> bool:
        """Whether the fast path is proven and in use."""
        return self._prefix is not None

    @property
    def resumes(self) -> bool:
        """Whether the recurrent layer can be started at any frame."""
        return self._prefix is not None and bool(self._prefix.states)

    def attach(self) -> None:
        """Prove the fast path."""
        if self.fast:
            self._prefix = self._proven()

    def detach(self) -> None:
        """No pass is short any more."""
        self._prefix, self._feed = None, None

    def __call__(self, index: Tensor, label: str = "frames") -> Tensor:
        """Scores `(M, targets)`, double precision, of the clips whose frames are `index` `(M, T)` of the bank."""
        rows, inverse = torch.unique(index.cpu(), dim=0, return_inverse=True)
        first = (rows != torch.arange(self.frames)).int().argmax(1)  # 0 also where nothing changes
        order = first.argsort(stable=True)
        rows, first = rows[order], first[order]
        out = torch.empty(len(rows), self.targets, dtype=torch.float64)

        def run(start: int, stop: int) -> None:
            chosen = rows[start:stop]
            scores = self._fast(chosen, int(first[start])) if self._prefix is not None else self._slow(chosen)
            out[start:stop] = scores.cpu()

        adaptive_batches(run, len(rows), self.batch * (_ROWS if self.recurrent else 1), label)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return out[back[inverse]]

    def forgetting(self) -> Tensor:
        """Score lost, `(T, targets)`, when the state before frame t is set to zero, for each t; see `resumes`.

        For the first frame that is the state that the model starts from; 0 where it starts from zeros.
        """
        assert self._prefix is not None
        everything = torch.arange(self.frames)[None]
        plain = self._fast(everything, 0).cpu()
        lost = torch.zeros(self.frames, self.targets, dtype=torch.float64)
        kept = self._prefix
        blank = _zeros(kept.states[0])
        try:
            self._prefix = replace(kept, states=[blank] * self.frames, first=None)
            for t in range(0 if kept.first is not None else 1, self.frames):
                lost[t] = (plain - self._fast(everything, t).cpu())[0]
        finally:
            self._prefix = kept
        return lost

    def _slow(self, rows: Tensor) -> Tensor:
        clips = self.bank[rows.to(self.bank.device)].transpose(1, 2)
        self._spend(clips)
        return self._scores(clips, len(clips))

    def _fast(self, rows: Tensor, start: int) -> Tensor:
        assert self._prefix is not None
        start = start if self._prefix.states else 0
        self._feed, self._fed = (self._prefix.features[rows[:, start:].to(self.bank.device)], start), 0
        self._spend(self._prefix.stub)
        try:
            scores = self._scores(self._prefix.stub, len(rows))
        finally:
            self._feed = None
        if self._fed != 1:
            raise ModelError("The recurrent layer is no longer called as when it was probed.")
        return scores

    def _spend(self, clips: Tensor) -> None:
        """Count passes in clips of full length: what a network does is mostly done frame by frame."""
        self._read += len(clips) * clips.shape[2]
        self.cost.forwards = math.ceil(self._read / self.frames)

    def _scores(self, clips: Tensor, count: int) -> Tensor:
        with torch.no_grad():
            output = self._capture.forward(clips)
            at = torch.zeros(count, dtype=torch.long)
            scores = torch.stack([s.double() for s in self.score(output, self._capture.watched, at)], dim=1)
        if scores.shape != (count, self.targets):
            raise ModelError(f"The model answered scores of shape {tuple(scores.shape)} for {count} clips.")
        if not torch.isfinite(scores).all():
            raise ModelError("The model answered NaN or infinity to a changed clip: check its weights and scaling.")
        return scores

    # --- the fast path ---

    def _proven(self) -> _Prefix | None:
        """The recurrent layer behind features that hang on one frame each; None where that does not hold.

        Proof: a clip of random frames of the bank, out of order and repeated, has at each step the features of that
        frame in its own place, and scores as what is put together from them. A state that the model starts the layer
        from must be the same for this clip, the random one and the clip run backwards.
        """
        found = self._first_recurrent()
        if found is None:
            return None
        layer, features, first = found
        mixed = torch.randint(self.frames, (1, self.frames), generator=torch.Generator().manual_seed(0))
        half = self.frames // 2
        mixed[:, :half] = torch.arange(half)  # so that the states are put to the proof too
        seen: list[tuple[Tensor, State | None]] = []
        with self._reading(layer, seen, stop=False):
            expected = self._slow(mixed)
        if len(seen) != 1 or not _same(self._vectors(layer, seen[0][0]), features[mixed[0].to(features.device)]):
            return None
        try:
            if not _same_state(seen[0][1], first):
                return None
            if first is not None and not _same_state(self._features(layer, self.clip.flip(2))[1], first):
                return None
            others = self._others(layer)
            outputs, states = _stepped(layer, features, first) if not layer.bidirectional else (torch.zeros(0), [])
            self._hooks.before(layer, self._before)
            self._hooks.behind(layer, self._after)
            for stub in (self.clip[:, :, :1], self.clip):  # what the frames' network is fed no longer matters
                self._prefix = _Prefix(layer, torch.cat([features, others]), stub, outputs, states, first)
                with suppress(*_UNSOUND):
                    if _same(self._fast(mixed, half), expected):
                        return self._prefix
        except _UNSOUND as error:
            if is_out_of_memory(error):
                raise
        return None

    def _others(self, layer: nn.RNNBase) -> Tensor:
        """The features of the bank's further frames: as one clip of their own length, or as clips of the full one."""
        others = self.bank[self.frames :]
        if not len(others):
            return others.new_zeros(0, layer.input_size)
        try:
            return self._features(layer, others.transpose(0, 1)[None])[0]
        except _UNSOUND as error:
            if is_out_of_memory(error):
                raise
        parts = others.split(self.frames)  # type: ignore[no-untyped-call]
        whole = [torch.cat([p, p[:1].expand(self.frames - len(p), *p.shape[1:])]) for p in parts]
        return torch.cat([self._features(layer, w.transpose(0, 1)[None])[0] for w in whole])[: len(others)]

    def _first_recurrent(self) -> tuple[nn.RNNBase, Tensor, State | None] | None:
        """The first recurrent layer that is given one vector for each frame, these, and the state it starts from."""
        layers = [m for m in self._capture.module.modules() if isinstance(m, nn.RNNBase)]
        for layer in layers:
            try:
                return layer, *self._features(layer, self.clip)
            except _UNSOUND as error:
                if is_out_of_memory(error):
                    raise
        return None

    def _features(self, layer: nn.RNNBase, clip: Tensor) -> tuple[Tensor, State | None]:
        """`(T, F)` and a first state: what the layer is given for a clip; nothing behind it is run."""
        seen: list[tuple[Tensor, State | None]] = []
        with self._reading(layer, seen, stop=True), suppress(End), torch.no_grad():
            self._capture.forward(clip)
        self._spend(clip)
        found = self._vectors(layer, seen[0][0] if seen else torch.zeros(0))
        if len(found) != clip.shape[2]:
            raise ModelError("The recurrent layer is not given one vector for each frame.")
        return found, seen[0][1]

    @contextmanager
    def _reading(self, layer: nn.RNNBase, seen: list[tuple[Tensor, State | None]], stop: bool) -> Iterator[None]:
        """What the layer is given is put into `seen`; with `stop`, the pass then ends."""

        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given, state = called_with(args, kwargs)
            vectors = given.detach().clone() if isinstance(given, Tensor) else torch.zeros(0)  # packed: none
            seen.append((vectors, None if state is None else _each(lambda s: s.detach().clone(), state)))
            if stop:
                raise End

        with Hooks() as hooks:
            hooks.before(layer, note)
            yield

    @staticmethod
    def _vectors(layer: nn.RNNBase, given: Tensor) -> Tensor:
        """What one sequence `(1, T, F)` or `(T, 1, F)` holds, `(T, F)`; nothing for other shapes."""
        other = 0 if layer.batch_first else 1
        return given.squeeze(other) if given.ndim == 3 and given.shape[other] == 1 else given.new_zeros(0, 1)

    def _before(self, _module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        if self._feed is None:
            return None
        assert self._prefix is not None
        features, start = self._feed
        self._fed += 1
        count = len(features)
        fed = features if self._prefix.layer.batch_first else features.transpose(0, 1)
        state = self._prefix.states[start] if start else self._prefix.first
        return ((fed,) if state is None else (fed, _repeated(state, count))), {}

    def _after(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if self._feed is None:
            return None
        assert self._prefix is not None
        features, start = self._feed
        if not start:
            return None
        sequence, state = output
        head = self._prefix.outputs[:, :start].expand(len(features), -1, -1)
        axis = 1 if self._prefix.layer.batch_first else 0
        return torch.cat([head if axis else head.transpose(0, 1), sequence], dim=axis), state


def _each(do: Callable[[Tensor], Tensor], state: State) -> State:
    return (do(state[0]), do(state[1])) if isinstance(state, tuple) else do(state)


def _repeated(state: State, count: int) -> State:
    """A state of one sequence `(layers, 1, H)` for `count` of them."""
    return _each(lambda s: s.expand(-1, count, -1).contiguous(), state)


def _stepped(layer: nn.RNNBase, features: Tensor, first: State | None) -> tuple[Tensor, list[State]]:
    """A recurrent layer run step by step over `(T, F)`: its outputs `(1, T, H)`, its state before each step."""
    axis = 1 if layer.batch_first else 0
    outputs: list[Tensor] = []
    states: list[State] = []
    state = first
    with torch.no_grad():
        for step in features:
            output, state = layer(step[None, None], state)
            outputs.append(output)
            states.append(state)
    sequence = torch.cat(outputs, dim=axis)
    before = _zeros(states[0]) if first is None else first
    return (sequence if axis else sequence.transpose(0, 1)), [before, *states[:-1]]


def _zeros(like: State) -> State:
    return _each(lambda s: s * 0, like)


def _same_state(a: State | None, b: State | None) -> bool:
    if a is None or b is None:
        return a is b
    pairs = zip(*(s if isinstance(s, tuple) else (s,) for s in (a, b)), strict=True)
    return all(_same(x, y) for x, y in pairs)


def _same(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().max())
    return a.shape == b.shape and bool(((a - b).abs() <= 1e-4 * max(scale, 1e-12)).all())
