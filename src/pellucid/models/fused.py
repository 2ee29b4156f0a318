"""What torch's fused attention would have answered, told where it is another function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine import leave_no_trace, unwrap
from pellucid.engine.run import run_model
from pellucid.engine.shortcuts import shortcuts
from pellucid.models.reading import Reading

_SAME = 1e-3  # of the largest score: rounding is far below


def fused_remarks(module: nn.Module, inputs: Tensor, output: Any, reading: Reading) -> list[list[str]]:
    """For each input `(N, C, *space)`, what is told where the fused layers of torch answer otherwise than `output`.

    `nn.TransformerEncoder` with a padding mask does so outside of explanations, in evaluation mode without gradients.
    One more forward pass, for networks that hold such layers and would take the fused path.
    """
    module = unwrap(module)
    held = any(isinstance(m, nn.TransformerEncoder | nn.TransformerEncoderLayer) for m in module.modules())
    if not held or not torch.backends.mha.get_fastpath_enabled():
        return [[] for _ in inputs]
    with leave_no_trace(module), torch.no_grad(), shortcuts(on=True):
        fused = reading.found(run_model(module, inputs.detach().clone()), len(inputs))
    plain = reading.found(output, len(inputs))
    if plain is None or fused is None or plain.shape != fused.shape:
        return [[] for _ in inputs]
    return [_told(a, b) for a, b in zip(plain, fused, strict=True)]


def _told(plain: Tensor, fused: Tensor) -> list[str]:
    if float((plain - fused).abs().max()) <= _SAME * float(plain.abs().max()):
        return []
    classes = f" (class {int(fused.argmax())} on top, here class {int(plain.argmax())})" if plain.ndim == 1 else ""
    return [
        f"Outside of explanations this model answers otherwise{classes}: without gradients, torch's fused attention "
        "leaves out what is masked. The prediction and the map are those of the function that has gradients; "
        "torch.backends.mha.set_fastpath_enabled(False) makes it answer alike everywhere."
    ]
