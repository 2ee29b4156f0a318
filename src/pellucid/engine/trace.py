"""Leave no trace: a model is bit for bit as before after an explanation, an error or a cancel.

Guarded here: train/eval flags, buffers and other attributes, the random states, the compiler's stance, grad and
inference mode. Fused attention and checkpointing are off (`shortcuts`). On CUDA recurrent layers run without cuDNN
while a graph is recorded, because cuDNN refuses their backward pass in evaluation mode. Hooks are owned (and removed)
by `Capture`; parameters are never touched, because only `torch.autograd.grad` is ever called.

Threads may share a model: what is common to them is noted by the first that comes and put back by the last that goes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.engine.shortcuts import borrow_shortcuts, shortcuts

Restore = Callable[[], None]

_OF_TORCH = frozenset(vars(nn.Module()))  # kept apart: parameters and hooks, `training`, submodules
_lock = threading.Lock()
_models: WeakKeyDictionary[nn.Module, _Loan] = WeakKeyDictionary()


class _Loan:
    """How to put back what several threads use at once, each piece noted under a name by whoever is the first."""

    def __init__(self) -> None:
        self.users = 0
        self.restores: dict[Hashable, Restore] = {}

    @contextmanager
    def taken(self, borrow: Callable[[dict[Hashable, Restore]], None]) -> Iterator[None]:
        """Be one of the users; `borrow` notes in the table how to restore what is not in it yet."""
        with _lock:
            borrow(self.restores)
            self.users += 1
        try:
            yield
        finally:
            with _lock:
                self.users -= 1
                if not self.users:
                    restores, self.restores = self.restores, {}
                    for restore in restores.values():
                        restore()


_process = _Loan()


def _borrow_model(module: nn.Module, restores: dict[Hashable, Restore]) -> None:
    """Evaluation mode, and notes on the state; a model already in evaluation mode is not written to at all."""
    for m in module.modules():
        if ("state", m) not in restores:
            restores["state", m] = _keep(m)
        if m.training:
            restores["training", m] = lambda m=m: setattr(m, "training", True)  # type: ignore[misc]
            m.training = False


def _keep(module: nn.Module) -> Restore:
    """Puts back what a forward pass wrote to a module, in place or by another value: buffers, counters, caches.

    A cache filled in evaluation mode would be stale after the next training step; one filled here would keep a graph.
    """
    own = vars(module)
    size, attributes = len(own), {name: value for name, value in list(own.items()) if name not in _OF_TORCH}
    held = [*module._buffers.values(), *attributes.values()]
    tensors = [(t, _version(t), t.detach().clone()) for t in held if isinstance(t, Tensor)]
    contents = [(c, c.copy()) for c in (module._buffers, *held) if type(c) in (dict, list, set)]

    def restore() -> None:
        for tensor, version, value in tensors:
            if not torch.equal(tensor, value) if version < 0 else tensor._version != version:
                with torch.inference_mode(version < 0), torch.no_grad():
                    tensor.copy_(value)
        for container, content in contents:
            if not _same(container, content):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)
        if len(own) != size or any(own.get(name, own) is not value for name, value in attributes.items()):
            for name in own.keys() - attributes.keys() - _OF_TORCH:
                del own[name]
            own.update(attributes)

    return restore


def _same(a: Any, b: Any) -> bool:
    """Whether two containers hold the very same objects."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(a[key] is value for key, value in b.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _borrow_process(device: torch.device, compiled: bool, restores: dict[Hashable, Restore]) -> None:
    """The random states; and an eager stance for compiled submodules, because hooks never fire in compiled code."""
    if "random" not in restores:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()

        def restore() -> None:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])

        restores["random"] = restore
    if device.type == "cuda" and device not in restores:
        state = torch.cuda.get_rng_state(device)
        restores[device] = lambda: torch.cuda.set_rng_state(state, device)
    borrow_shortcuts(restores)
    if compiled and "stance" not in restores:
        stance = torch.compiler.set_stance("force_eager")
        restores["stance"] = lambda: stance.__exit__(None, None, None)


def _is_compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")


@contextmanager
def _differentiable_recurrence(module: nn.Module, device: torch.device) -> Iterator[None]:
    """cuDNN off around recurrent layers alone, on CUDA, while a graph is recorded; convolutions keep it.

    Its kernels keep what a backward pass needs in training mode only, and evaluation mode must not be left.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.RNNBase)] if device.type == "cuda" else []
    thread, switched = threading.get_ident(), ExitStack()

    def before(_module: nn.Module, _args: Any) -> None:
        if threading.get_ident() == thread and torch.is_grad_enabled():
            switched.enter_context(torch.backends.cudnn.flags(enabled=False))

    def after(_module: nn.Module, _args: Any, _output: Any) -> None:
        if threading.get_ident() == thread:
            switched.close()

    with switched, ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(before).remove)
            hooks.callback(layer.register_forward_hook(after, always_call=True).remove)
        yield


@contextmanager
def leave_no_trace(module: nn.Module) -> Iterator[None]:
    """Everything that runs a user's model runs inside this context.

    Evaluation mode, eager, autograd on; these, the modules' state and the global random states are put back on the way
    out, whatever happened inside.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    compiled = any(_is_compiled(m) for m in module.modules())
    with _lock:
        loan = _models.setdefault(module, _Loan())
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_process.taken(lambda restores: _borrow_process(device, compiled, restores)))
        stack.enter_context(shortcuts(on=False))
        stack.enter_context(loan.taken(lambda restores: _borrow_model(module, restores)))
        stack.enter_context(_differentiable_recurrence(module, device))
        yield
