"""Players that are parts of the model: channels of a layer, and whole layers or blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, Cost, find_layer
from pellucid.engine.capture import first_tensor, replace_first_tensor
from pellucid.engine.progress import task
from pellucid.engine.tail import Tail
from pellucid.errors import LayerError, MethodError
from pellucid.heatmaps.base import Job
from pellucid.heatmaps.perturbation import freeze, score_of
from pellucid.importance.game import Game, Players
from pellucid.models.layers import Layer, best_layer, describe

Removal = Literal["zero", "mean", "resample"]


def removed(activation: Tensor, channel_axis: int, removal: str, seed: int) -> Tensor:
    """What stands in a channel's place when it is out, in the shape of `activation` `(N, ...)`.

    `zero`; `mean`: its mean over places; `resample`: its own values, places shuffled.
    """
    if removal == "zero":
        return torch.zeros_like(activation)
    moved = activation.movedim(channel_axis, 1)
    if removal == "mean":
        places = tuple(range(2, moved.ndim))
        return moved.mean(places, keepdim=True).expand_as(moved).movedim(1, channel_axis)
    if removal == "resample":
        flat = moved.flatten(2)
        order = torch.randperm(flat.shape[2], generator=torch.Generator().manual_seed(seed)).to(flat.device)
        return flat[..., order].reshape(moved.shape).movedim(1, channel_axis)
    raise MethodError(f"Parts of a model are removed by zero, mean or resample, not {removal!r}.")


def chosen_layer(job: Job, name: str | None) -> Layer:
    """The layer named, or the best one found."""
    if name is not None:
        return describe(job.module, job.inputs, name)
    target = job.targets[0]
    return best_layer(job.module, job.inputs, target.score, watch=target.layers, key=target.kind)


def channel_relevance(job: Job, layer: Layer) -> Tensor:
    """`(T, C)`: sum over places of `dy/dA A` at a layer, of one input, for each target."""
    with Capture(job.module, [layer.name], watch=job.watch) as capture:
        _, scores = capture.scored(job.inputs, lambda y, w: [t.score(y, w) for t in job.targets])
        A = layer.layout.to_map(capture.activations[layer.name].detach()).double()
        gradients = [layer.layout.to_map(g[layer.name]).double() for g in capture.gradients(scores)]
    return torch.stack([(A * G).flatten(2).sum(2)[0] for G in gradients])


@dataclass(frozen=True, kw_only=True)
class Channels(Players):
    """Channels of one layer (of a convolution, or of tokens), scored by the tail behind it alone.

    Args:
        layer: module path; None finds one.
        removal: `zero`, `mean` or `resample`, see `removed`.
        seed: of `resample`.
    """

    layer: str | None = None
    removal: Removal = "zero"
    seed: int = 0
    kind: ClassVar[str] = "channels"

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Changed activations through the tail."""
        if job.watch:
            raise MethodError("Channels are scored at the model's output: give a class, not a Unit.")
        layer = chosen_layer(job, self.layer)
        targets, channels = freeze(job), layer.layout.channels
        with Tail(job.module, job.inputs, layer.name, score_of(targets), targets=len(targets)) as tail:
            tail.cost.forwards += 1
            axis = 1 if layer.layout.kind == "channels-first" else tail.activation.ndim - 1
            absent = removed(tail.activation, axis, self.removal, self.seed)
            shape = [channels if d == axis else 1 for d in range(1, tail.activation.ndim)]

            def value(coalitions: Tensor) -> Tensor:
                def change(A: Tensor, start: int, stop: int) -> Tensor:
                    keep = coalitions[start:stop].reshape(-1, *shape).to(A)
                    return torch.lerp(absent, A, keep)

                return tail(change, len(coalitions), label="channels").cpu()

            maps = layer.layout.to_map(tail.activation)[0].float().cpu()
            yield Game(value, [f"{layer.name}[{c}]" for c in range(channels)], tail.cost, {"maps": maps})


@dataclass(frozen=True, kw_only=True)
class Blocks(Players):
    """Whole layers or blocks. Out: `bypass` lets a block's input go on in its output's place.

    A block whose output differs in shape from its input cannot be bypassed; its output is then replaced by its mean
    over places, which takes away all it knows of places.

    Args:
        layers: module paths; None: the network's repeated building blocks.
        removal: `bypass`, or what stands in each channel's place: `zero`, `mean`, `resample`.
        seed: of `resample`.
    """

    layers: tuple[str, ...] | None = None
    removal: Literal["bypass", "zero", "mean", "resample"] = "bypass"
    seed: int = 0
    kind: ClassVar[str] = "layers"

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """One forward a coalition, with hooks on the layers that are out."""
        names = list(self.layers or building_blocks(job.module))
        if len(names) < 2:
            raise MethodError("There are fewer than two layers to compare: name them.")
        targets = freeze(job)
        score, cost = score_of(targets), Cost(forwards=1)
        out: set[str] = set()
        with ExitStack() as stack:
            capture = stack.enter_context(Capture(job.module, watch=job.watch))
            for name in names:
                hook = find_layer(capture.module, name).register_forward_hook(self._hook(name, out))
                stack.callback(hook.remove)

            def value(coalitions: Tensor) -> Tensor:
                scores = []
                with task("layers", len(coalitions)) as advance, torch.no_grad():
                    for coalition in coalitions.tolist():  # each coalition is another network: no batch to fill
                        out.clear()
                        out.update(n for n, kept in zip(names, coalition, strict=True) if not kept)
                        output = capture.forward(job.inputs)
                        found = score(output, capture.watched, torch.zeros(1, dtype=torch.long))
                        scores.append(torch.stack([s[0].double().cpu() for s in found]))
                        cost.forwards += 1
                        advance(1)
                return torch.stack(scores)

            yield Game(value, names, cost)

    def _hook(self, name: str, out: set[str]) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_module: nn.Module, args: Any, output: Any) -> Any:
            if name not in out:
                return None
            activation, before = first_tensor(output), first_tensor(args)
            if activation is None:
                raise LayerError(f"Layer {name!r} returns no activation tensor; name another.")
            if self.removal == "bypass" and before is not None and before.shape == activation.shape:
                return replace_first_tensor(output, before.clone())
            axis = activation.ndim - 1 if activation.ndim == 3 else 1
            removal = "mean" if self.removal == "bypass" else self.removal
            return replace_first_tensor(output, removed(activation, axis, removal, self.seed).clone())

        return hook


def building_blocks(module: nn.Module) -> list[str]:
    """A network's repeated building blocks, by structure: what containers of several modules with parts hold.

    Blocks do not nest. A network without such containers is cut into its top-level modules.
    """
    found: list[str] = []
    for name, container in module.named_modules():
        if not isinstance(container, nn.Sequential | nn.ModuleList) or any(name.startswith(f"{f}.") for f in found):
            continue
        children = list(container.named_children())
        plain = [c for _, c in children if not isinstance(c, nn.Sequential | nn.ModuleList) and any(c.children())]
        if len(plain) * 2 > len(children):
            found += [f"{name}.{child}" if name else child for child, c in children if any(c.children())]
    if len(found) < 2:
        found = [n for n, m in module.named_children() if any(True for _ in m.parameters())]
    return found
