"""Maps at several stages of a network out of one pass, and how much of the score flows through each stage.

A method that is a formula in a value and the gradient that comes back to it says the same of any layer as of the input.
What flows through a stage is `sum x g` over all of its values, tokens without a place among them; for relevance that
and what rules behind it have absorbed is the score, wherever a network is cut through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.backward import Propagation, carrier
from pellucid.engine.capture import find_layer, require_way_back
from pellucid.engine.hooks import Hooks
from pellucid.engine.taps import Tap
from pellucid.errors import LayerError, MethodError
from pellucid.explanation import folded
from pellucid.heatmaps.base import Method
from pellucid.heatmaps.cam import ActivationGradientCAM
from pellucid.heatmaps.gradient import GradientMethod
from pellucid.heatmaps.propagation import RuleMethod, require_action
from pellucid.models.layers import Layer
from pellucid.scoring.job import Job


@dataclass
class StageReading:
    """What a method finds at one stage.

    Attributes:
        layer: where; None: at the input.
        values: the map `(1, *grid)`.
        flow: `sum x g` over all values of the stage.
        absorbed: what rules between the stage and the score kept for themselves; 0 for methods without rules.
    """

    layer: Layer | None
    values: Tensor
    flow: float
    absorbed: float


@dataclass
class StagePass:
    """One pass, read at several stages.

    Attributes:
        stages: from the input on, in the order in which layers were given.
        score: of the target.
        notes: what a reader must know.
        cost: of the pass.
    """

    stages: list[StageReading]
    score: float
    notes: list[str]
    cost: Cost


Formula = Callable[[Tensor, Tensor, Tensor, Layer | None], Tensor]
"""(values, gradient, score `(1, ...)`, layer) -> the map `(1, *grid)`."""


def stage_pass(method: Method, job: Job, which: Sequence[Layer]) -> StagePass:
    """The maps of a method at several layers, and at the input where it has one there.

    Args:
        method: `lrp` and its kin, a gradient at the input, or a class activation map.
        job: one input and one target.
        which: layers, in the order in which they run.

    Raises:
        MethodError: the method is no formula in a value and its gradient; none of its rules acted.
        LayerError: no gradient comes back to a layer.
    """
    formula = _formula(method)
    if len(job.inputs) != 1 or len(job.targets) != 1:
        raise MethodError("Stages are read for one input and one target at a time: give one of each.")
    rules = method.rules() if isinstance(method, RuleMethod) else None
    with Capture(job.module, watch=job.watch, input_gradient=True) as capture, Hooks() as hooks:
        run = None if rules is None else Propagation(rules, capture.module, _strict(method), True)
        taken: dict[str, float] = {}
        taps = {layer.name: Tap(_noting(taken, layer.name, run)) for layer in which}
        for name, tap in taps.items():
            hooks.behind(find_layer(capture.module, name), tap.heard)

        def score(output: Any, watched: Any) -> list[Tensor]:
            with nullcontext() if run is None else run.paused():
                return [job.targets[0].score(output, watched)]

        with nullcontext() if run is None else run:
            _, scores = capture.scored(job.inputs, score)
        if run is not None:
            require_way_back(scores)
            require_action(run, method.name)
            scores[0].register_hook(lambda _g: run.begin())  # type: ignore[no-untyped-call]
        (found,) = capture.gradients(scores)
        taken["input"] = 0.0 if run is None else float(run.absorbed)
    at, stages = scores[0].detach(), []
    if not isinstance(method, ActivationGradientCAM):
        stages.append(_stage(formula, None, job.inputs.detach(), found["input"], at, taken["input"]))
    for layer in which:
        tap = taps[layer.name]
        if tap.value is None or tap.gradient is None:
            raise LayerError(
                f"Nothing comes back to layer {layer.name!r}: it is not on the way to the score, or is one layer with "
                "the normalisation behind it; name a block, or that normalisation."
            )
        stages.append(_stage(formula, layer, tap.value, tap.gradient, at, taken[layer.name]))
    notes = [] if run is None else run.said()
    placeless = [s.layer.name for s in stages if run is not None and s.layer and s.flow and not s.values.any()]
    if placeless:
        notes.append(
            f"All that flows through {', '.join(placeless)} is in tokens without a place, such as the class token: "
            "the map there is empty."
        )
    return StagePass(stages, float(at), notes, Cost(1, 1))


def _noting(taken: dict[str, float], name: str, run: Propagation | None) -> Callable[[], None]:
    """What notes how much the rules behind a layer have absorbed."""
    return lambda: taken.__setitem__(name, 0.0 if run is None else float(run.absorbed))


def _strict(method: Method) -> bool:
    return bool(getattr(method, "strict", False))


def _stage(formula: Formula, layer: Layer | None, x: Tensor, g: Tensor, score: Tensor, absorbed: float) -> StageReading:
    flow = float((carrier(x).double() * g.double()).sum())
    return StageReading(layer, formula(x.float(), g.float(), score.float(), layer), flow, absorbed)


def _formula(method: Method) -> Formula:
    """What the method makes of a value and its gradient, at any layer."""
    if isinstance(method, ActivationGradientCAM) and type(method).finish is ActivationGradientCAM.finish:
        cam = method

        def at_cells(x: Tensor, g: Tensor, _score: Tensor, layer: Layer | None) -> Tensor:
            assert layer is not None
            return cam.combine(layer.layout.to_map(x), layer.layout.to_map(g))

        return at_cells
    if isinstance(method, RuleMethod) and type(method).explain_job is RuleMethod.explain_job:
        rule = method

        def by_rules(x: Tensor, g: Tensor, score: Tensor, layer: Layer | None) -> Tensor:
            return _folded(rule.combine(x, g, score.reshape(-1, *[1] * (x.ndim - 1))), layer, rule)

        return by_rules
    if isinstance(method, GradientMethod):
        plain = method
        return lambda x, g, _score, layer: _folded(plain.combine(x, g), layer, plain)
    raise MethodError(
        f"{method.name} is no formula in a value and its gradient, so it has no maps at the stages of a network: use "
        "lrp, attn-lrp, cp-lrp, input-x-gradient, hires-cam or layer-cam."
    )


def _folded(values: Tensor, layer: Layer | None, method: Method) -> Tensor:
    """Values of a layer's activation as a map `(1, *grid)`."""
    cells = values if layer is None else layer.layout.to_map(values)
    return folded(cells, cells.ndim - 2, method.channels)
