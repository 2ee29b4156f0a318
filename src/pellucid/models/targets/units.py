"""Targets inside the network: a unit of a layer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout
from pellucid.models.targets.base import Labels, Target, target


@target("unit", form="unit:LAYER:CHANNEL[:Y;X]")
@dataclass(frozen=True)
class Unit(Target):
    """A unit inside the network: channel `channel` of `layer`, at one cell `position`, or its mean over the grid."""

    layer: str
    channel: int
    position: tuple[int, ...] | None = None
    layout: Layout | None = field(default=None, compare=False, repr=False)

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """The unit's layer."""
        return (self.layer,)

    @property
    def kind(self) -> Hashable:
        """Only layers before the unit's carry gradient to it."""
        return ("unit", self.layer)

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Unit:
        """The layout found, channel and position checked."""
        layout = describe(module, inputs, self.layer).layout
        if not 0 <= self.channel < layout.channels:
            raise TargetError(
                f"Layer {self.layer!r} has {layout.channels} channels; there is no channel {self.channel}."
            )
        if self.position is not None and (
            len(self.position) != len(layout.grid)
            or any(not 0 <= p < g for p, g in zip(self.position, layout.grid, strict=True))
        ):
            raise TargetError(
                f"Layer {self.layer!r} has a grid of {layout.grid}; there is no position {self.position}."
            )
        return replace(self, layout=layout)

    def __call__(self, output: Any) -> Tensor:
        """Not possible: a unit is read inside the network."""
        raise TargetError("A Unit target is read inside the network, not from its output; explain it with a method.")

    def score(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """The unit's activation."""
        assert self.layout is not None
        channel = self.layout.to_map(watched[self.layer])[:, self.channel].float()
        if self.position is None:
            return channel.flatten(1).mean(1)
        for p in self.position:
            channel = channel[:, p]
        return channel

    def spec(self) -> str:
        """`unit:LAYER:CHANNEL[:Y;X]` (commas part targets)."""
        at = "" if self.position is None else ":" + ";".join(map(str, self.position))
        return f"unit:{self.layer}:{self.channel}{at}"

    def __str__(self) -> str:
        at = "" if self.position is None else f" at {self.position}"
        return f"channel {self.channel} of {self.layer}{at}"

    @classmethod
    def read(cls, text: str) -> Unit | None:
        """`unit:LAYER:CHANNEL` or `unit:LAYER:CHANNEL:Y;X`."""
        word, *parts = text.split(":")
        if word != "unit" or not parts:
            return None
        try:
            position = tuple(int(p) for p in parts[2].split(";")) if len(parts) > 2 else None
            return cls(parts[0], int(parts[1]), position)
        except (IndexError, ValueError):
            raise TargetError(f"{text!r} is no unit: write unit:LAYER:CHANNEL or unit:LAYER:CHANNEL:Y;X.") from None
