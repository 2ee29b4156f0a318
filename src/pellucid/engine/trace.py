"""Leave no trace: a model is bit for bit as before after an explanation, an error or a cancel.

Guarded here: train/eval flags, buffers, the random state, grad and inference mode. Hooks are owned (and
removed) by `Capture`; parameters are never touched, because only `torch.autograd.grad` is ever called.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_lock = threading.Lock()
_borrowed: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Run `module` in evaluation mode; the last thread to leave puts every train flag back.

    A model that is already in evaluation mode is not written to at all.
    """
    with _lock:
        users, switched = _borrowed.get(module, (0, []))
        training = [m for m in module.modules() if m.training]
        for m in training:
            m.training = False
        _borrowed[module] = (users + 1, switched + training)
    try:
        yield
    finally:
        with _lock:
            users, switched = _borrowed.pop(module)
            if users > 1:
                _borrowed[module] = (users - 1, switched)
            else:
                for m in switched:
                    m.training = True


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put back buffers that a forward pass wrote to or replaced (counters, running statistics, caches)."""
    owners = [(m, name, b) for m in module.modules() for name, b in m._buffers.items() if b is not None]
    before = [(m, name, b, _version(b), b.detach().clone()) for m, name, b in owners]
    try:
        yield
    finally:
        for m, name, buffer, version, value in before:
            changed = not torch.equal(buffer, value) if version < 0 else buffer._version != version
            if changed:
                with torch.no_grad():
                    buffer.copy_(value)
            if m._buffers.get(name) is not buffer:
                m._buffers[name] = buffer


@contextmanager
def _eager(module: nn.Module) -> Iterator[None]:
    """Run compiled submodules eagerly: hooks never fire inside compiled code."""
    compiled = any(
        getattr(m, "_compiled_call_impl", None) is not None or hasattr(m, "_orig_mod") for m in module.modules()
    )
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def leave_no_trace(module: nn.Module) -> Iterator[None]:
    """Everything that runs a user's model runs inside this context.

    Evaluation mode, eager, autograd on, the global random state forked; all of it undone on the way out,
    whatever happened inside.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    forked = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=forked))
        stack.enter_context(_buffers_kept(module))
        stack.enter_context(evaluation_mode(module))
        stack.enter_context(_eager(module))
        yield
