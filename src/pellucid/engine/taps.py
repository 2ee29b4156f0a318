"""What a layer answers in a pass, and the gradient that comes back to it: read, with nothing put in their place.

A cut (`Capture`) hands a copy on, which hides from a rule what a layer's answer was made by; a tap changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pellucid.engine.leaves import first_tensor


class Tap:
    """Hang `heard` behind a layer; after the backward pass `value` and `gradient` are those of the layer's last run.

    Args:
        arrived: called when the gradient has come.

    Attributes:
        value: the layer's answer, detached; None: the layer has not run, or nothing of it depends on the input.
        gradient: of the same shape; None: none has come back.
    """

    def __init__(self, arrived: Callable[[], None] = lambda: None) -> None:
        self.value: Tensor | None = None
        self.gradient: Tensor | None = None
        self._arrived = arrived

    def heard(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """The layer has answered."""
        found = first_tensor(output)
        if found is None or not found.requires_grad:
            return
        self.value, self.gradient = found.detach().clone(), None  # the model may write to it
        found.register_hook(self._came)  # type: ignore[no-untyped-call]

    def _came(self, g: Tensor) -> None:
        self.gradient = g.detach().clone()
        self._arrived()
