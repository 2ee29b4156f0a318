"""Leave no trace: a model is bit for bit as before after an explanation, an error or a cancel.

Guarded here: all that the model holds (`notes`), train/eval flags, the global random numbers (`randomness`), the
compiler's stance, grad and inference mode. Fused attention and checkpointing are off (`shortcuts`). On CUDA recurrent
layers run without cuDNN while a graph is recorded, because cuDNN refuses their backward pass in evaluation mode. No
gradient reaches a parameter, because only `torch.autograd.grad` is ever called.

Threads may share a model: a loan is what they use in common, noted by the first that comes and put back when the last
has gone. Python may raise KeyboardInterrupt between any two steps, so

- a loan is written into the ledger before anything is changed, and struck out after everything is back;
- to put back is safe to repeat, and what an interrupt cut short is repeated at once;
- an end that was never reached, because the interrupt fell into its first step, is made up for by what is around it:
  whoever opens guards is `interruptible`;
- a loan knows its uses weakly. One whose end nobody made up for is known by its frame or its memory being gone. What it
  left is put back then; but where the model has lived on since, trains again or has learned, only our hooks go.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from pellucid.engine.hooks import Hooks
from pellucid.engine.notes import Notes
from pellucid.engine.randomness import Stream, set_apart
from pellucid.engine.shortcuts import borrow_shortcuts, take_shortcuts, takes_shortcuts

P = ParamSpec("P")
R = TypeVar("R")
_lock = threading.RLock()
_numbers = itertools.count()


class _Use:
    """One explanation's hold on its loans, for as long as its frame runs."""

    def __init__(self, frame: FrameType) -> None:
        self.thread, self.root, self.number = threading.get_ident(), _root(frame), next(_numbers)

    def lasts(self, stack: frozenset[int]) -> bool:
        """Whether it can still come to its end, seen from this thread's stack of frames."""
        return self.thread != threading.get_ident() or self.root in stack

    def holds(self, other: _Use) -> bool:
        """Whether another began inside of it."""
        return (other.thread, other.root) == (self.thread, self.root) and other.number > self.number


def _root(frame: FrameType) -> int:
    """The frame that a use cannot outlast: where the outermost of our own functions runs, or who called it."""
    found, at = frame, frame.f_back
    while at is not None:
        if str(at.f_globals.get("__name__", "")).startswith("pellucid."):
            found = at
        at = at.f_back
    while found.f_back is not None and _opens(found):
        found = found.f_back
    return id(found)


def _opens(frame: FrameType) -> bool:
    """Whether a function ends or rests while what it has opened stays open."""
    code = frame.f_code
    return code.co_name in ("__enter__", "enter_context") or bool(code.co_flags & inspect.CO_GENERATOR)


def _stack(frame: FrameType | None) -> Iterator[int]:
    while frame is not None:
        yield id(frame)
        frame = frame.f_back


class _Loan(ABC):
    """What several uses share."""

    def __init__(self) -> None:
        self.uses: list[weakref.ref[_Use]] = []

    def join(self, use: _Use) -> None:
        self.uses.append(weakref.ref(use, _died))

    def leave(self, gone: Callable[[_Use], bool]) -> bool:
        """Strike out the uses that are gone; whether none is left."""
        self.uses = [ref for ref in self.uses if (use := ref()) is not None and not gone(use)]
        return not self.uses

    @abstractmethod
    def put_back(self, late: bool) -> None:
        """Put back what was noted; `late` where the work that noted it was broken off."""


class _ProcessLoan(_Loan):
    """The random numbers, and an eager stance for compiled submodules, because hooks never fire in compiled code."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[Hashable, Stream] = {}
        self.restores: dict[Hashable, Callable[[], object]] = {}

    def borrow(self, modules: Sequence[nn.Module], devices: set[torch.device]) -> None:
        set_apart(self.streams, devices)
        borrow_shortcuts(self.restores)
        if "stance" not in self.restores and any(map(_is_compiled, modules)):
            from torch._dynamo import eval_frame

            before = eval_frame._stance
            self.restores["stance"] = partial(eval_frame._set_stance, before)
            torch.compiler.set_stance("force_eager")
        if "cudnn" not in self.restores and _recurrent(modules, devices):
            enabled = torch.backends.cudnn.enabled
            self.restores["cudnn"] = partial(setattr, torch.backends.cudnn, "enabled", enabled)

    def put_back(self, late: bool) -> None:
        for name in list(self.streams):
            self.streams[name].put_back(late)
            del self.streams[name]
        for key in list(self.restores):
            self.restores[key]()
            del self.restores[key]


class _ModelLoan(_Loan):
    """What a model holds. Models that share a module share a loan."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = Notes()

    def borrow(self, modules: Sequence[nn.Module]) -> None:
        """Notes on what is not noted yet, then evaluation mode."""
        others = [loan.notes for loan in _models if loan is not self]
        for module in modules:
            if id(module) not in self.notes.seen:
                self.notes.add(module, others)
        self.notes.evaluate(modules)

    def put_back(self, late: bool) -> None:
        if late and self.notes.outlived():
            self.notes.put_back_hooks()
        else:
            self.notes.put_back()
        if self in _models:
            _models.remove(self)


_process = _ProcessLoan()
_models: list[_ModelLoan] = []


