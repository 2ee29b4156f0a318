"""Notes of what a model holds, to put it back all or nothing, whatever its own forward pass has done to it.

A forward pass may note "hooks installed" in a flag and install hooks; to put back the one and keep the other would
install them again at each pass. So everything is noted that a module holds: attributes, hooks, submodules, parameters,
buffers, and what is inside the lists, dicts, sets, queues and arrays among them. Other objects are the model's own
affair. Containers and tensors are put back in place, since others may hold them too.

Values of parameters are not copied: a parameter that is replaced, or given other data, is put back, and one that a pass
writes to element by element keeps what was written.
"""

from __future__ import annotations

import queue
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pellucid.engine.misfit import LAZY
from pellucid.errors import ModelError

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device, torch.Size}
    | {FunctionType, BuiltinFunctionType, MethodType}
)  # what holds nothing that a pass could change


_TABLES = frozenset({dict, OrderedDict, set})


class Notes:
    """What modules hold; to add to them twice adds nothing, and to put back twice puts back once."""

    def __init__(self) -> None:
        self.seen: dict[int, object] = {}  # by identity, and kept alive so that it stays theirs
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._empty: list[dict[Any, Any] | set[Any]] = []  # as most tables of hooks are: noted without a copy
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._containers: list[tuple[Any, Any, Callable[[Any, Any], None]]] = []
        self._parameters: list[tuple[nn.Parameter, Tensor, int, int, bool, Tensor | None]] = []
        self._tensors: list[tuple[Tensor, Tensor, int, int, Tensor]] = []
        self._trained: dict[int, nn.Module] = {}

    def add(self, module: nn.Module, elsewhere: Sequence[Notes] = ()) -> None:
        """Note what a module holds, but for what stands in other notes.

        Raises:
            ModelError: a lazy module, which holds nothing yet.
        """
        seen, todo = self.seen, [module]
        while todo:
            value: Any = todo.pop()
            key = id(value)
            if key in seen or (elsewhere and any(key in notes.seen for notes in elsewhere)):
                continue
            for item in self._note(value):
                kind = type(item)
                if kind in _ATOMS:
                    continue
                if kind not in _TABLES or item or elsewhere:
                    todo.append(item)
                elif id(item) not in seen:
                    self._empty.append(item)
                    seen[id(item)] = item
            seen[key] = value  # last: what an interrupt cut short is noted again

    def _note(self, value: Any) -> Iterable[Any]:
        """Note one object; returns what it holds."""
        if isinstance(value, dict):
            entries = dict(value)
            self._dicts.append((value, entries))
            return entries.values()
        if isinstance(value, Tensor):
            self._note_tensor(value)
            return ()
        if isinstance(value, nn.Module):
            held = self._note_attributes(value)
            tables = _tables(value)
            return [*held, *(item for table in tables for item in table.values())] if tables else held
        if isinstance(value, list | deque):
            items = list(value)
            self._containers.append((value, items, _put_back_list))
            return _compound(items)
        if isinstance(value, set):
            self._containers.append((value, set(value), _put_back_set))
            return ()
        if isinstance(value, tuple):
            return _compound(value)
        if isinstance(value, np.ndarray):
            if value.flags.writeable:
                self._containers.append((value, value.copy(), _put_back_array))
            return ()
        return self._note_attributes(value) if isinstance(value, queue.Queue | SimpleNamespace) else ()

    def _note_attributes(self, value: Any) -> Iterable[Any]:
        own = vars(value)
        kept: dict[str, Any] = own.copy()
        self._attributes.append((own, kept))
        return kept.values()

    def _note_tensor(self, tensor: Tensor) -> None:
        if is_lazy(tensor):
            raise ModelError(LAZY)
        try:
            data, place = tensor.detach(), tensor.data_ptr()
            if type(tensor) is nn.Parameter or isinstance(tensor, nn.Parameter):  # the former is quicker
                noted = tensor, data, place, _version(tensor), tensor.requires_grad, tensor.grad
                self._parameters.append(noted)
            else:
                self._tensors.append((tensor, data, place, _version(tensor), data.clone()))
        except (RuntimeError, NotImplementedError):
            pass  # of a kind that has no data of its own to be written to

    def evaluate(self, modules: Iterable[nn.Module]) -> None:
        """Evaluation mode, once all is noted; a module that is in it already is not written to."""
        for module in modules:
            if module.training:
                own = vars(module)
                if "training" in own:
                    own["training"] = False  # past a `__setattr__` that hands it on to another module
                if module.training:
                    self._trained[id(module)] = module
                    module.training = False

    def absorb(self, other: Notes) -> None:
        """Take over what stands in other notes."""
        self._attributes += other._attributes
        self._empty += other._empty
        self._dicts += other._dicts
        self._containers += other._containers
        self._parameters += other._parameters
        self._tensors += other._tensors
        self._trained |= other._trained
        self.seen.update(other.seen)

    def put_back(self) -> None:
        """Let all modules hold again what they held."""
        for own, kept in self._attributes:
            _put_back_attributes(own, kept)
        for table in self._empty:
            if table:
                table.clear()
        for table, entries in self._dicts:
            _put_back_dict(table, entries)
        for container, content, put_back in self._containers:
            put_back(container, content)
        for module in self._trained.values():
            if not module.training:
                module.training = True
        for noted_parameter in self._parameters:
            _put_back_parameter(*noted_parameter)
        for noted_tensor in self._tensors:
            with suppress(RuntimeError):
                _put_back_tensor(*noted_tensor)
        elsewhere = [(t.data, value) for t, _, _, _, value in self._tensors if t.device.type != "cpu"]
        if elsewhere:  # written at one go, since to compare each there would wait for the device each time
            with suppress(RuntimeError), torch.no_grad():
                torch._foreach_copy_([data for data, _ in elsewhere], [value for _, value in elsewhere])

    def put_back_hooks(self) -> None:
        """Remove our own hooks alone."""
        empty: list[tuple[dict[Any, Any], dict[Any, Any]]] = [(t, {}) for t in self._empty if isinstance(t, dict)]
        for table, entries in empty + self._dicts:
            for key in table.keys() - entries.keys():
                if str(getattr(table[key], "__module__", "")).startswith("pellucid."):
                    del table[key]

    def outlived(self) -> bool:
        """Whether the model has lived on since: it trains again, or has learned."""
        return any(kept.get("training") and own.get("training") for own, kept in self._attributes) or any(
            _moved(parameter, data, place) or _version(parameter) != version
            for parameter, data, place, version, _, _ in self._parameters
        )


