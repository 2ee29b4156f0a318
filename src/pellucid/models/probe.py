"""What passes over one noise sample show of every layer: shapes, runs, live cells, and which cells move with a corner.

No activation and no gradient is kept: hooks reduce each to a few numbers for every way that its shape may read, as soon
as it is there. So a probe needs hardly more memory than the network's own pass, however many layers it looks at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from pellucid.engine import leave_no_trace
from pellucid.engine.capture import Runs, require_autograd
from pellucid.engine.hooks import Before, Behind, Hooks
from pellucid.engine.leaves import first_tensor, replace_first_tensor
from pellucid.engine.misfit import OUTPUTS_ONLY
from pellucid.engine.opaque import inside_script, require_layers
from pellucid.engine.run import guarded_backward, require_values, run_model
from pellucid.errors import LayerError, ModelError, TargetError
from pellucid.models.graph import SQUASHING, by_place, ends, name_of, only_resamples, upstream
from pellucid.models.layouts import Layout, readings
from pellucid.models.parts import parts
from pellucid.models.reading import Reading

Score = Callable[[Any, Mapping[str, Tensor]], Tensor]

_SAMPLED = 512  # numbers of a gradient that are kept to tell it from another


@dataclass
class _Run:
    """One run of a layer: the shape that it returned, its place in the graph, and its gradient in a few numbers."""

    shape: tuple[int, ...]
    tensor: int
    edge: GradientEdge | None
    cells: list[Tensor] = field(default_factory=list)
    sketch: Tensor | None = None


@dataclass
class _Step:
    """One run of a module: the tensors that it was given and the one that it returned, each in which state."""

    name: str
    given: list[tuple[int, int]]
    out: tuple[int, int]


@dataclass
class Sighting:
    """What the probing pass saw of one layer.

    Attributes:
        name: module path.
        kind: its class.
        shape: of one run's activation, for one input.
        readings: how the activation may read, all its runs together.
        runs: which of several runs are read; None: it runs once, or each run goes through the next.
        cells: for each reading, the gradient's absolute sum in each cell; empty where none arrived.
        sketch: the gradient of each run that counts, in a few numbers.
        same: modules inside or in front of it that return the very same tensor, latest last.
        beside: it stands on one of several branches that read the same activation.
        is_output: the model's output is only resampled from it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    readings: list[Layout]
    runs: Runs | None = None
    cells: list[Tensor] = field(default_factory=list)
    sketch: Tensor | None = None
    same: tuple[str, ...] = ()
    beside: bool = False
    is_output: bool = False

    @property
    def fed(self) -> bool:
        """Whether any gradient arrives."""
        return self.sketch is not None and bool((self.sketch[:, 0] > 0).any())

    def coverage(self, layout: Layout) -> float:
        """The share of its cells that carry gradient, whatever their order."""
        same = ((c, r) for c, r in zip(self.cells, self.readings, strict=False) if r.grid == layout.grid)
        cells = next(
            (c for c, r in same if (r.kind, r.prefix, r.folded) == (layout.kind, layout.prefix, layout.folded)), None
        )
        if cells is None:
            return 0.0
        peak = float(cells.max())
        return float((cells > 1e-7 * peak).float().mean()) if math.isfinite(peak) and peak > 0 else 0.0

    def joining(self, layout: Layout) -> Runs | None:
        """How its runs are put together to read so."""
        if self.runs is None:
            return None
        channels = 1 if layout.kind == "channels-first" else -1
        return replace(self.runs, axis=0 if layout.folded == len(self.runs.kept) > self.shape[0] else channels)


