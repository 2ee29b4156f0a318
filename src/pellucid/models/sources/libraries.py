"""timm and torchvision, imported without torch's compiler.

Both import it for what they do only when asked to compile: torchvision (0.29) to ask of a device whether it can be
compiled for, timm (1.0) to leave a method out of what is compiled. It brings sympy and half of `torch.distributed`, and
takes more than all else that is imported, 1.4 s of processor time and 150 MB. So while they are imported, a stand-in
has those two functions, which ask the compiler once they are called. Whoever asks anything else of it gets itself.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER, _UTILITIES = "torch._dynamo", "torch._dynamo.utils"

Called = Callable[..., Any]


def timm() -> ModuleType:
    """The module."""
    with compiler_deferred():
        return import_module("timm")


def torchvision() -> ModuleType:
    """The module."""
    with compiler_deferred():
        return import_module("torchvision")


@contextmanager
def compiler_deferred() -> Iterator[None]:
    """Inside, what is imported does without torch's compiler if it can; one that is there already is left alone."""
    if _COMPILER in sys.modules or _UTILITIES in sys.modules:
        yield
        return
    sys.modules[_COMPILER] = _StandIn(_COMPILER, disable=_disable)
    sys.modules[_UTILITIES] = _StandIn(_UTILITIES, is_compile_supported=_is_compile_supported)
    try:
        yield
    finally:
        _withdraw()


class _StandIn(ModuleType):
    """A module with some parts of its own, until another is asked of it."""

    def __init__(self, name: str, **parts: Called) -> None:
        super().__init__(name)
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:
        package = name == "__path__" and self.__name__ == _COMPILER
        if name.startswith("__") and not package:  # asked of every module, by imports or in search of one
            raise AttributeError(name)
        _withdraw()
        return getattr(import_module(self.__name__), name)


def _withdraw() -> None:
    for name in (_COMPILER, _UTILITIES):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(device: str) -> Any:
    return import_module(_UTILITIES).is_compile_supported(device)


def _disable(function: Any = None, *args: Any, **options: Any) -> Any:
    """`torch._dynamo.disable`, of a plain function once that is called."""
    if isinstance(function, type) or not callable(function):
        _withdraw()
        return import_module(_COMPILER).disable(function, *args, **options)

    @functools.cache
    def disabled() -> Called:
        made: Called = import_module(_COMPILER).disable(function, *args, **options)
        return made

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        return disabled()(*given, **named)

    return called
