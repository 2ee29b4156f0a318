"""One pass for two: what a model answers to a batch, and where the explanation of that answer begins.

Class activation maps need the answer first, to know which class is meant, and then a pass that is cut at a layer. The
cut pass answers too. So the first batch is run both ways, and where the two answers agree bit for bit, later batches of
that shape are run once: cut at the layer that was explained last, and held open until the question is known.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pellucid.engine.capture import Capture, Runs
from pellucid.errors import LayerError

_proven: WeakKeyDictionary[nn.Module, dict[Hashable, tuple[str, Runs | None]]] = WeakKeyDictionary()


@dataclass
class Ahead:
    """What is known of a batch before it is explained.

    Attributes:
        inputs: the batch `(N, C, *space)` itself, by which the pass is recognised.
        key: of the question, for which the same layer will be explained.
        output: the model's answer, without a graph.
        capture: the open pass that gave it, cut at a layer; None: it came from a plain pass.
        graph: the answer as that pass gave it.
    """

    inputs: Tensor
    key: Hashable
    output: Any = None
    capture: Capture | None = None
    graph: Any = None

    def taken(self, inputs: Tensor, layer: str, runs: Runs | None) -> tuple[Capture, Any] | None:
        """The open pass with its answer, if it was made of these inputs at this layer; it serves once."""
        capture = self.capture
        if capture is None or inputs is not self.inputs or capture.layers != (layer,):
            return None
        if capture.runs.get(layer) != runs:
            return None
        self.capture = None
        return capture, self.graph

    def prove(self, module: nn.Module, inputs: Tensor, output: Any, layer: str, runs: Runs | None) -> None:
        """Remember the layer, if the pass cut there has answered bit for bit as the plain one."""
        same = isinstance(output, Tensor) and isinstance(self.output, Tensor) and inputs is self.inputs
        if same and torch.equal(output.detach(), self.output):
            _proven.setdefault(module, {})[_place(inputs, self.key)] = (layer, runs)


@contextmanager
def cut_ahead(module: nn.Module, inputs: Tensor, key: Hashable) -> Iterator[Ahead | None]:
    """A pass of these inputs, cut where it was proven for this key; None where nothing was, or it fails there.

    Args:
        module: the model, unwrapped; left as it was when the context ends.
        inputs: `(N, C, *space)`.
        key: of the question (see `Ahead`); None: nothing is asked of a layer.
    """
    known = None if key is None else _proven.get(module, {}).get(_place(inputs, key))
    if known is None:
        yield None
        return
    layer, runs = known
    with ExitStack() as stack:
        ahead = None
        try:
            capture = stack.enter_context(Capture(module, [layer], runs={layer: runs}))
            output = capture.forward(inputs)
            if isinstance(output, Tensor) and output.requires_grad:
                ahead = Ahead(inputs, key, output.detach(), capture, output)
        except LayerError:  # the model has changed since: it has no such layer, or does not run it
            del _proven[module][_place(inputs, key)]
        yield ahead


def _place(inputs: Tensor, key: Hashable) -> Hashable:
    return tuple(inputs.shape[1:]), inputs.dtype, inputs.device, key
