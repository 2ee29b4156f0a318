"""What a heat map method is: a small frozen dataclass with one verb, `attribute(model, inputs, target)`.

`@method` registers a class for Python, the command line, the documentation and the tests. Methods whose `pass_key`
agrees share one pass: all CAMs of a layer come out of one forward, and several targets out of one graph.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from pellucid.engine import Cost
from pellucid.engine.ahead import Ahead
from pellucid.engine.memory import Memory
from pellucid.engine.misfit import NEVER_MOVES, NO_SLOPE
from pellucid.engine.opaque import require_layers
from pellucid.engine.run import batch_note
from pellucid.engine.trace import interruptible
from pellucid.errors import DeadLayerError, MethodError
from pellucid.media.geometry import Geometry
from pellucid.models.layers import Layer
from pellucid.models.opens import Need, needed, opens
from pellucid.models.spans import Intervals
from pellucid.models.targets import TargetLike
from pellucid.registry import Registry, settings_of
from pellucid.scoring.job import Job, ModelLike, plain_setting, prepare


@dataclass
class Attribution:
    """What a method found for one target on one batch.

    Attributes:
        values: raw signed values: `(N, *grid)`, `(N, C, *space)`, or `(N, C)` for one number per channel.
        layer: the layer explained, if any.
        notes: what the reader must know, one sentence each (per batch).
        remarks: for each sample, what was measured of its score that is no fault of the map; empty: nothing of any.
        facts: measured figures per sample, such as the completeness gap.
        extras: further arrays worth keeping.
        cost: passes spent, shared with the methods that came out of the same pass.
        span: for each space axis, the interval of the input that the cells of `values` cover, and nothing beyond is
            seen; empty: as the layer says, or all of it.
    """

    values: Tensor
    layer: Layer | None = None
    notes: list[str] = field(default_factory=list)
    facts: dict[str, list[float]] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    span: Intervals = ()
    remarks: list[list[str]] = field(default_factory=list)

    def over(self, geometry: Geometry) -> Geometry:
        """The geometry of a map whose cells do not cover the input evenly; else as it is."""
        if self.span:
            return dataclasses.replace(geometry, span=self.span, reach=self.span)
        layer = self.layer
        if layer is None or not layer.reach or tuple(self.values.shape[1:]) != layer.layout.grid:
            return geometry
        return dataclasses.replace(geometry, span=layer.span, reach=layer.reach)


class Method(ABC):
    """Base of all heat map methods: subclasses are frozen dataclasses of hyper-parameters, see `@method`."""

    name: ClassVar[str]
    family: ClassVar[str] = ""  # of a class that is entered under no name: none
    needs: ClassVar[str]  # in words
    required: ClassVar[frozenset[Need]]  # of what a model may open
    cost: ClassVar[str]
    paper: ClassVar[str]
    uses_target: ClassVar[bool] = True
    dear: ClassVar[bool] = False  # thousands of passes for every picture: it is said beforehand even where nobody looks
    signed: ClassVar[bool] = True  # whether negative values mean evidence against the target
    channels: ClassVar[Literal["sum", "max"]] = "sum"  # how the channel axis is folded for display
    kind: ClassVar[Literal["map", "channels"]] = "map"

    def __init_subclass__(cls, **settings: Any) -> None:
        """What a class says it needs holds for it, entered under a name or not."""
        super().__init_subclass__(**settings)
        if "needs" in vars(cls):
            cls.required = needed(cls.needs)

    def attribute(self, model: ModelLike, inputs: Tensor, target: TargetLike = None) -> Tensor:
        """Explain `target` on a batch.

        Args:
            model: a `VisionModel` or any `torch.nn.Module`; left bit for bit as it was.
            inputs: `(N, C, *space)`, as the model takes them.
            target: a class, N classes, a `Target`, a function of the output, or None for each sample's top class.

        Returns:
            Raw signed values, on the method's native grid; never normalised.
        """
        return self.explain(model, inputs, [target])[0].values

    def check_model(self, module: nn.Module) -> None:
        """Refuse a model that has not what the method needs: a black box has outputs alone, a script no layers."""
        if not self.required <= opens(module):
            raise MethodError(
                f"{self.name} needs {self.needs}, and this model is a black box: use a method that needs only outputs, "
                "such as rise, lime, kernel-shap or occlusion (`pellucid methods` says what each needs)."
            )
        if "layers" in self.required:
            require_layers(module)

    def explain(self, model: ModelLike, inputs: Tensor, targets: Sequence[TargetLike]) -> list[Attribution]:
        """Explain several targets of one batch with a shared forward pass; values with notes, facts and cost."""
        return explain_all([self], model, inputs, targets)[0]

    def pass_key(self) -> Hashable:
        """Methods with equal keys are run together; by default each runs alone."""
        return self

    @classmethod
    @abstractmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Run methods of one `pass_key` on one job: a list per method of one attribution per target."""

    def cut_key(self) -> Hashable:
        """Of a method whose whole work is one pass cut at a layer, with gradients: its `pass_key`; else None."""
        return None

    def at(self, layer: str | None) -> Method:
        """This method at the layer that it explained, where it chose that itself; as it is, where it takes none."""
        chose = layer is not None and getattr(self, "layer", "") is None
        return dataclasses.replace(self, layer=layer) if chose else self  # type: ignore[type-var]

    def quick(self) -> Method:
        """A cheaper version of this method that finds nearly the same, for repeated tests."""
        return self

    def parameters(self) -> dict[str, Any]:
        """Hyper-parameters as plain values, for the record; tensors are named by their hash."""
        return {name: plain_setting(getattr(self, name)) for name in settings_of(self)}


