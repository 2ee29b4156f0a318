"""Players inside one layer of the model: its channels, or its places."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.engine import Capture
from pellucid.engine.baselines import make_baseline
from pellucid.engine.tail import Tail
from pellucid.errors import LayerError, MethodError
from pellucid.importance.game import Game, Players, place_names
from pellucid.importance.path import Path
from pellucid.models.layers import Layer, best_layer, describe
from pellucid.models.layouts import Layout
from pellucid.models.opens import LAYERS, Need
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze, score_of

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
    """The layer named, or the best one found.

    Raises:
        LayerError: it runs several times in a pass, side by side, so its units are no one's activation.
    """
    target = job.targets[0]
    if name is not None:
        layer = describe(job.module, job.inputs, name)
    else:
        layer = best_layer(job.module, job.inputs, target.typical.score, watch=target.layers, key=target.kind)
    if layer.layout.runs > 1:
        raise LayerError(
            f"Layer {layer.name!r} runs {layer.layout.runs} times in a pass, and what is inside it is taken out of one "
            "run: name a layer that runs once, or use ablation-cam, which changes all runs."
        )
    return layer


@dataclass(frozen=True, kw_only=True)
class Units(Players):
    """Base of players inside one layer's activation, scored by the tail behind it alone.

    Args:
        layer: module path; None finds one.
        removal: `zero`, `mean` or `resample`, see `removed`.
        baseline: where the path of `conductance` begins.
        seed: of `resample` and of a random baseline.
        donor: an input whose activation stands in for what is out.
    """

    layer: str | None = None
    removal: Removal = "zero"
    baseline: str | Tensor = "zero"
    seed: int = 0
    donor: Tensor | None = None

    @abstractmethod
    def spread(self, values: Tensor, layout: Layout) -> Tensor:
        """Numbers of the players `(m, K)` -> on an activation's elements, `(m, ...)`, ready to broadcast."""

    @abstractmethod
    def folded(self, products: Tensor, layout: Layout) -> Tensor:
        """The way back: elements `(T, ...)` -> sums of the players `(K, T)`."""

    @abstractmethod
    def named(self, layer: Layer) -> list[str]:
        """The players' names."""

    def looks(self, activation: Tensor, layout: Layout) -> dict[str, Tensor]:
        """Pictures of the players, of an activation of one input."""
        return {"maps": layout.to_map(activation)[0].float().cpu()}

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Changed activations through the tail."""
        if job.watch:
            raise MethodError(f"{self.kind.capitalize()} are scored at the model's output: give a class, not a Unit.")
        layer = chosen_layer(job, self.layer)
        targets, layout = freeze(job), layer.layout
        with Tail(job.module, job.inputs, layer.name, score_of(targets), targets=len(targets)) as tail:
            tail.cost.forwards += 1
            A = tail.activation
            if self.donor is None:
                axis = 1 if layout.kind == "channels-first" else A.ndim - 1
                absent = removed(A, axis, self.removal, self.seed)
            else:
                absent = _activation(job.module, self.donor.to(job.inputs), layer.name)
                tail.cost.forwards += 1

            def value(coalitions: Tensor) -> Tensor:
                def change(A: Tensor, start: int, stop: int) -> Tensor:
                    return torch.lerp(absent, A, self.spread(coalitions[start:stop].to(A), layout))

                return tail(change, len(coalitions), label=self.kind).cpu()

            yield Game(value, self.named(layer), tail.cost, self.looks(A, layout))

    def first_order(self, job: Job) -> Tensor:
        """`(K, T)`: sum over each player's elements of gradient x activation."""
        layer = chosen_layer(job, self.layer)
        with Capture(job.module, [layer.name], watch=job.watch) as capture:
            _, scores = capture.scored(job.inputs, lambda y, w: [t.score(y, w) for t in job.targets])
            A = capture.activations[layer.name].detach().double()
            products = torch.cat([A * g[layer.name].double() for g in capture.gradients(scores)])
        return self.folded(products, layer.layout)

    def conducted(self, job: Job, along: Callable[[str | None, Tensor], Path]) -> tuple[Tensor, Path]:
        """Conductance of the layer's elements, summed over each player's."""
        layer = chosen_layer(job, self.layer)
        path = along(layer.name, make_baseline(self.baseline, job.inputs, torch.Generator().manual_seed(self.seed)))
        return self.folded(path.flow, layer.layout), path

    def donated(self, donor: Tensor) -> Players:
        """Another picture's activation stands in for what is out."""
        return replace(self, donor=donor)


def _activation(module: nn.Module, inputs: Tensor, layer: str) -> Tensor:
    with Capture(module, [layer], stop_early=True) as capture, torch.no_grad():
        capture.forward(inputs)
        return capture.activations[layer].detach()


@dataclass(frozen=True, kw_only=True)
class Channels(Units):
    """Channels of one layer, of a convolution or of tokens (over all tokens, the class token too)."""

    kind: ClassVar[str] = "channels"
    needs: ClassVar[frozenset[Need]] = LAYERS

    def spread(self, values: Tensor, layout: Layout) -> Tensor:
        """Along the channel axis."""
        ones = [1] * (len(layout.shape(1)) - 2)
        return (
            values.reshape(len(values), -1, *ones)
            if layout.kind == "channels-first"
            else values.reshape(len(values), *ones, -1)
        )

    def folded(self, products: Tensor, layout: Layout) -> Tensor:
        """Over everything but the channel axis."""
        moved = products if layout.kind == "channels-first" else products.movedim(-1, 1)
        return moved.flatten(2).sum(2).T

    def named(self, layer: Layer) -> list[str]:
        """By number."""
        return [f"channel {c}" for c in range(layer.layout.channels)]


@dataclass(frozen=True, kw_only=True)
class Tokens(Units):
    """Places of one layer: the tokens of a transformer, its class token among them, or the cells of a feature map."""

    kind: ClassVar[str] = "tokens"
    needs: ClassVar[frozenset[Need]] = LAYERS

    def spread(self, values: Tensor, layout: Layout) -> Tensor:
        """Along the axes of space."""
        if layout.kind == "channels-first":
            return values.reshape(len(values), 1, *layout.grid)
        if layout.kind == "channels-last":
            return values.reshape(len(values), *layout.grid, 1)
        return values[:, self._players(layout)].unsqueeze(-1)

    def folded(self, products: Tensor, layout: Layout) -> Tensor:
        """Over the channel axis."""
        if layout.kind != "tokens":
            return products.sum(1 if layout.kind == "channels-first" else -1).flatten(1).T
        return products.sum(-1)[:, self._players(layout).argsort()].T

    def _players(self, layout: Layout) -> Tensor:
        """Which player each token is: the cells row by row, then the tokens in front."""
        cells = torch.arange(layout.cells)
        if layout.order is not None:
            cells = torch.tensor(layout.order).argsort()
        return torch.cat([layout.cells + torch.arange(layout.prefix), cells])

    def named(self, layer: Layer) -> list[str]:
        """By row and column."""
        layout = layer.layout
        names = place_names(layout.grid)
        return names + (
            ["class token"] if layout.prefix == 1 else [f"extra token {i + 1}" for i in range(layout.prefix)]
        )

    def looks(self, activation: Tensor, layout: Layout) -> dict[str, Tensor]:
        """Which cell lies where."""
        return {"labels": torch.arange(layout.cells).reshape(layout.grid)}
