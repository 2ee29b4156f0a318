"""What natural pictures are ranked by: how strongly a unit fires, how much it counts for a target, or a target's score.

Each is a small frozen dataclass: a layer's maps for a batch, one number a unit out of them, and a description by which
a cache knows it again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.engine import Capture
from pellucid.errors import LayerError, MethodError
from pellucid.models.layers import Layer
from pellucid.models.layouts import readings
from pellucid.models.targets import Target
from pellucid.numerics.grids import coordinates

Reduction = Literal["max", "mean"]


@dataclass(frozen=True)
class Measure(ABC):
    """One number a picture for each of some units, and the map that it comes from.

    Attributes:
        layer: the layer of the maps.
    """

    layer: Layer
    local: ClassVar[bool] = True  # whether the number comes from a place in the picture

    @property
    @abstractmethod
    def units(self) -> tuple[int, ...]:
        """The numbers of the units; what is measured has one column for each."""

    @abstractmethod
    def opened(self, module: nn.Module) -> Capture:
        """The model, borrowed for as many batches as are wanted."""

    @abstractmethod
    def maps(self, capture: Capture, inputs: Tensor) -> Tensor:
        """The units' maps `(N, K, *grid)` of a batch `(N, C, *space)`, single precision."""

    @abstractmethod
    def scores(self, capture: Capture, inputs: Tensor) -> Tensor:
        """One number a unit, `(N, K)`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """All that the numbers depend on, beside the model and the pictures; plain values."""

    def read(self, capture: Capture, activation: Tensor, inputs: Tensor) -> Tensor:
        """An activation of the layer as a map `(N, C, *grid)`."""
        return resized(self.layer, tuple(activation.shape), tuple(inputs.shape[2:])).layout.to_map(activation).float()

    def relevance(self, capture: Capture, inputs: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """The target's scores `(N,)`, and activation x gradient `(N, C, *grid)`; the capture must cut at the layer."""
        _, (score,) = capture.scored(inputs, lambda output, watched: [target.score(output, watched)])
        gradient = capture.gradients([score])[0][self.layer.name]
        product = capture.activations[self.layer.name].detach() * gradient
        return score.detach(), self.read(capture, product, inputs)


@dataclass(frozen=True)
class Look:
    """How a unit answers one input.

    Attributes:
        map: `(*grid)`.
        cell: where the map is largest.
        features: `(C,)`, the whole layer in that cell; on average over the cells where the unit has no place.
    """

    map: Tensor
    cell: tuple[int, ...]
    features: Tensor


def look(measure: Measure, capture: Capture, inputs: Tensor) -> Callable[[int, int], Look]:
    """How units answer a batch: a function of the input's place in the batch and of the measure's column."""
    maps = measure.maps(capture, inputs).detach().cpu()
    activation = capture.activations[measure.layer.name].detach()
    layer = measure.read(capture, activation, inputs).cpu()

    def at(row: int, column: int) -> Look:
        values = maps[row, column].clone()
        cell = tuple(int(i) for i in coordinates(values.argmax(), values.shape))
        flat = layer[row].flatten(1)
        features = flat[:, int(values.argmax())] if measure.local else flat.mean(1)
        return Look(values, cell, features.clone())

    return at


def resized(layer: Layer, shape: tuple[int, ...], space: tuple[int, ...]) -> Layer:
    """The layer as it reads for an input of another size: of the same kind, with another grid.

    Args:
        layer: with the layout that was proven at one size.
        shape: of its activation.
        space: the input's size.
    """
    if layer.layout.fits(shape):
        return layer
    was = layer.layout
    for reading in readings(shape, space):
        if (reading.kind, reading.channels, reading.prefix) == (was.kind, was.channels, was.prefix):
            return replace(layer, layout=reading)
    raise LayerError(
        f"The output of layer {layer.name!r}, of shape {shape}, does not read as it did: use one input size."
    )


