"""The one owner of hooks on a user's modules: they hear one thread, go together, and keep nobody alive."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakMethod

from torch import nn
from torch.utils.hooks import RemovableHandle

Before = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""(module, positional arguments, named ones) -> None, or the pair that the module is given instead."""

Behind = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""(module, positional arguments, answer) -> None, or what stands in the answer's place."""

Do = TypeVar("Do", bound=Callable[..., Any])


class End(BaseException):
    """Ends a forward pass that has shown what was wanted; not an `Exception`, so no model swallows it."""


class Hooks:
    """Hooks that hear the thread which made this object, and are removed together.

    A model may be shared between threads: what another thread runs meanwhile is none of a hook's business. A method is
    held without its object, so that the model does not keep what an interrupt has cut short (see `trace`): when the
    object is gone, the hook is deaf.

    Example:
        with Hooks() as hooks:
            hooks.behind(layer, lambda module, args, output: seen.append(output))
            model(x)
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._handles: list[RemovableHandle] = []
        self._deaf = False

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *_error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Remove all hooks; new ones may follow."""
        while self._handles:
            self._handles[-1].remove()
            self._handles.pop()  # only now: an interrupt in between removes it twice, which does no harm

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no hook hears anything: the model is run for something else."""
        before, self._deaf = self._deaf, True
        try:
            yield
        finally:
            self._deaf = before

    def before(self, module: nn.Module, do: Before) -> None:
        """Call `do` in front of each run of the module."""
        lasting = _lasting(do)

        # Another thread's pass may come between the two steps in which torch registers a hook, and bring no `kwargs`.
        def hook(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            heard = lasting() if self._hears() else None
            return None if heard is None else heard(part, args, kwargs or {})

        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def behind(self, module: nn.Module, do: Behind, *, first: bool = False, always: bool = False) -> None:
        """Call `do` behind each run of the module.

        Args:
            module: any part of a model.
            do: see `Behind`.
            first: in front of the hooks that are there already.
            always: also where the module raised.
        """
        lasting = _lasting(do)

        def hook(part: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            heard = lasting() if self._hears() else None
            return None if heard is None else heard(part, args, output)

        self._handles.append(module.register_forward_hook(hook, prepend=first, always_call=always))

    def _hears(self) -> bool:
        return not self._deaf and threading.get_ident() == self._thread


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks hang on a module or a part of it, whoever set them."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def takes_hooks(module: nn.Module) -> bool:
    """Whether a module takes hooks at all: what TorchScript compiled, or loaded from a file, refuses them."""
    return type(module).register_forward_hook is nn.Module.register_forward_hook


def _lasting(do: Do) -> Callable[[], Do | None]:
    """What gives `do`, or None when the object whose method it is has gone."""
    return WeakMethod(do) if inspect.ismethod(do) else lambda: do
