"""Whole batches with one layer's activation changed on the way: what a model says when that layer says another thing.

`engine/tail.py` is for many changes of one input; this is for one change of many inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.attached import Attached
from pellucid.engine.capture import Capture, Cost, find_layer
from pellucid.engine.hooks import Hooks
from pellucid.engine.leaves import first_tensor, replace_first_tensor
from pellucid.errors import LayerError

Edit = Callable[[Tensor], Tensor]
"""The layer's activation of a batch -> what stands in its place, of the same shape."""


class Swap(Attached):
    """A context in which `swap(inputs, edit)` is the model's output with `edit(activation)` at the layer.

    A layer that runs several times in a pass is changed where it runs last, which is where it is read.

    Args:
        module: the model; left as it was when the context ends.
        layer: module path.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        self.layer, self.cost = layer, Cost()
        self._capture = Capture(module, edited=True)
        self._edit: Edit | None = None
        self._runs = self._last = 0
        self._hooks, self._running = Hooks(), False

    def attach(self) -> None:
        """Listen to the layer."""
        self._hooks.behind(find_layer(self._capture.module, self.layer), self._hook)

    def __call__(self, inputs: Tensor, edit: Edit | None = None) -> Any:
        """The model's output, changed or (with no `edit`) as it is; no graph."""
        if edit is not None and not self._last:
            self(inputs)  # counts how often the layer runs
        self._edit, self._runs, self._running = edit, 0, True
        try:
            with torch.no_grad():
                output = self._capture.forward(inputs)
        finally:
            self._edit, self._running = None, False
        self.cost.forwards += len(inputs)
        if not self._runs:
            raise LayerError(f"Layer {self.layer!r} never ran in the forward pass; name a layer that does.")
        self._last = self._runs
        return output

    def _hook(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if not self._running:
            return None
        self._runs += 1
        if self._edit is None or self._runs < self._last:
            return None
        activation = first_tensor(output)
        if activation is None:
            raise LayerError(f"Layer {self.layer!r} returns no activation tensor; name another.")
        return replace_first_tensor(output, self._edit(activation.detach()).to(activation))
