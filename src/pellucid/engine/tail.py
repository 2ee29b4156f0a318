"""Prefix once, tail many: scores when only one layer's activation changes.

The input goes in alone, and a hook at the layer returns many changed activations in place of one; everything behind
it broadcasts, residual additions included. What runs in front of the layer is noted in the first pass and played back
(`pellucid.engine.replay`), so the prefix costs one pass however many changes there are. Neither has to be so: the
first changes carry the unchanged activation along, which must give the plain score, and where it does not, the input
is repeated (a tail that concatenates something from in front of the layer), the prefix is run again, or both: the same
numbers, more slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.attached import Attached
from pellucid.engine.batching import adaptive_batches, default_batch, is_out_of_memory
from pellucid.engine.capture import Capture, Cost, Runs, find_layer
from pellucid.engine.differences import Differences
from pellucid.engine.folding import PAYS, foldable, folded
from pellucid.engine.hooks import Hooks
from pellucid.engine.leaves import first_tensor, replace_first_tensor
from pellucid.engine.perturb import Scores
from pellucid.engine.replay import Prefix
from pellucid.engine.run import batch_size
from pellucid.engine.shells import UNSOUND
from pellucid.errors import LayerError, ModelError

Change = Callable[[Tensor, int, int], Tensor]
"""(the layer's activation of one input `(1, ...)`, start, stop) -> changed activations `(stop - start, ...)`.

Where a layer folds frames into the batch, one input has as many rows as it has frames."""

_TAIL_FACTOR = 8  # a tail's activations are smaller than inputs, so more of them make a batch
_WAYS = (
    (True, False),
    (True, True),
    (False, False),
    (False, True),
)  # (prefix played back, input repeated)
_PROVEN_BY = 63  # changes that the unchanged activation is carried along with


class Tail(Attached):
    """Scores of one input whose activation at `layer` is changed in many ways; a context, like `Scorer`.

    Args:
        module: the model.
        inputs: one input `(1, C, *space)`.
        layer: module path.
        score: see `Scores`; `rows` are all 0.
        targets: how many targets `score` yields.
        watch: layers that `score` reads; one that is `layer` itself is read as changed.
        runs: of a layer that runs several times, side by side: each of these runs is changed, and they are read as one.
            A layer without is changed where it runs last.
        batch: changes at a time; halved when memory runs out.

    Attributes:
        activation: of the unchanged input at the layer.
        plain: its scores `(targets,)`.
        cost: runs of the prefix, each with its tail or with those of a batch of changes.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        layer: str,
        score: Scores,
        *,
        targets: int = 1,
        watch: Sequence[str] = (),
        runs: Runs | None = None,
        batch: int | None = None,
    ) -> None:
        self.inputs, self.layer, self.score, self.targets = inputs.detach(), layer, score, targets
        self.batch = batch or _TAIL_FACTOR * default_batch(self.inputs)
        self.cost = Cost()
        self.activation: Tensor
        self.plain: Tensor
        self._capture = Capture(module, watch=watch, edited=True)
        self._ways = list(_WAYS)
        self._proven = self._tried = False
        self._twin: nn.Module | None = None
        self._differences: Differences | None = None
        self._edit: Callable[[Tensor], Tensor] | None = None
        self._runs = self._last = 0  # a layer may run several times in a pass: it is changed where it runs last
        self._several, self._turns = runs, list[Tensor]()  # unless those are read as one
        self._hooks, self._running = Hooks(), False

    def attach(self) -> None:
        """Note the plain pass, and what of it can be played back."""
        target = find_layer(self._capture.module, self.layer)
        self._hooks.behind(target, self._hook, first=True)  # before it is watched
        self._prefix = Prefix(self._capture.module, self.layer, self._capture.watch)
        with self._prefix:
            self.plain = self._run(None, 1)[0]
        if not hasattr(self, "activation"):
            raise LayerError(f"Layer {self.layer!r} never ran in the forward pass; name a layer that does.")
        self._twin = self._prefix.twin()
        if self._twin is None:
            self._ways = [(played, repeated) for played, repeated in _WAYS if not played]
        if batch_size(self._capture.module):  # one change at a time, each in a pass of its own
            self._ways, self._proven = [(False, False)], True

    def detach(self) -> None:
        """What runs short goes."""
        self._twin = self._differences = None

    @property
    def way(self) -> tuple[bool, bool]:
        """Whether the prefix is played back, and whether the input is repeated; proven by the first changes."""
        return self._ways[0]

    def __call__(self, change: Change, count: int, label: str = "changed activations") -> Tensor:
        """Scores `(count, targets)` of `count` changes, double precision."""
        out = torch.empty(count, self.targets, dtype=torch.float64, device=self.inputs.device)

        def run(start: int, stop: int) -> None:
            if not self._proven:
                few = min(stop, start + _PROVEN_BY)
                out[start:few] = self._prove(change, start, few)
                start = few
            self._quicken(count - start)
            if start < stop:
                out[start:stop] = self._run(lambda A: change(A[: len(self.activation)], start, stop), stop - start)

        self.batch = adaptive_batches(run, count, batch_size(self._capture.module) or self.batch, label=label)
        return out

    def _prove(self, change: Change, start: int, stop: int) -> Tensor:
        """Scores of the first changes, in the fastest way that gives the unchanged activation the plain scores."""

        def with_plain(A: Tensor) -> Tensor:
            one = A[: len(self.activation)]  # more than one row where frames are folded into the batch
            return torch.cat([one, change(one, start, stop)])

        while True:
            last = len(self._ways) == 1
            try:
                scores = self._run(with_plain, stop - start + 1)
                self._proven = last or bool(
                    ((scores[0] - self.plain).abs() <= 1e-4 * scores.abs().amax(0) + 1e-9).all()
                )
            except UNSOUND as error:
                if last or is_out_of_memory(error):
                    raise
            if self._proven:
                return scores[1:]
            self._ways = self._ways[1:]

    def _quicken(self, changes: int) -> None:
        """Where there are many changes to come, batch normalisation behind the layer is folded into convolutions."""
        if self._tried or self._twin is None or not self.way[0] or changes < PAYS:
            return
        self._tried = True
        if foldable(self._twin, self.activation):
            self._twin = folded(self._twin, self._played, self.activation) or self._twin
        if self.activation.ndim == 4 and len(self.activation) == 1:
            self._differences = Differences(self.activation)
            self._twin = self._differences.read_by(self._twin)

    def _played(self, module: nn.Module, A: Tensor) -> Any:
        """What a twin answers when the layer's activation is `A`."""
        with self._editing(lambda _: A):
            return module(self._inputs(len(A), self.way[1]).clone())

    def _inputs(self, count: int, repeated: bool) -> Tensor:
        inputs = self.inputs.expand(count, *self.inputs.shape[1:]) if repeated else self.inputs
        self._prefix.rewind()
        self._prefix.repeat = len(inputs)
        return inputs

    def _hook(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if not self._running:
            return None
        activation = first_tensor(output)
        if activation is None:
            raise LayerError(f"Layer {self.layer!r} returns no activation tensor; name another.")
        self._runs += 1
        if self._several is not None:
            return self._one_of(self._several, activation, output)
        if self._edit is None:
            self.activation, self._last = activation.detach().clone(), self._runs
            self._prefix.reached(output)
            return None
        if self._runs < self._last:
            return None
        changed = self._edit(activation)
        if self._differences is not None:
            self._differences.changed = changed
        return replace_first_tensor(output, changed)

    def _one_of(self, runs: Runs, activation: Tensor, output: Any) -> Any:
        """One of several runs that are read as one: none depends on another, so all changes are known at the first."""
        if self._runs - 1 not in runs.kept:
            return None
        if self._edit is None:
            self._turns.append(activation.detach().clone())
            self._prefix.reached(output)
            if len(self._turns) == len(runs.kept):
                self.activation = runs.joined(self._turns)
            return None
        if self._runs - 1 == runs.kept[0]:
            self._turns = runs.parted(self._edit(self.activation))
        return replace_first_tensor(output, self._turns[runs.kept.index(self._runs - 1)])

    def _run(self, edit: Callable[[Tensor], Tensor] | None, count: int) -> Tensor:
        with self._editing(edit):
            return self._scores(count)

    @contextmanager
    def _editing(self, edit: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
        """For one pass, the hook changes the layer's activation; it notes the activation where `edit` is None."""
        self._edit, self._runs, self._running = edit, 0, True
        try:
            yield
        finally:
            self._running = False  # the model may be run for something else while this context is open
            self._edit = None  # which may hold this object, and it could not be dropped as one

    def _scores(self, count: int) -> Tensor:
        played, repeated = self.way if self._edit is not None else (False, False)
        inputs = self._inputs(count, repeated)
        with torch.no_grad():
            output = self._capture.forward(inputs, self._twin if played else None)
            rows = torch.zeros(count, dtype=torch.long)
            scores = torch.stack([s.double() for s in self.score(output, self._capture.watched, rows)], dim=1)
        self.cost.forwards += 0 if played else len(inputs)
        if scores.shape != (count, self.targets):
            raise ModelError(f"The model answered scores of shape {tuple(scores.shape)} for {count} activations.")
        return scores
