"""What functions are called, and each call in the one spelling that rules know: by name, out of place, opened."""

from __future__ import annotations

import inspect
import re
import types
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.functions import Function


def words(text: str) -> frozenset[str]:
    """The words of a text, as names of functions."""
    return frozenset(re.findall(r"\w+", text))


_OPERATORS = {
    "iadd": "add", "radd": "add", "isub": "sub", "imul": "mul", "rmul": "mul", "itruediv": "div", "truediv": "div",
    "true_divide": "div", "divide": "div", "multiply": "mul", "imatmul": "matmul", "mm": "matmul", "bmm": "matmul",
    "mv": "matmul", "concatenate": "cat", "clip": "clamp", "special_softmax": "softmax",
}  # fmt: skip


@cache
def name_of(function: Function) -> tuple[str, bool]:
    """What a function is called in tables, and whether its name says that it writes to its input.

    `Tensor.relu_`, `functional.relu`, `torch.ops.aten.relu.default` are all `relu`.
    """
    name = getattr(function, "__name__", "").split(".")[0]
    if name.startswith("__"):
        plain = name[2:-2]
        return _OPERATORS.get(plain, plain), plain[:1] == "i" and plain in _OPERATORS
    written = name.endswith("_")
    name = name.removesuffix("_").removeprefix("_")
    return _OPERATORS.get(name, name), written


def spelled(
    function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Function, tuple[Any, ...], dict[str, Any]]:
    """A call in the one spelling that rules know: `x.where(on, other)` is `torch.where(on, x, other)`, and
    `x[off] = 0`, with a mask of the shape of `x`, is `x.masked_fill_(off, 0)`."""
    if function is Tensor.where and len(args) == 3:
        return torch.where, (args[1], args[0], args[2]), kwargs
    if function is Tensor.__setitem__:
        x, off, value = args
        masked = isinstance(off, Tensor) and off.dtype == torch.bool and off.shape == x.shape
        if masked and isinstance(value, int | float):
            return Tensor.masked_fill_, args, kwargs
    return function, args, kwargs


@cache
def _signature(function: Function) -> inspect.Signature | None:
    """Of a function in Python; one that wraps a built-in, as `Tensor.__pow__` does, tells none."""
    try:
        return inspect.signature(function) if isinstance(function, types.FunctionType) else None
    except ValueError:
        return None


_OUT_OF_PLACE = (torch, torch._C._nn, Tensor)


def without_writing(
    function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Function, tuple[Any, ...], dict[str, Any]] | None:
    """The same call without writing to its input; None for a call that does not write."""
    name, written = name_of(function)
    signature = _signature(function)
    if signature is not None and "inplace" in signature.parameters:
        bound = signature.bind(*args, **kwargs)
        if not bound.arguments.get("inplace"):
            return None
        bound.arguments["inplace"] = False
        return function, bound.args, bound.kwargs
    if not written:
        return None
    homes = (torch.ops.aten,) if isinstance(function, torch._ops.OpOverload) else _OUT_OF_PLACE
    found = next((getattr(home, name) for home in homes if hasattr(home, name)), None)
    return None if found is None else (found, args, kwargs)


OPENED = frozenset(
    {
        nn.functional.multi_head_attention_forward,
        nn.functional.normalize,
        nn.functional.softsign,
        nn.functional.local_response_norm,
    }
)
"""Functions of torch whose parts rules know, and they do not."""
_BLIND = dict.fromkeys(
    ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), lambda *_a, **_k: False
)


@cache
def opened(function: types.FunctionType) -> Function:
    """A function of torch written in Python, the same code, but what it is made of can be overridden instead of it."""
    return types.FunctionType(
        function.__code__, {**function.__globals__, **_BLIND}, function.__name__, function.__defaults__
    )
