"""Prefix once, tail many: scores when only one layer's activation changes.

The input goes in alone, and a hook at the layer returns many changed activations in place of one; everything behind
it broadcasts, residual additions included. The prefix then costs one pass for each batch of changes rather than one
for each change. Tails that do not broadcast (a concatenation with something in front of the layer) are recognised by
a trial, and run with the input repeated: the same numbers, more slowly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.batching import adaptive_batches, default_batch
from pellucid.engine.capture import Capture, Cost, find_layer, first_tensor, replace_first_tensor
from pellucid.engine.perturb import Scores
from pellucid.errors import LayerError, ModelError

Change = Callable[[Tensor, int, int], Tensor]
"""(the layer's activation of one input `(1, ...)`, start, stop) -> changed activations `(stop - start, ...)`.

Where a layer folds frames into the batch, one input has as many rows as it has frames."""

_TAIL_FACTOR = 8  # a tail's activations are smaller than inputs, so more of them make a batch


class Tail:
    """Scores of one input whose activation at `layer` is changed in many ways; a context, like `Scorer`.

    Args:
        module: the model.
        inputs: one input `(1, C, *space)`.
        layer: module path.
        score: see `Scores`; `rows` are all 0.
        targets: how many targets `score` yields.
        watch: layers that `score` reads; one that is `layer` itself is read as changed.
        batch: changes at a time; halved when memory runs out.
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
        batch: int | None = None,
    ) -> None:
        self.inputs, self.layer, self.score, self.targets = inputs.detach(), layer, score, targets
        self.batch = batch or _TAIL_FACTOR * default_batch(inputs.device)
        self.cost = Cost()
        self.broadcasts = True
        self._capture = Capture(module, watch=watch)
        self._edit: Callable[[Tensor], Tensor] | None = None
        self._runs = self._last = 0  # a layer may run several times in a pass: it is changed where it runs last
        self._thread, self._running = threading.get_ident(), False
        self.activation: Tensor
        self.plain: Tensor

    def __enter__(self) -> Tail:
        self._capture.__enter__()
        try:
            target = find_layer(self._capture.module, self.layer)
            self._handle = target.register_forward_hook(self._hook, prepend=True)  # before it is watched
            self._trial()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_handle"):
            self._handle.remove()
        self._capture.__exit__(kind, error, trace)

    def __call__(self, change: Change, count: int, label: str = "changed activations") -> Tensor:
        """Scores `(count, targets)` of `count` changes, double precision."""
        out = torch.empty(count, self.targets, dtype=torch.float64, device=self.inputs.device)

        def run(start: int, stop: int) -> None:
            rows = len(self.activation)  # of one input: more than one where frames are folded into the batch
            out[start:stop] = self._run(lambda A: change(A[:rows], start, stop), stop - start)

        self.batch = adaptive_batches(run, count, self.batch, label=label)
        return out

    def _hook(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if threading.get_ident() != self._thread or not self._running:
            return None
        activation = first_tensor(output)
        if activation is None:
            raise LayerError(f"Layer {self.layer!r} returns no activation tensor; name another.")
        self._runs += 1
        if self._edit is None:
            self.activation, self._last = activation.detach().clone(), self._runs
            return None
        if self._runs < self._last:
            return None
        return replace_first_tensor(output, self._edit(activation))

    def _run(self, edit: Callable[[Tensor], Tensor] | None, count: int) -> Tensor:
        self._edit, self._runs, self._running = edit, 0, True
        try:
            return self._scores(count)
        finally:
            self._running = False  # the model may be run for something else while this context is open

    def _scores(self, count: int) -> Tensor:
        inputs = self.inputs if self.broadcasts else self.inputs.expand(count, *self.inputs.shape[1:])
        with torch.no_grad():
            output = self._capture.forward(inputs)
            rows = torch.zeros(count, dtype=torch.long)
            scores = torch.stack([s.double() for s in self.score(output, self._capture.watched, rows)], dim=1)
        self.cost.forwards += len(inputs)
        if scores.shape != (count, self.targets):
            raise ModelError(f"The model answered scores of shape {tuple(scores.shape)} for {count} activations.")
        return scores

    def _trial(self) -> None:
        """Read the activation and the plain scores; see whether the tail broadcasts."""
        self.plain = self._run(None, 1)[0]
        if not hasattr(self, "activation"):
            raise LayerError(f"Layer {self.layer!r} never ran in the forward pass; name a layer that does.")
        try:
            twice = self._run(lambda A: A.repeat(2, *[1] * (A.ndim - 1)), 2)
            self.broadcasts = torch.allclose(twice, self.plain.expand_as(twice), rtol=1e-4, atol=1e-6)
        except (RuntimeError, ModelError, ValueError):
            self.broadcasts = False