def _tables(module: nn.Module) -> list[Any]:
    """Tables of a module that are no dicts: those of TorchScript."""
    tables = map(vars(module).get, ("_parameters", "_buffers", "_modules"))
    return [table for table in tables if table is not None and not isinstance(table, dict)]


def _compound(items: Sequence[Any]) -> Sequence[Any]:
    return () if _ATOMS.issuperset(map(type, items)) else items


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _moved(tensor: Tensor, data: Tensor, place: int) -> bool:
    return tensor.data_ptr() != place or tensor.shape != data.shape


def _put_back_attributes(own: dict[str, Any], kept: dict[str, Any]) -> None:
    if not (len(own) == len(kept) and all(map(is_, own.values(), kept.values()))):
        own.update(kept)
        for name in own.keys() - kept.keys():
            del own[name]


def _put_back_parameter(
    parameter: nn.Parameter, data: Tensor, place: int, _version: int, needs: bool, grad: Tensor | None
) -> None:
    if _moved(parameter, data, place):
        parameter.data = data
    if parameter.requires_grad != needs:
        parameter.requires_grad_(needs)
    if parameter.grad is not grad:
        parameter.grad = grad


def _put_back_tensor(tensor: Tensor, data: Tensor, place: int, version: int, value: Tensor) -> None:
    moved = _moved(tensor, data, place)
    written = version >= 0 and tensor._version != version
    # Some kernels, such as that of batch normalisation, write without counting it.
    if moved or written or (tensor.device.type == "cpu" and not torch.equal(tensor, value)):
        with torch.inference_mode(version < 0), torch.no_grad():
            if moved:
                tensor.data = data
            tensor.copy_(value)


def _put_back_dict(own: dict[Any, Any], kept: dict[Any, Any]) -> None:
    if len(own) == len(kept) and all(map(is_, own, kept)) and all(map(is_, own.values(), kept.values())):
        return
    kind = OrderedDict if isinstance(own, OrderedDict) else dict
    kind.clear(own)
    kind.update(own, kept)


def _put_back_list(own: Any, kept: list[Any]) -> None:
    if not (len(own) == len(kept) and all(map(is_, own, kept))):
        own.clear()
        own.extend(kept)


def _put_back_set(own: set[Any], kept: set[Any]) -> None:
    if own != kept:
        own.clear()
        own.update(kept)


def _put_back_array(own: Any, kept: Any) -> None:
    if own.tobytes() != kept.tobytes():
        own[...] = kept