def _loan_of(modules: Sequence[nn.Module]) -> _ModelLoan:
    """The one loan of all that hold one of these modules."""
    found = [loan for loan in _models if any(id(module) in loan.notes.seen for module in modules)]
    loan = found[0] if found else _ModelLoan()
    for other in found[1:]:
        loan.notes.absorb(other.notes)
        loan.uses += other.uses
        _models.remove(other)
    return loan


def _settle(gone: Callable[[_Use], bool], late: bool) -> None:
    """Put back every loan that has no use any more."""
    for loan in (*_models, _process):
        if loan.leave(gone):
            loan.put_back(late)


def _died(_ref: weakref.ref[_Use]) -> None:
    """A use was dropped without its end; if this thread has the ledger open, who opens it next sees to it."""
    if not _lock._is_owned():  # type: ignore[attr-defined]
        with _lock:
            _settle(lambda _use: False, late=True)


def _is_compiled(module: nn.Module) -> bool:
    own = vars(module)
    return own.get("_compiled_call_impl") is not None or "_orig_mod" in own.get("_modules", own)


def _recurrent(modules: Sequence[nn.Module], devices: set[torch.device]) -> list[nn.Module]:
    on_cuda = any(device.type == "cuda" for device in devices)
    return [m for m in modules if isinstance(m, nn.RNNBase)] if on_cuda else []


@contextmanager
def _differentiable_recurrence(module: nn.Module, device: torch.device) -> Iterator[None]:
    """cuDNN off around recurrent layers alone, on CUDA, while a graph is recorded; convolutions keep it.

    Its kernels keep what a backward pass needs in training mode only, and evaluation mode must not be left.
    """
    switched = ExitStack()

    def before(_module: nn.Module, _args: Any, _kwargs: Any) -> None:
        if torch.is_grad_enabled():
            switched.enter_context(torch.backends.cudnn.flags(enabled=False))

    def after(_module: nn.Module, _args: Any, _output: Any) -> None:
        switched.close()

    with switched, Hooks() as hooks:
        for layer in _recurrent(list(module.modules()), {device}):
            hooks.before(layer, before)
            hooks.behind(layer, after, always=True)
        yield


class leave_no_trace:
    """Everything that runs a user's model runs inside this context.

    Evaluation mode, eager, autograd on; these, what the model holds and the global random numbers are put back on the
    way out, whatever happened inside.

    Args:
        module: the model.

    Raises:
        ModelError: on entry, for a lazy module that has seen no input yet.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._use: _Use | None = None

    def __enter__(self) -> leave_no_trace:
        self._modes = torch.is_grad_enabled(), takes_shortcuts()
        self._inference: Any = torch._C._InferenceMode(False) if torch.is_inference_mode_enabled() else None
        self._recurrence: Any = None
        self._use = _Use(sys._getframe())
        try:
            self._begin(self._use)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self, use: _Use) -> None:
        if self._inference is not None:
            self._inference.__enter__()
        torch._C._set_grad_enabled(True)
        take_shortcuts(on=False)
        modules = list(self.module.modules())
        devices = {p.device for m in modules for p in m._parameters.values() if p is not None}
        stack = frozenset(_stack(sys._getframe()))
        self._reach = modules, devices
        with _lock:
            _settle(lambda other: not other.lasts(stack), late=True)
            _process.join(use)
            _process.borrow(modules, devices)
            loan = _loan_of(modules)
            loan.join(use)
            if loan not in _models:
                _models.append(loan)
            loan.borrow(modules)
        if _recurrent(modules, devices):
            self._recurrence = _differentiable_recurrence(self.module, next(iter(devices)))
            self._recurrence.__enter__()

    def renew(self) -> None:
        """Put everything back and begin again, as if the context had been left and entered.

        What the model held is known, so it is not noted a second time, which is most of what a guard costs. Where
        somebody else uses the model too, nothing is put back, as nothing would have been.
        """
        modules, devices = self._reach
        with _lock:
            loan = _loan_of(modules)
            if len(loan.uses) == 1:
                loan.notes.put_back()
                loan.borrow(modules)
            if len(_process.uses) == 1:
                _process.put_back(late=False)
                _process.borrow(modules, devices)

    def __exit__(self, *error: Any) -> None:
        try:
            self._end(*error)
        finally:
            self._end(*error)  # does nothing, unless the first was interrupted

    def _end(self, *error: Any) -> None:
        use = self._use
        if use is None:
            return
        if self._recurrence is not None:
            self._recurrence.__exit__(None, None, None)
        interrupted = bool(error) and isinstance(error[1], KeyboardInterrupt | SystemExit)
        with _lock:  # an interrupt that has come here has gone through all that began inside
            _settle(lambda other: other is use or (interrupted and use.holds(other)), late=False)
        if self._inference is not None:
            self._inference.__exit__(None, None, None)
        torch._C._set_grad_enabled(self._modes[0])
        take_shortcuts(self._modes[1])
        self._use = None


def interruptible(function: Callable[P, R]) -> Callable[P, R]:
    """A function that nothing it has opened outlasts: what comes out of it has ended every guard inside of it.

    A guard alone cannot see to that. Python may raise KeyboardInterrupt before the first line of its `__exit__`.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        began, thread = next(_numbers), threading.get_ident()
        try:
            return function(*args, **kwargs)
        except BaseException:
            with _lock:
                _settle(lambda use: use.thread == thread and use.number > began, late=False)
            raise

    return run
