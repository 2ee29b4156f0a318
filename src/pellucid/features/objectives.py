"""Objectives: what a picture is made to do, as an algebra of immutable objects.

An objective gives each row of a batch one score, the higher the better; `a + 0.5 * b`, `-a` and `a - b` are new
objectives. A score never looks at rows of another objective, so that pictures in one batch do not influence each other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pellucid.engine import Capture, unwrap
from pellucid.errors import LayerError, TargetError
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout
from pellucid.models.model import VisionModel
from pellucid.models.targets import (
    PerSample,
    Target,
    TargetLike,
    TopClass,
    Unit,
    as_target,
    parse_target,
)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model did with the R rows (views) of one objective's P pictures.

    Attributes:
        output: the model's output, R samples; None if the pass ended before it.
        activations: of the layers asked for, R samples each.
        pictures: `(P, C, *space)` in display units.
        owner: `(R,)`, the picture each row shows.
        start: the number of the first row in the batch.
    """

    output: Any
    activations: Mapping[str, Tensor]
    pictures: Tensor
    owner: Tensor
    start: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.owner)

    def part(self, start: int, stop: int) -> Seen:
        """The rows `start` to `stop`, with all pictures."""
        size = self.rows
        output = tree_map(
            lambda t: t[start:stop] if isinstance(t, Tensor) and t.shape[:1] == (size,) else t, self.output
        )
        return replace(
            self,
            output=output,
            activations={name: a[start:stop] for name, a in self.activations.items()},
            owner=self.owner[start:stop],
            start=self.start + start,
        )