@dataclass(frozen=True)
class OfChannels(Measure):
    """The measure of a layer's channels.

    Attributes:
        channels: which, or None for all.
        reduction: of a map to a number: its `max` or its `mean`.
    """

    channels: tuple[int, ...] | None = None
    reduction: Reduction = "max"

    def __post_init__(self) -> None:
        if self.reduction not in ("max", "mean"):
            raise MethodError(f"A map is reduced to its 'max' or its 'mean', not {self.reduction!r}.")
        check_channels(self.layer, self.channels or ())

    @property
    def units(self) -> tuple[int, ...]:
        """The channels, written out."""
        return tuple(range(self.layer.layout.channels)) if self.channels is None else self.channels

    def scores(self, capture: Capture, inputs: Tensor) -> Tensor:
        """The maps reduced."""
        maps = self.maps(capture, inputs).flatten(2)
        return maps.amax(2) if self.reduction == "max" else maps.mean(2)

    def describe(self) -> dict[str, Any]:
        """Layer, channels and reduction."""
        channels = None if self.channels is None else list(self.channels)
        return {"layer": self.layer.name, "channels": channels, "reduction": self.reduction}

    def _chosen(self, maps: Tensor) -> Tensor:
        return maps if self.channels is None else maps[:, torch.tensor(self.channels, device=maps.device)]


def check_channels(layer: Layer, channels: Sequence[int]) -> None:
    """Raises LayerError for channels that the layer does not have."""
    count = layer.layout.channels
    wrong = next((c for c in channels if not 0 <= c < count), None)
    if wrong is not None:
        raise LayerError(
            f"Layer {layer.name!r} has {count} channels, 0 to {count - 1}; there is no channel {wrong}: choose others."
        )


@dataclass(frozen=True)
class ByActivation(OfChannels):
    """How strongly the channels fire. The forward pass ends at the layer."""

    def opened(self, module: nn.Module) -> Capture:
        """A pass that stops at the layer."""
        return Capture(module, [self.layer.name], stop_early=True)

    def maps(self, capture: Capture, inputs: Tensor) -> Tensor:
        """Activations."""
        capture.forward(inputs)
        return self._chosen(self.read(capture, capture.activations[self.layer.name], inputs))

    def describe(self) -> dict[str, Any]:
        """By activation."""
        return {"by": "activation", **super().describe()}


@dataclass(frozen=True)
class ByRelevance(OfChannels):
    """How much the channels count for a target: activation x gradient (after RelMax, Achtibat et al. 2023).

    The largest activation does not tell what a unit is used for; the largest relevance to a target does. Relevance is
    of first order, as in the method `channel-relevance`. Costs a forward and the backward of the tail.

    Attributes:
        target: bound to the model; the same score for every picture, such as a class.
    """

    reduction: Reduction = "mean"
    target: Target | None = None

    def opened(self, module: nn.Module) -> Capture:
        """A pass cut at the layer."""
        return Capture(module, [self.layer.name], watch=_given(self.target).layers)

    def maps(self, capture: Capture, inputs: Tensor) -> Tensor:
        """`A * dy/dA`."""
        return self._chosen(self.relevance(capture, inputs, _given(self.target))[1])

    def describe(self) -> dict[str, Any]:
        """By relevance to the target."""
        return {"by": "relevance", "target": _given(self.target).spec(), **super().describe()}


@dataclass(frozen=True)
class ByScore(Measure):
    """A target's own score, such as a class's logit. Its map is HiResCAM's, the channels of `A * dy/dA` summed.

    Attributes:
        target: bound to the model; the same score for every picture.
    """

    target: Target | None = None
    local: ClassVar[bool] = False

    @property
    def units(self) -> tuple[int, ...]:
        """The target is the only unit."""
        return (0,)

    def opened(self, module: nn.Module) -> Capture:
        """A pass cut at the layer."""
        return Capture(module, [self.layer.name], watch=_given(self.target).layers)

    def maps(self, capture: Capture, inputs: Tensor) -> Tensor:
        """Where in the input the score comes from."""
        return self.relevance(capture, inputs, _given(self.target))[1].sum(1, keepdim=True)

    def scores(self, capture: Capture, inputs: Tensor) -> Tensor:
        """The target's scores."""
        target = _given(self.target)
        return target.score(capture.forward(inputs), capture.watched).detach()[:, None].float()

    def describe(self) -> dict[str, Any]:
        """By the target's score."""
        return {"by": "score", "target": _given(self.target).spec()}


def _given(target: Target | None) -> Target:
    if target is None:
        raise MethodError("Relevance is to a target: name one, such as target='espresso'.")
    return target
