"""Leave no trace: a model is bit for bit as before after an explanation, an error or a cancel.

Guarded here: train/eval flags, buffers, the random states, the compiler's stance, grad and inference mode. Hooks are
owned (and removed) by `Capture`; parameters are never touched, because only `torch.autograd.grad` is ever called.

Threads may share a model: what is common to them is noted by the first that comes and put back by the last that goes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

Restore = Callable[[], None]

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
    """Evaluation mode, and notes on the buffers; a model already in evaluation mode is not written to at all."""
    for m in module.modules():
        if ("buffers", m) not in restores:
            restores["buffers", m] = _keep_buffers(m)
        if m.training:
            restores["training", m] = lambda m=m: setattr(m, "training", True)  # type: ignore[misc]
            m.training = False


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _keep_buffers(module: nn.Module) -> Restore:
    """Puts back buffers that a forward pass wrote to, replaced or added (counters, running statistics, caches)."""
    before = dict(module._buffers)
    values = {n: (_version(b), b.detach().clone()) for n, b in before.items() if b is not None}

    def restore() -> None:
        for name, (version, value) in values.items():
            buffer = before[name]
            assert buffer is not None
            changed = not torch.equal(buffer, value) if version < 0 else buffer._version != version
            if changed:
                with torch.inference_mode(version < 0), torch.no_grad():
                    buffer.copy_(value)
        same = before.keys() == module._buffers.keys() and all(module._buffers[n] is b for n, b in before.items())
        if not same:
            module._buffers.clear()
            module._buffers.update(before)

    return restore


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
    if compiled and "stance" not in restores:
        stance = torch.compiler.set_stance("force_eager")
        restores["stance"] = lambda: stance.__exit__(None, None, None)


def _is_compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")


@contextmanager
def leave_no_trace(module: nn.Module) -> Iterator[None]:
    """Everything that runs a user's model runs inside this context.

    Evaluation mode, eager, autograd on; these, the buffers and the global random states are put back on the way out,
    whatever happened inside.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    compiled = any(_is_compiled(m) for m in module.modules())
    with _lock:
        loan = _models.setdefault(module, _Loan())
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_process.taken(lambda restores: _borrow_process(device, compiled, restores)))
        stack.enter_context(loan.taken(lambda restores: _borrow_model(module, restores)))
        yield