def sketch(gradient: Tensor) -> Tensor:
    """A gradient in a few numbers: its absolute sum, and some of its values."""
    flat = gradient.detach().float().flatten()
    return torch.cat([flat.abs().sum()[None], flat[:: max(1, len(flat) // _SAMPLED)]])


def value_of(score: Score, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
    """The score of one sample, a scalar."""
    try:
        return score(output, watched).sum()
    except (IndexError, RuntimeError, TargetError):  # a function of the whole batch does not fit one sample
        return largest_output(output, watched).sum()


def largest_output(output: Any, _watched: Mapping[str, Tensor]) -> Tensor:
    """The score that stands in where none is given: the largest class score, or number where there are no classes."""
    try:
        scores = Reading().tensor(output)
    except TargetError as error:
        found = [p.tensor.float().amax() for p in parts(output) if p.scores and p.tensor.numel()]
        if not found:
            raise ModelError(str(error)) from error
        return torch.stack(found).amax(0, keepdim=True)
    return scores.float().reshape(len(scores) if scores.ndim else 1, -1).amax(1)


@contextmanager
def hooked(
    module: nn.Module,
    hook: Callable[[str, Any], Any],
    names: Iterable[str] | None = None,
    before: Callable[[str, Any], None] | None = None,
) -> Iterator[None]:
    """`hook(name, output)` behind every module, or the named ones, in this thread; and `before(name, inputs)`."""

    def behind(name: str) -> Behind:
        return lambda _m, _args, output: hook(name, output)

    def in_front(name: str, note: Callable[[str, Any], None]) -> Before:
        return lambda _m, args, kwargs: note(name, (args, kwargs))

    wanted = None if names is None else set(names)
    with Hooks() as hooks:
        for name, m in module.named_modules():
            if not name or (wanted is not None and name not in wanted) or inside_script(module, name):
                continue
            hooks.behind(m, behind(name))
            if before is not None:
                hooks.before(m, in_front(name, before))
        yield


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class _Recorder:
    """What one pass over the whole net shows; with a graph, also what the backward pass brings to each layer.

    With `graph`, an activation that a model has computed under its own `torch.no_grad` starts a graph of its own.
    """

    def __init__(self, sample: Tensor, watch: Sequence[str], *, graph: bool) -> None:
        self.sample, self.watch, self.graph = sample, tuple(watch), graph
        self.runs: dict[str, list[_Run]] = {}
        self.watched: dict[str, Tensor] = {}
        self.leaves: list[Tensor] = []
        self.steps: list[_Step] = []
        self._given: dict[str, list[list[tuple[int, int]]]] = {}  # to runs that have not ended yet
        self._known = WeakTensorKeyDictionary()
        self._count = itertools.count()
        self._readings: dict[str, list[Layout]] = {}

    def key(self, tensor: Tensor) -> int:
        """A number for each tensor object."""
        if tensor not in self._known:
            self._known[tensor] = next(self._count)
        number: int = self._known[tensor]
        return number

    def given(self, name: str, inputs: Any) -> None:
        """Notes what a module reads, in which state: what is added to it in place later is another thing."""
        tensors = [t for t in tree_leaves(inputs) if isinstance(t, Tensor) and t.is_floating_point()]
        self._given.setdefault(name, []).append([(self.key(t), _version(t)) for t in tensors])

    def hook(self, name: str, output: Any) -> Any:
        """Notes a run."""
        waiting = self._given.get(name)
        given = waiting.pop() if waiting else []
        activation = first_tensor(output)
        if activation is None:
            return None
        replaced = None
        if self.graph and not activation.requires_grad and not activation.is_inference():
            activation = activation.detach().requires_grad_()
            self.leaves.append(activation)
            torch.set_grad_enabled(True)
            replaced = activation.clone()
            self._known[replaced] = self.key(activation)
        edge = get_gradient_edge(activation) if activation.requires_grad else None
        runs = self.runs.pop(name, [])  # re-inserted last: the order is that of execution
        self.runs[name] = [*runs, _Run(tuple(activation.shape), self.key(activation), edge)]
        self.steps.append(_Step(name, given, (self.key(activation), _version(activation))))
        if name in self.watch:
            self.watched[name] = activation
        if activation.requires_grad:
            run = self.runs[name][-1]
            activation.register_hook(lambda g: self._reduce(name, run, g))  # type: ignore[no-untyped-call]
        return None if replaced is None else replace_first_tensor(output, replaced)

    def settle(self) -> dict[str, Sighting]:
        """Once the pass is over: which runs count, and how each layer may read."""
        batch, clips = len(self.sample), self.sample.ndim == 5  # whose frames may be folded into the batch
        found = {}
        for name, runs in self.runs.items():
            shape = runs[-1].shape
            if shape[:1] != (batch,) and not clips:
                continue
            found[name] = seen = _read(name, runs, tuple(self.sample.shape[2:]))
            self._readings[name] = [of_one_run(r, seen.joining(r)) for r in seen.readings]
        return found

    def _reduce(self, name: str, run: _Run, gradient: Tensor | None) -> None:
        if run.sketch is None and gradient is not None:  # None behind a function of which torch knows no gradient
            run.sketch = sketch(gradient)
            if gradient.shape == self.runs[name][-1].shape:
                cells = (r.to_map(gradient.detach().float()).abs().sum(1)[0] for r in self._readings.get(name, ()))
                run.cells = list(cells)


def of_one_run(layout: Layout, runs: Runs | None) -> Layout:
    """How one of several runs reads, that together read as `layout`."""
    if runs is None:
        return layout
    return (
        replace(layout.frame, runs=1)
        if runs.axis == 0
        else replace(layout, channels=layout.channels // layout.runs, runs=1)
    )


def _read(name: str, runs: list[_Run], space: tuple[int, ...]) -> Sighting:
    """A layer's shape and its possible readings, with the runs that count."""
    shape = runs[-1].shape
    side_by_side = ends([run.edge.node if run.edge else None for run in runs])
    kept = [k for k in side_by_side if runs[k].shape == shape]
    if len(side_by_side) < 2:
        return Sighting(name, "", shape, list(readings(shape, space)))
    several = Runs(tuple(kept), len(runs), others=len(side_by_side) - len(kept))
    joined = [replace(r, channels=r.channels * len(kept), runs=len(kept)) for r in readings(shape, space)]
    if shape[0] == 1 and len(space) == 3 and len(kept) > 1:
        joined = [*(replace(r, runs=len(kept)) for r in readings((len(kept), *shape[1:]), space)), *joined]
    return Sighting(name, "", shape, joined, several)


@dataclass
class Probe:
    """All layers in execution order, and the rows, columns ... of the input that the score depends on.

    Attributes:
        seen: by name; of modules that return one tensor, the outermost alone.
        all: by name, every module.
        span: for each space axis, the interval of the input outside of which the score's gradient is zero.
    """

    seen: dict[str, Sighting]
    all: dict[str, Sighting]
    span: tuple[tuple[int, int], ...] = ()


def probe(
    module: nn.Module,
    sample: Tensor,
    score: Score | None,
    watch: Sequence[str] = (),
    *,
    graph: bool | None = None,
    backward: bool = True,
) -> Probe:
    """One pass over the whole net: shapes of all layers, and the score's gradient to each (if a score is given).

    Args:
        module: the model.
        sample: one noise sample.
        score: None: no gradient is asked for.
        watch: layers that `score` reads.
        graph: record one; default: if a score is given.
        backward: False ends behind the forward pass.
    """
    require_layers(module)
    require_values(module)
    graph = score is not None if graph is None else graph
    if graph:
        require_autograd(module)
    kinds = {name: type(m).__name__ for name, m in module.named_modules()}
    with leave_no_trace(module), torch.set_grad_enabled(graph):
        recorder = _Recorder(sample, watch, graph=graph)
        leaf = sample.detach().clone().requires_grad_(graph)
        with hooked(module, recorder.hook, before=recorder.given if graph else None):
            output = run_model(module, leaf.clone())
        everything = recorder.settle()
        for name, seen in everything.items():
            seen.kind = kinds[name]
        found = Probe(everything, everything)
        if score is None:
            return found
        output, dense = _apart(output, tuple(sample.shape[2:]))
        value = value_of(score, output, recorder.watched)
        if value.requires_grad:
            _mark_outputs(recorder, everything, value, dense)
        found.seen = _outermost(recorder, everything)
        if not backward:
            return found
        if not value.requires_grad:
            raise LayerError(
                "The target does not depend on the input through the model's graph (torch.no_grad, detach, numpy), so "
                f"no layer can be found: {OUTPUTS_ONLY}."
            )
        with guarded_backward():
            found.span = _span(_backward(value, leaf, recorder))
    for name, seen in everything.items():
        _gather(seen, recorder.runs[name])
    _mark_branches(recorder, everything)
    return found


def _apart(output: Any, space: tuple[int, ...]) -> tuple[Any, list[tuple[Node, Node]]]:
    """The model's output, each tensor under another name, so that what the score reads of it is told from the rest.

    Returns:
        It, and of each tensor that reads as a picture of the input its node under the new name and under the old.
    """
    leaves, structure = tree_flatten(output)
    dense = []
    for i, t in enumerate(leaves):
        if isinstance(t, Tensor) and t.grad_fn is not None:
            leaves[i] = t.view_as(t)
            if t.ndim > 2 and any(readings(tuple(t.shape), space)):
                dense.append((leaves[i].grad_fn, t.grad_fn))
    return tree_unflatten(leaves, structure), dense


def _mark_outputs(
    recorder: _Recorder, everything: Mapping[str, Sighting], value: Tensor, dense: list[tuple[Node, Node]]
) -> None:
    """Marks the layers that a dense output is only resampled from, where the score reads it as it is.

    A score that is linear in the output takes the output's last pointwise layers along: gradient x activation there,
    summed over channels, is the output again.
    """
    if not dense or value.grad_fn is None:
        return
    named = {new for new, _ in dense}
    reached = set(upstream(value.grad_fn, lambda node: node not in named))
    own = {n for new, old in dense if new in reached for n in upstream(old, only_resamples)}
    if not any(name_of(n) in SQUASHING for n in own | reached):
        own |= {n for new, old in dense if new in reached for n in upstream(old, by_place)}
    for name, seen in everything.items():
        edge = recorder.runs[name][-1].edge
        seen.is_output = edge is not None and edge.node in own


def _outermost(recorder: _Recorder, everything: Mapping[str, Sighting]) -> dict[str, Sighting]:
    """Of modules that return the very same tensor, the last to end (`layer4`, not `layer4.2.act3`).

    But no later than a watched one: it is read before an outer module ends.
    """
    groups: dict[int, list[str]] = {}
    for name in everything:
        groups.setdefault(recorder.runs[name][-1].tensor, []).append(name)
    found = {}
    for names in groups.values():
        owner = next((n for n in reversed(names) if n in recorder.watched), names[-1])
        everything[owner].same = tuple(n for n in names[: names.index(owner)])
        found[owner] = everything[owner]
    return {name: found[name] for name in everything if name in found}


def _backward(value: Tensor, leaf: Tensor, recorder: _Recorder) -> Tensor | None:
    """Brings the gradient to every layer (hooks take it in) and returns that of the input."""
    start = get_gradient_edge(leaf).node
    if value.grad_fn is not None and start in upstream(value.grad_fn):
        return torch.autograd.grad(value, [leaf, *recorder.leaves], allow_unused=True)[0]
    # The model cuts its own graph on the way (detach): what lies behind is reached from the layers alone.
    edges = [run.edge for runs in recorder.runs.values() for run in runs if run.edge is not None]
    if edges:
        torch.autograd.grad(value, edges, allow_unused=True)
    return None


def _span(gradient: Tensor | None) -> tuple[tuple[int, int], ...]:
    if gradient is None or not gradient.any():
        return ()
    found = []
    for axis in range(2, gradient.ndim):
        live = gradient.transpose(0, axis).flatten(1).ne(0).any(1).nonzero()[:, 0]
        found.append((int(live[0]), int(live[-1]) + 1))
    return tuple(found)


def _gather(seen: Sighting, runs: Sequence[_Run]) -> None:
    """Puts the runs that count together."""
    kept = [runs[k] for k in seen.runs.kept] if seen.runs else [runs[-1]]
    fed = [run for run in kept if run.sketch is not None]
    if not fed:
        return
    empty = sketch(torch.zeros(seen.shape))
    seen.sketch = torch.stack([empty.to(fed[0].sketch) if run.sketch is None else run.sketch for run in kept])
    for k, reading in enumerate(seen.readings):
        parts = [run.cells[k] for run in kept if run.cells]
        joining = seen.joining(reading)
        if joining is not None and joining.axis == 0 and len(parts) == len(kept):
            seen.cells.append(torch.stack(parts))
        elif parts:
            seen.cells.append(torch.stack(parts).sum(0))
    if len(seen.cells) != len(seen.readings):
        seen.cells = []


def _mark_branches(recorder: _Recorder, everything: Mapping[str, Sighting]) -> None:
    """Marks the layers on one of several branches that read the same activation: none of them is the whole way."""
    made = {step.out for step in recorder.steps}
    readers: dict[tuple[int, int], dict[str, None]] = {}
    for step in recorder.steps:
        if any(other in made and other != step.given[0] for other in step.given[1:]):
            continue  # where branches meet again
        alive = any(run.sketch is not None and bool(run.sketch[0] > 0) for run in recorder.runs[step.name])
        if step.given and alive and step.out[0] not in {tensor for tensor, _ in step.given}:
            readers.setdefault(step.given[0], {})[step.name] = None
    branches = set()
    for names in readers.values():
        around = {n: max((o for o in names if n.startswith(f"{o}.")), key=len, default="") for n in names}
        branches |= {n for n in names if sum(around[n] == other for other in around.values()) > 1}
    beside: set[tuple[int, int]] = set()
    for step in recorder.steps:  # a module ends behind those inside it
        parts = step.name.split(".")
        inside = any(".".join(parts[:k]) in branches for k in range(1, len(parts) + 1))
        is_beside = inside or (len(set(step.given)) == 1 and step.given[0] in beside)
        if is_beside:
            beside.add(step.out)
        if step.name in everything:
            everything[step.name].beside = is_beside