M = TypeVar("M", bound=type[Method])
_OF_SLOPES = ("gradient", "propagation", "path")  # families whose maps are zero where the score has no slope
METHODS: Registry[type[Method]] = Registry("method", listing=True, otherwise="`pellucid methods` lists them.")


def method(name: str, *, family: str, needs: str, cost: str, paper: str) -> Callable[[M], M]:
    """Register a method class under its name on the command line."""
    return METHODS.register(name, family=family, needs=needs, required=needed(needs), cost=cost, paper=paper)


def get_method(name: str, **parameters: Any) -> Method:
    """A method by name with hyper-parameters.

    Raises:
        MethodError: unknown name (near misses are listed) or hyper-parameter.
    """
    made: Method = METHODS.make(name, parameters)
    return made


@interruptible
def explain_all(
    methods: Sequence[Method],
    model: ModelLike,
    inputs: Tensor,
    targets: Sequence[TargetLike],
    memory: Memory | None = None,
    ahead: Ahead | None = None,
) -> list[list[Attribution]]:
    """Several methods and targets on one batch, sharing every pass that can be shared: `[method][target]`.

    `memory` holds scores that one method has found before, for the one target, from the same baseline and seed;
    `ahead` the answer to these inputs, and perhaps the pass that gave it.
    """
    with torch.inference_mode(False):  # a caller's inference mode would make every tensor here read-only
        job = dataclasses.replace(prepare(model, inputs, targets), memory=memory, ahead=ahead)
        found = _run_groups(methods, job)
        for m, of_method in zip(methods, found, strict=True):
            for attribution in of_method if m.family in _OF_SLOPES else ():
                told = attribution.values.any() or {NO_SLOPE, NEVER_MOVES} & {*attribution.notes}
                attribution.notes += [] if told else [NO_SLOPE]
        for attribution in (a for of_method in found for a in of_method):
            attribution.notes += batch_note(job.module)
        return found


def _run_groups(methods: Sequence[Method], job: Job) -> list[list[Attribution]]:
    groups: dict[Hashable, list[Method]] = {}
    for m in methods:
        m.check_model(job.module)
        groups.setdefault(m.pass_key(), []).append(m)
    found: dict[int, list[Attribution]] = {}
    for group in groups.values():
        for m, attributions in zip(group, _run(group, job), strict=True):
            found[id(m)] = attributions
    return [found[id(m)] for m in methods]


def _run(group: Sequence[Method], job: Job) -> list[list[Attribution]]:
    """Methods of one pass, `[method][target]`; a target that does not hang on the others' layer runs at its own."""
    try:
        return type(group[0]).run(group, job)
    except DeadLayerError as dead:
        if any(getattr(m, "layer", "") is not None for m in group):
            raise
        k = next(k for k, target in enumerate(job.targets) if target is dead.target)
        others = job.targets[:k] + job.targets[k + 1 :]
        alone = _run([m.at(dead.better) for m in group], dataclasses.replace(job, targets=job.targets[k : k + 1]))
        rest = _run(group, dataclasses.replace(job, targets=others)) if others else [[] for _ in group]
        return [[*row[:k], *own, *row[k:]] for row, own in zip(rest, alone, strict=True)]