class Objective(ABC):
    """What is maximised."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that are read."""
        return ()

    @property
    def needs_output(self) -> bool:
        """Whether the model's output is read, so that a pass must run to its end."""
        return False

    @property
    def pictures(self) -> int:
        """Pictures that are made together for this objective."""
        return 1

    @property
    def regulariser(self) -> bool:
        """Whether this is about the picture alone, and no part of what the model answers."""
        return False

    def bind(self, model: VisionModel, sample: Tensor) -> Objective:
        """This objective for this model, with layouts, labels and references resolved.

        Args:
            model: whose units are meant.
            sample: an input `(1, C, *space)`, of which only the shape counts.

        Raises:
            LayerError, TargetError: no such layer, channel, place or class.
        """
        return self

    @abstractmethod
    def score(self, seen: Seen) -> Tensor:
        """`(R,)`, the higher the better."""

    @abstractmethod
    def name(self, labels: Sequence[str] | None = None) -> str:
        """In words."""

    def spec(self) -> str | None:
        """The text that `parse_objective` reads back; None if there is none."""
        return None

    def __str__(self) -> str:
        return self.name()

    def __add__(self, other: Objective) -> Objective:
        return Sum((*_terms(self), *_terms(other))) if isinstance(other, Objective) else NotImplemented

    def __radd__(self, other: int) -> Objective:
        return self if other == 0 else NotImplemented  # where `sum` starts

    def __neg__(self) -> Objective:
        return -1.0 * self

    def __sub__(self, other: Objective) -> Objective:
        return self + (-other) if isinstance(other, Objective) else NotImplemented

    def __mul__(self, factor: float) -> Objective:
        if not _is_number(factor):
            raise TargetError(f"An objective is weighted by a finite number, not {factor!r}.")
        return Sum(tuple((float(factor) * weight, term) for weight, term in _terms(self)))

    __rmul__ = __mul__


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _terms(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    return objective.terms if isinstance(objective, Sum) else ((1.0, objective),)


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Of all terms."""
        return tuple(dict.fromkeys(name for _, term in self.terms for name in term.layers))

    @property
    def needs_output(self) -> bool:
        """If a term does."""
        return any(term.needs_output for _, term in self.terms)

    @property
    def pictures(self) -> int:
        """The most that a term asks for."""
        return max(term.pictures for _, term in self.terms)

    @property
    def regulariser(self) -> bool:
        """If all terms are."""
        return all(term.regulariser for _, term in self.terms)

    def bind(self, model: VisionModel, sample: Tensor) -> Sum:
        """All terms bound."""
        return Sum(tuple((weight, term.bind(model, sample)) for weight, term in self.terms))

    def score(self, seen: Seen) -> Tensor:
        """`sum of weight x score`."""
        return torch.stack([weight * term.score(seen) for weight, term in self.terms]).sum(0)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """The terms with their weights."""
        text = ""
        for weight, term in self.terms:
            sign = (" - " if weight < 0 else " + ") if text else ("-" if weight < 0 else "")
            factor = "" if abs(weight) == 1 else f"{abs(weight):g} x "
            text += f"{sign}{factor}{term.name(labels)}"
        return text


def activation_part(objective: Objective) -> Objective:
    """The objective without regularisers and diversity: what the model itself answers, to be compared with pictures."""
    kept = tuple((w, t) for w, t in _terms(objective) if not t.regulariser and t.pictures == 1)
    return Sum(kept) if kept and len(kept) < len(_terms(objective)) else objective


def cells(activation: Tensor, layout: Layout | None) -> Tensor:
    """An activation as `(R, C, cells)` in single precision; without a layout it is `(R, C)`, one cell."""
    return (activation[..., None] if layout is None else layout.to_map(activation).flatten(2)).float()


def layout_of(model: VisionModel, sample: Tensor, layer: str) -> Layout | None:
    """The proven layout of a layer; None for a layer of plain features `(N, C)`."""
    module = unwrap(model.module)
    try:
        return describe(module, sample, layer).layout
    except LayerError:
        with Capture(module, [layer], stop_early=True) as capture, torch.no_grad():
            capture.forward(sample)
            if capture.activations[layer].ndim == 2:
                return None
        raise


def _width(model: VisionModel, sample: Tensor, layer: str, layout: Layout | None) -> int:
    if layout is not None:
        return layout.channels
    with Capture(unwrap(model.module), [layer], stop_early=True) as capture, torch.no_grad():
        capture.forward(sample)
        return capture.activations[layer].shape[1]


@dataclass(frozen=True)
class _AtLayer(Objective):
    """Base of what reads one layer, by its proven layout or by one that is given."""

    layer: str
    layout: Layout | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer."""
        return (self.layer,)

    def bind(self, model: VisionModel, sample: Tensor) -> _AtLayer:
        """The layout found, unless it is given."""
        return replace(self, layout=self.layout or layout_of(model, sample, self.layer))

    def cells(self, seen: Seen) -> Tensor:
        """The layer's activation `(R, C, cells)`."""
        return cells(seen.activations[self.layer], self.layout)

    def check(self, width: int, channel: int) -> None:
        """Raises TargetError for a channel that is not there."""
        if not 0 <= channel < width:
            raise TargetError(f"Layer {self.layer!r} has {width} channels, 0 to {width - 1}; there is no {channel}.")


@dataclass(frozen=True)
class Channel(_AtLayer):
    """The mean of one channel over all places: a texture of what it looks for."""

    channel: int = 0

    def bind(self, model: VisionModel, sample: Tensor) -> Channel:
        """The layout found, the channel checked."""
        bound = cast(Channel, super().bind(model, sample))
        self.check(_width(model, sample, self.layer, bound.layout), self.channel)
        return bound

    def score(self, seen: Seen) -> Tensor:
        """`mean over the cells of A_c`."""
        return self.cells(seen)[:, self.channel].mean(1)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`channel c of layer`."""
        return f"channel {self.channel} of {self.layer}"

    def spec(self) -> str:
        """`unit:LAYER:CHANNEL`."""
        return f"unit:{self.layer}:{self.channel}"


@dataclass(frozen=True)
class Neuron(Channel):
    """One channel at one place, by default the middle of the grid: one instance of what it looks for."""

    position: tuple[int, ...] | None = None

    def bind(self, model: VisionModel, sample: Tensor) -> Neuron:
        """The position checked, or the middle taken."""
        bound = cast(Neuron, super().bind(model, sample))
        grid = () if bound.layout is None else bound.layout.grid
        position = tuple(g // 2 for g in grid) if self.position is None else self.position
        if len(position) != len(grid) or any(not 0 <= p < g for p, g in zip(position, grid, strict=True)):
            raise TargetError(f"Layer {self.layer!r} has a grid of {grid}; there is no position {position}.")
        return replace(bound, position=position)

    def score(self, seen: Seen) -> Tensor:
        """`A_c` there."""
        return self.cells(seen)[:, self.channel, self.cell]

    @property
    def cell(self) -> int:
        """The number of the place, row by row."""
        grid = () if self.layout is None else self.layout.grid
        at = 0
        for p, g in zip(self.position or (), grid, strict=True):
            at = at * g + p
        return at

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`channel c of layer at (y, x)`."""
        where = "the middle" if self.position is None else str(self.position)
        return f"channel {self.channel} of {self.layer} at {where}"

    def spec(self) -> str:
        """`neuron:LAYER:CHANNEL` (the middle) or `unit:LAYER:CHANNEL:Y;X`."""
        if self.position is None:
            return f"neuron:{self.layer}:{self.channel}"
        return f"unit:{self.layer}:{self.channel}:{';'.join(map(str, self.position))}"


@dataclass(frozen=True)
class Token(Channel):
    """One channel of a token that has no place, such as the class token of a transformer (token 0)."""

    token: int = 0

    def bind(self, model: VisionModel, sample: Tensor) -> Token:
        """Checked to be one of the tokens before the grid."""
        bound = cast(Token, super().bind(model, sample))
        prefix = 0 if bound.layout is None else bound.layout.prefix
        if not 0 <= self.token < prefix:
            raise TargetError(f"Layer {self.layer!r} has {prefix} tokens without a place; there is no {self.token}.")
        return bound

    def score(self, seen: Seen) -> Tensor:
        """`A_c` of the token."""
        return seen.activations[self.layer][:, self.token, self.channel].float()

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`channel c of token t of layer`."""
        return f"channel {self.channel} of token {self.token} of {self.layer}"

    def spec(self) -> str:
        """`token:LAYER:CHANNEL:TOKEN`."""
        return f"token:{self.layer}:{self.channel}:{self.token}"


@dataclass(frozen=True)
class LayerEnergy(_AtLayer):
    """All of a layer: `mean of A^2` (DeepDream, Mordvintsev et al. 2015)."""

    def score(self, seen: Seen) -> Tensor:
        """`mean over channels and cells of A^2`."""
        return self.cells(seen).square().flatten(1).mean(1)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`all of layer`."""
        return f"all of {self.layer}"

    def spec(self) -> str:
        """`layer:NAME`."""
        return f"layer:{self.layer}"


@dataclass(frozen=True, eq=False)
class Direction(_AtLayer):
    """A direction in a layer's channels: `a.v max(floor, cos(a, v))^power`, mean over the cells (Carter et al. 2019).

    The dot product alone is reached by any large activation that leans to `v`; the cosine asks for little else.

    Attributes:
        vector: `(C,)`; its length does not matter.
        power: of the cosine; 0 is the dot product alone.
        floor: least cosine, so that a start at right angles still has a gradient.
    """

    vector: Tensor = field(default_factory=lambda: torch.zeros(0))
    power: float = 2.0
    floor: float = 0.1

    def bind(self, model: VisionModel, sample: Tensor) -> Direction:
        """The vector checked and brought to unit length."""
        bound = cast(Direction, super().bind(model, sample))
        vector = torch.as_tensor(self.vector).detach().to(sample.device, torch.float32).flatten()
        width = _width(model, sample, self.layer, bound.layout)
        if len(vector) != width or not vector.isfinite().all() or not vector.any():
            raise TargetError(
                f"A direction in layer {self.layer!r} is a vector of {width} finite numbers, not all zero; "
                f"got {len(vector)} numbers."
            )
        return replace(bound, vector=vector / vector.norm())

    def score(self, seen: Seen) -> Tensor:
        """`mean over the cells of a.v max(floor, cos)^power`."""
        A = self.cells(seen)
        return dot_cosine(A, self.vector[None, :, None].to(A), 1, self.power, self.floor).mean(1)

    def name(self, labels: Sequence[str] | None = None) -> str:
        """`a direction in layer`."""
        return f"a direction in {self.layer}"


def dot_cosine(a: Tensor, v: Tensor, dim: int, power: float, floor: float) -> Tensor:
    """`a.v max(floor, cos(a, v))^power` along `dim`; each sample by itself."""
    dot: Tensor = (a * v).sum(dim)
    if not power:
        return dot
    lengths: Tensor = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(v, dim=dim)
    cosine: Tensor = dot / lengths.clamp(min=1e-12)
    return dot * cosine.clamp(min=floor).pow(power)


@dataclass(frozen=True, eq=False)
class Score(Objective):
    """A score of the model's output: a class's logit, a contrast, or any function of the output."""

    target: Target

    @property
    def layers(self) -> tuple[str, ...]:
        """Of the target."""
        return self.target.layers

    @property
    def needs_output(self) -> bool:
        """Always."""
        return True

    def bind(self, model: VisionModel, sample: Tensor) -> Score:
        """Labels resolved, and tried on a sample."""
        bound = model.bound(self.target, sample)
        output = model.outputs(sample)
        if not bound.layers:
            bound(output)
        return Score(bound)

    def score(self, seen: Seen) -> Tensor:
        """The target's score: a logit rather than a probability, which saturates."""
        found = self.target.score(seen.output, seen.activations).float()
        if len(found) == seen.rows:
            return found
        return found[seen.start : seen.start + seen.rows]  # an output whose rows only the target can tell apart

    def name(self, labels: Sequence[str] | None = None) -> str:
        """The target's name."""
        return self.target.name(labels)

    def spec(self) -> str | None:
        """The target's."""
        return self.target.spec()


def as_objective(wanted: Objective | TargetLike) -> Objective:
    """Whatever names an objective: itself, a `Unit`, a class by index or label, a target, a function of the output."""
    if isinstance(wanted, Objective):
        return wanted
    if wanted is None:
        raise TargetError("Name what to visualise: a unit of a layer, or a class.")
    target = as_target(wanted)
    if isinstance(target, TopClass | PerSample):
        raise TargetError("A picture is made for one named class or unit; the top class of no picture is not one.")
    if isinstance(target, Unit):
        if target.position is None:
            return Channel(target.layer, target.channel)
        return Neuron(target.layer, target.channel, target.position)
    return Score(target)


def parse_objective(text: str) -> Objective:
    """An objective from text: what `parse_target` reads, or `neuron:L:C`, `token:L:C:T`, `layer:L`."""
    kind, _, rest = text.strip().partition(":")
    parts = rest.split(":")
    try:
        if kind == "layer" and rest:
            return LayerEnergy(rest)
        if kind == "neuron":
            return Neuron(parts[0], int(parts[1]))
        if kind == "token":
            return Token(parts[0], int(parts[1]), int(parts[2]) if len(parts) > 2 else 0)
    except (IndexError, ValueError):
        raise TargetError(
            f"{text!r} is no objective: write neuron:LAYER:CHANNEL or token:LAYER:CHANNEL:TOKEN."
        ) from None
    return as_objective(parse_target(text))
