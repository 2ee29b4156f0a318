"""The one guard around a user's model: every pass, forward or backward, is made in here.

What a model raises becomes a `ModelError` that tells the cause, the place and a cure (`pellucid.engine.misfit`). Errors
of Pellucid's own, and whatever is no `Exception` (an interrupt, the end of a pass), go through as they are.

A model may take batches of one size only: a program exported for it, or a network that keeps one patient's values. It
is recognised where a batch fails, an input alone does not, and the batch fails again; from then on its batches are run
in parts of that size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from pellucid.engine.batching import is_out_of_memory
from pellucid.engine.misfit import backward_sentence, forward_sentence, without_values
from pellucid.errors import ModelError, OutOfMemoryError, PellucidError

Pass = Callable[[Tensor], Any]

_sizes: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class _PassError(ModelError):
    """What a model raised; other errors are not the model's."""


def guarded(network: nn.Module, inputs: Tensor) -> AbstractContextManager[None]:
    """What a forward pass raises as one sentence.

    Raises:
        ModelError: the network failed.
        OutOfMemoryError: memory ran out.
    """
    return _told(lambda error: forward_sentence(network, inputs, error), _PassError)


def guarded_backward() -> AbstractContextManager[None]:
    """What a backward pass raises as one sentence.

    Raises:
        ModelError: the network failed.
        OutOfMemoryError: memory ran out.
    """
    return _told(backward_sentence, ModelError)


@contextmanager
def _told(sentence: Callable[[Exception], str], kind: type[ModelError]) -> Iterator[None]:
    try:
        yield
    except PellucidError:
        raise
    except Exception as error:
        raise (OutOfMemoryError if is_out_of_memory(error) else kind)(sentence(error)) from error


def run_model(
    module: nn.Module,
    inputs: Tensor,
    one_pass: Pass | None = None,
    *,
    after: Callable[[], None] | None = None,
    whole: bool = False,
) -> Any:
    """A model's output for a batch.

    Args:
        module: the model.
        inputs: `(N, C, *space)`; the model may write to them.
        one_pass: makes the pass, if it is not a plain call.
        after: is called behind each part of a batch that is run in parts.
        whole: the batch must stay one, since somebody else changes activations on the way.

    Raises:
        ModelError: the model failed.
    """
    call = one_pass or module
    size, version = batch_size(module), _version(inputs)
    if whole or not size:
        try:
            with guarded(module, inputs):
                return call(inputs)
        except _PassError:
            if whole or _version(inputs) != version or not _takes_one_size(module, inputs, call):
                raise
    return _in_parts(call, inputs, batch_size(module), after, module)


def require_values(module: nn.Module) -> None:
    """Raises ModelError for weights on the meta device, which hold no values."""
    empty = without_values(module)
    if empty is not None:
        raise ModelError(empty)


def batch_size(module: nn.Module) -> int:
    """The only number of inputs that a model takes at a time, as far as it is known; 0: it takes any."""
    return _sizes.get(module, 0)


def batch_note(module: nn.Module) -> list[str]:
    """What the reader must know of a model's batches."""
    size = batch_size(module)
    if not size:
        return []
    how = "one by one" if size == 1 else f"{size} at a time"
    return [f"The model takes batches of {size} only, so its inputs were run {how}."]


def _takes_one_size(module: nn.Module, inputs: Tensor, call: Pass) -> bool:
    """Whether a batch that has failed can be run in parts; the size is then remembered."""
    declared = _declared(module)
    size = declared or 1
    if size == len(inputs) or module in _sizes:
        return False
    try:
        with guarded(module, inputs):
            call(_padded(inputs[:size].clone(), size))
        if not declared:
            call(inputs)  # outside of the guard: whatever it raises, it has failed twice
            return False
    except _PassError:
        return False
    except Exception as error:
        if isinstance(error, PellucidError) or is_out_of_memory(error):
            raise
    _sizes[module] = size
    return True


def _declared(module: nn.Module) -> int:
    """The batch size that an exported program was made for; 0 where it is free, or the model is no such program."""
    graph = getattr(module, "graph", None)  # of unflattened programs too
    given = next((n for n in graph.nodes if n.op == "placeholder"), None) if isinstance(graph, fx.Graph) else None
    value = None if given is None else given.meta.get("val")
    first = value.shape[0] if isinstance(value, Tensor) and value.ndim else 0
    return first if type(first) is int else 0


def _in_parts(call: Pass, inputs: Tensor, size: int, after: Callable[[], None] | None, module: nn.Module) -> Any:
    outputs = []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        with guarded(module, part):
            outputs.append(call(_padded(part, size)))
        if after is not None:
            after()
    return joined(outputs, len(inputs), size)


def _padded(part: Tensor, size: int) -> Tensor:
    return torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])]) if len(part) < size else part


def joined(parts: Sequence[Any], count: int, size: int) -> Any:
    """What parts of `size` inputs gave, as a batch of `count` would have given it; the last part may be padded."""

    def join(*values: Any) -> Any:
        if not isinstance(values[0], Tensor) or not values[0].ndim:
            return values[0]
        whole, rows = torch.cat(values), len(parts) * size
        return whole[: len(whole) // rows * count] if rows != count and len(whole) % rows == 0 else whole

    return tree_map(join, *parts)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
