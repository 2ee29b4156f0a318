"""Play back what runs in front of a layer: noted in one pass, not computed again.

The network's code still runs from the input on, but in a twin: the containers on the way to the layer are copied, not
what they hold, and each module in front of the layer answers what it answered when it was noted. What is left to
compute is the tail, and whatever code stands between the modules. The user's modules are not written to.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pellucid.engine.capture import find_layer
from pellucid.engine.hooks import Hooks
from pellucid.engine.shells import HOOKS, shell


class Prefix:
    """The modules in front of a layer, and their answers to one input.

    Args:
        module: the network.
        layer: path of the layer; it must run once.
        watch: paths of layers whose own run is wanted, so that they cannot be played back.

    Example:
        with Prefix(module, "layer4") as prefix:
            module(x)  # with prefix.reached(output) called by a hook at the layer
        twin = prefix.twin()
        if twin is not None:
            twin(x)
    """

    def __init__(self, module: nn.Module, layer: str, watch: tuple[str, ...] = ()) -> None:
        self.module, self.target = module, find_layer(module, layer)
        self.repeat = 1  # rows that each answer is given for, if it was noted for one
        steps = layer.split(".")
        self._open = {module: None} | {module.get_submodule(".".join(steps[:k])): None for k in range(1, len(steps))}
        self._front = [m for container in list(self._open) for m in self._parts(container)]
        inside = [m for part in (*self._front, self.target) for m in part.modules()]
        watched = {find_layer(module, name) for name in watch} - {self.target, *self.target.modules()}
        # A module in two places would answer out of turn; one that is watched must run, if it runs in front.
        self._sound = len({*inside, *self._open}) == len(inside) + len(self._open)
        self._watched_parts = {part for part in self._front if watched & set(part.modules())}
        self._answers: dict[nn.Module, list[Any]] = {}
        self._given: dict[nn.Module, int] = {}
        self._hooks = Hooks()
        self._reached: list[Any] = []

    def _parts(self, container: nn.Module) -> list[nn.Module]:
        """The modules of a container that are not on the way; lists, which nobody calls, are opened."""
        found = []
        for child in container.children():
            if child is self.target or child in self._open:
                continue
            if isinstance(child, nn.ModuleList | nn.ModuleDict):
                self._open[child] = None
                found += self._parts(child)
            else:
                found.append(child)
        return found

    def __enter__(self) -> Prefix:
        if self._sound:
            for part in self._front:
                self._hooks.behind(part, self._note)
        return self

    def __exit__(self, *_error: Any) -> None:
        self._hooks.close()

    def _note(self, module: nn.Module, _args: Any, output: Any) -> None:
        if not self._reached:
            self._answers.setdefault(module, []).append(tree_map(_copied, output))  # it may be written to in place

    def reached(self, output: Any) -> None:
        """The layer has run, and answered this."""
        self._reached.append(tree_map(_copied, output))

    def twin(self) -> nn.Module | None:
        """The network with its front part played back; None where that is not sound."""
        if not self._sound or len(self._reached) != 1 or self._watched_parts & self._answers.keys():
            return None
        return self._copied(self.module)

    def rewind(self) -> None:
        """To be called before each run of the twin."""
        self._given.clear()

    def _copied(self, module: nn.Module) -> nn.Module:
        if module is self.target:
            return self._player(module, self._reached, hooks=True)
        if module in self._answers:
            return self._player(module, self._answers[module], hooks=False)  # noted behind its hooks
        if module not in self._open:
            return module
        twin = shell(module)
        vars(twin)["_modules"] = {n: None if m is None else self._copied(m) for n, m in module._modules.items()}
        return twin

    def _player(self, module: nn.Module, answers: list[Any], *, hooks: bool) -> nn.Module:
        def forward(*args: Any, **kwargs: Any) -> Any:
            turn = self._given.get(module, 0)
            self._given[module] = turn + 1
            return tree_map(self._row, answers[turn]) if turn < len(answers) else module(*args, **kwargs)

        player = shell(module)
        vars(player)["forward"] = forward
        if not hooks:
            vars(player).update({name: OrderedDict() for name in HOOKS})
        return player

    def _row(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or self.repeat == 1 or value.ndim == 0:
            return _copied(value)
        if len(value) != 1:
            raise ValueError("What stands in front of the layer is no batch of one.")
        return value.expand(self.repeat, *value.shape[1:])


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
