"""A TorchScript network whose layers can be read: its graphs run step by step, each part a module that hooks hear.

Medical networks are often handed on as TorchScript alone, which runs no hooks. A loaded file still holds the graph of
each part, and the operations in it are torch's own; run one by one they compute the same, on the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ModelError


@dataclass(frozen=True)
class _Node:
    """One node of a graph.

    Attributes:
        run: takes the values of the node's inputs, and gives those of its outputs.
        inputs, outputs: names of values.
        last: the inputs that no later step needs.
    """

    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last: tuple[str, ...]


@dataclass(frozen=True)
class _Program:
    """A graph.

    Attributes:
        takes: names of its inputs, the module itself first. gives: of its output. steps: in order.
    """

    takes: tuple[str, ...]
    gives: str
    steps: tuple[_Node, ...]


class Unscripted(nn.Module):
    """The same network, part by part, with names, weights (shared, not copied) and answers of the script.

    A part whose graph branches or loops stays a script, and its inner layers stay closed.

    Args:
        module: traced, scripted, or loaded by `torch.jit.load`.

    Raises:
        ModelError: no TorchScript module, or one whose outermost graph branches or loops.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not isinstance(module, torch.jit.ScriptModule):
            raise ModelError(f"Only a TorchScript module is unscripted, not {type(module).__name__}.")
        programs = _programs(module)
        if not programs:
            raise ModelError("This TorchScript branches or loops, so its layers stay closed: use the original module.")
        self.training = module.training
        self.original_name = str(module.original_name)
        self._programs = programs
        for name, weights in module.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(weights, weights.requires_grad))  # on the same storage
        for name, values in module.named_buffers(recurse=False):
            self.register_buffer(name, values)
        for name, part in module.named_children():
            if not isinstance(part, torch.jit.ScriptModule) or _forwards(part):  # else it is never run
                self.add_module(name, Unscripted(part) if _programs(part) else part)

    def forward(self, *args: Any, method: str = "forward") -> Any:
        """What the script answers; a trace calls a part that it uses again by `forward1`, `forward2` ..."""
        program = self._programs[method]
        if len(args) != len(program.takes) - 1:
            raise ModelError(f"This network takes {len(program.takes) - 1} inputs, not {len(args)}.")
        known: dict[str, Any] = dict(zip(program.takes, (self, *args), strict=True))
        for step in program.steps:
            found = step.run(*(known[name] for name in step.inputs))
            for name in step.last:
                del known[name]
            known.update(zip(step.outputs, found if len(step.outputs) != 1 else (found,), strict=True))
        return known[program.gives]

    def extra_repr(self) -> str:
        """The class that it was scripted from."""
        return self.original_name


@dataclass(frozen=True)
class _Constant:
    value: Any

    def __call__(self) -> Any:
        return self.value


@dataclass(frozen=True)
class _Attribute:
    name: str

    def __call__(self, owner: nn.Module) -> Any:
        return getattr(owner, self.name, None)  # a part that is never called may be missing


@dataclass(frozen=True)
class _Operation:
    overload: Any
    named: tuple[str, ...]  # the last of its arguments, which are given by name

    def __call__(self, *values: Any) -> Any:
        count = len(values) - len(self.named)
        return self.overload(*values[:count], **dict(zip(self.named, values[count:], strict=True)))


@dataclass(frozen=True)
class _Call:
    method: str

    def __call__(self, part: nn.Module, *args: Any) -> Any:
        if isinstance(part, Unscripted):
            return part(*args, method=self.method)
        return part(*args) if self.method == "forward" else getattr(part, self.method)(*args)


def _listed(*values: Any) -> list[Any]:
    return list(values)


def _grouped(*values: Any) -> tuple[Any, ...]:
    return values


def _same(values: Sequence[Any]) -> Any:
    return values if len(values) != 1 else values[0]


_PLAIN: dict[str, Callable[..., Any]] = {
    "prim::ListConstruct": _listed,
    "prim::TupleConstruct": _grouped,
    "prim::TupleUnpack": _same,
    "prim::ListUnpack": _same,
}


def _forwards(module: torch.jit.ScriptModule) -> list[str]:
    """The methods that it is run by; a shared part has several, or none."""
    return [name for name in module._c._method_names() if name.startswith("forward")]


def _programs(module: nn.Module) -> dict[str, _Program]:
    """What a script does, method by method; empty where one of them branches, or it is no script."""
    if not isinstance(module, torch.jit.ScriptModule):
        return {}
    found = {name: _program(module._c._get_method(name).graph) for name in _forwards(module)}
    return {} if None in found.values() else {name: program for name, program in found.items() if program is not None}


def _program(graph: Any) -> _Program | None:
    gives = [value.debugName() for value in graph.outputs()]
    if len(gives) != 1:
        return None
    found: list[_Node] = []
    needed = set(gives)
    for node in reversed(list(graph.nodes())):
        run = _meaning(node)
        if run is None:
            return None
        inputs = tuple(value.debugName() for value in node.inputs())
        last = tuple(name for name in dict.fromkeys(inputs) if name not in needed)
        needed.update(inputs)
        found.append(_Node(run, inputs, tuple(value.debugName() for value in node.outputs()), last))
    return _Program(tuple(value.debugName() for value in graph.inputs()), gives[0], tuple(found[::-1]))


def _meaning(node: Any) -> Callable[..., Any] | None:
    """What a node does; None for what is no plain operation."""
    kind: str = node.kind()
    if kind == "prim::Constant":
        value = node.output().toIValue()
        return _Constant(value.detach() if isinstance(value, Tensor) else value)
    if kind == "prim::GetAttr":
        return _Attribute(node.s("name"))
    if kind == "prim::CallMethod":
        return _Call(node.s("name"))
    if kind in _PLAIN:
        return _PLAIN[kind]
    space, _, name = kind.partition("::")
    if list(node.blocks()) or not node.schema().startswith(kind):  # it has no schema
        return None
    schema: Any = torch._C.parse_schema(node.schema())
    packet = getattr(getattr(torch.ops, space), name, None)
    overload = getattr(packet, schema.overload_name or "default", None)
    if overload is None:
        return None
    return _Operation(overload, tuple(a.name for a in schema.arguments if a.kwarg_only))
