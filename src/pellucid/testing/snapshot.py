"""All that an explanation must leave as it was, written down and compared."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = tuple(name for name in vars(nn.Module()) if "hook" in name)


def snapshot(module: nn.Module, inputs: Tensor | None = None) -> dict[str, Any]:
    """Everything around a model that a run of it could change; equal snapshots mean that no trace was left.

    Tensors are kept by identity and by value, containers by identity and by what they hold.

    Args:
        module: the model.
        inputs: the caller's own input.
    """
    parts = dict(module.named_modules())
    return {
        "hooks": {n: {h: copy.copy(getattr(m, h)) for h in _HOOKS} for n, m in parts.items()},
        "parts": {n: id(m) for n, m in parts.items()},
        "training": {n: m.training for n, m in parts.items()},
        "attributes": {n: {k: _held(v) for k, v in vars(m).items() if k != "training"} for n, m in parts.items()},
        "parameters": {n: (_written(p), p._version) for n, p in module.named_parameters()},
        "gradients": {n: None if p.grad is None else _written(p.grad) for n, p in module.named_parameters()},
        "buffers": {n: {k: _written(b) for k, b in m._buffers.items()} for n, m in parts.items()},
        "input": None if inputs is None else (_written(inputs), inputs._version, _written(inputs.grad)),
        "random numbers": random_numbers(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Which parts of two snapshots differ, and at which module or name."""
    found = []
    for part, was in before.items():
        now = after[part]
        if was == now:
            continue
        if isinstance(was, dict):
            names = [name or "the model" for name in {**was, **now} if was.get(name) != now.get(name)]
            found.append(f"{part} ({', '.join(names)})")
        else:
            found.append(part)
    return found


def _written(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    values = tensor.detach().clone().cpu().reshape(-1).contiguous()
    raw = values.view(torch.uint8).numpy().tobytes() if values.numel() else b""
    grad = id(tensor.grad) if tensor.is_leaf else 0
    return id(tensor), tensor.dtype, tuple(tensor.shape), raw, tensor.requires_grad, grad


def _held(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _written(value)
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, dict):
        return id(value), [(key, id(item)) for key, item in value.items()]
    if isinstance(value, list | set | tuple):
        return id(value), [id(item) for item in value]
    return value if isinstance(value, int | float | str | bool | type(None)) else id(value)


def random_numbers() -> Any:
    """The states of the process's random numbers: torch's, numpy's, Python's."""
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), (kind, np.asarray(keys).tolist(), rest), random.getstate()
