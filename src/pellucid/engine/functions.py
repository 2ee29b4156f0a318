"""The one owner of function overrides: a table says what answers in the place of torch's functions, for a while.

A function is met in this thread, whoever calls it: a module, a model's own code, in place or not. Nothing is patched,
so nothing has to be put back. Inside of a replacement the table is off: what it calls is torch's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import torch
from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]
"""What torch hands to a mode: `torch.relu`, `Tensor.add_`, `torch.ops.aten.relu.default`, ..."""

Replacement = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]
"""(the function called, positional arguments, named ones) -> what is answered in the call's place."""


class Replacements(Protocol):
    """What has a replacement for some functions: a dict, or what works one out."""

    def get(self, function: Function, /) -> Replacement | None:
        """The replacement of a function; None: the function itself answers."""


class Functions(TorchFunctionMode):
    """While this is on, the functions of a table are answered by their replacements.

    Args:
        table: see `Replacements`.

    Attributes:
        met: how often each function of the table was called.

    Example:
        with Functions({torch.relu: lambda function, args, kwargs: args[0].clamp(min=0)}):
            model(x)
    """

    def __init__(self, table: Replacements | Mapping[Function, Replacement]) -> None:
        super().__init__()
        self._table = table
        self.met: Counter[Function] = Counter()

    def __enter__(self) -> Self:
        self._below = torch._C._len_torch_function_stack()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        # An interrupt in torch's own code, which takes a mode off for a moment, leaves it off.
        if torch._C._len_torch_function_stack() > self._below:
            super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The replacement's answer, or the function's own."""
        replacement = self._table.get(func)
        if replacement is None:
            return func(*args, **(kwargs or {}))
        self.met[func] += 1
        return replacement(func, args, kwargs or {})
