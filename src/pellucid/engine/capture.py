"""Cut the graph at a layer: read its activation and the gradient of a score to it, at the cost of one forward.

The prefix of the network runs without a graph. A forward hook returns a detached copy of the layer's output
that requires a gradient, so autograd records only the tail, and `torch.autograd.grad(score, cut)` never
visits the prefix nor any parameter. Frozen, in-place and quantised prefixes therefore stop mattering.
"""

from __future__ import annotations

import difflib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pellucid.engine.edges import watch_edges
from pellucid.engine.folding import PASSES, PAYS, foldable, folded, may_have_twin
from pellucid.engine.hooks import Behind, End, Hooks
from pellucid.engine.leaves import first_tensor, replace_first_tensor
from pellucid.engine.misfit import OUTPUTS_ONLY
from pellucid.engine.names import renamed
from pellucid.engine.opaque import require_layers, require_readable
from pellucid.engine.run import batch_size, guarded_backward, joined, require_values, run_model
from pellucid.engine.runtimes.asked import Ran
from pellucid.engine.runtimes.choice import Place, choose, clock, note_pace
from pellucid.engine.runtimes.converted import Converted
from pellucid.engine.shells import hooked
from pellucid.engine.strides import straighten_gradients
from pellucid.engine.trace import leave_no_trace
from pellucid.errors import LayerError, ModelError, TargetError

_TIMED = 16  # passes of a capture: the least that one has taken counts, and a clock has its price


@dataclass
class Cost:
    """What an explanation has cost so far, counted in passes of one input each; and what ran most of them."""

    forwards: int = 0
    backwards: int = 0
    ran: Ran = field(default_factory=Ran, compare=False)

    def of_each(self, count: int) -> dict[str, float]:
        """Passes of each of `count` inputs that were explained together; whole numbers where they are."""
        shares = {"forwards": self.forwards / count, "backwards": self.backwards / count}
        return {way: int(share) if share.is_integer() else share for way, share in shares.items()}

    def add(self, other: Cost) -> None:
        """What a part of the work has cost."""
        self.forwards, self.backwards, self.ran = (
            self.forwards + other.forwards, self.backwards + other.backwards, other.ran,
        )  # fmt: skip


def unwrap(module: nn.Module) -> nn.Module:
    """The eager, single-device module inside `torch.compile` and `DataParallel` wrappers."""
    wrapped = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
    inner = getattr(module, "module" if wrapped else "_orig_mod", None)
    return unwrap(inner) if isinstance(inner, nn.Module) else module


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """The submodule called `name`; `LayerError` with near misses if there is none."""
    require_layers(module)
    layers: dict[str, nn.Module] = dict(module.named_modules())
    if name in layers and name:
        require_readable(module, name)
        return layers[name]
    near = difflib.get_close_matches(name, [n for n in layers if n], n=4, cutoff=0.4)
    hint = f"did you mean {', '.join(repr(n) for n in near)}?" if near else "it has no layer of a similar name."
    raise LayerError(f"The model has no layer {name!r}; {hint} `pellucid layers` lists them.")


def require_autograd(module: nn.Module) -> None:
    """Raises ModelError for weights created in inference mode, which autograd refuses to use."""
    held = (p for part in module.modules() for p in part._parameters.values() if p is not None)  # names cost
    if any(not is_lazy(p) and p.is_inference() for p in held):
        made = next(n for n, p in module.named_parameters() if not is_lazy(p) and p.is_inference())
        raise ModelError(
            f"The model's weights (first {made!r}) were created inside `torch.inference_mode`, so they admit no "
            "gradients: create or load the model outside of it."
        )


@dataclass(frozen=True)
class Runs:
    """Which runs of a layer that runs several times in a pass are read, and how they are put together.

    Attributes:
        kept: numbers of the runs, from 0.
        count: how often the layer runs in a pass.
        axis: of the channels, which are put side by side; 0: the runs are frames, folded into the batch.
        others: runs that stand beside these and are left out, because they are of another size.
    """

    kept: tuple[int, ...]
    count: int
    axis: int = 1
    others: int = 0

    def joined(self, runs: Sequence[Tensor]) -> Tensor:
        """The kept runs' activations, each `(N, ...)`, as one."""
        return torch.stack(list(runs), 1).flatten(0, 1) if self.axis == 0 else torch.cat(list(runs), self.axis)

    def parted(self, whole: Tensor) -> list[Tensor]:
        """The inverse of `joined`."""
        if self.axis == 0:
            return list(whole.reshape(-1, len(self.kept), *whole.shape[1:]).unbind(1))
        return list(whole.chunk(len(self.kept), self.axis))


class Capture:
    """One forward pass, cut at `layers` (in execution order only the first is detached from the prefix).

    Args:
        module: the model; left exactly as it was when the context ends.
        layers: names of the layers whose activations and gradients are wanted.
        watch: names of layers to read in the graph, for scores taken inside the network.
        input_gradient: cut at the model's input instead of at a layer.
        runs: of layers that run several times in a pass: each of these runs is cut, and they are read as one. A layer
            without is cut at every run and read at the last.
        stop_early: end the forward pass when all `layers` have run; the output is then `None`.
        edited: somebody else changes activations on the way, so a batch must not be run in parts.

    Example:
        with Capture(module, ["layer4"]) as capture:
            output = capture.forward(inputs)
            A, G = capture.activations["layer4"], capture.gradients([score(output)])[0]["layer4"]
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str] = (),
        *,
        watch: Sequence[str] = (),
        input_gradient: bool = False,
        stop_early: bool = False,
        runs: Mapping[str, Runs | None] | None = None,
        edited: bool = False,
    ) -> None:
        self.module = unwrap(module)
        self.layers, self.watch = tuple(layers), tuple(watch)
        self.input_gradient, self.stop_early, self.edited = input_gradient, stop_early, edited
        self.runs = {name: which for name, which in (runs or {}).items() if which is not None}
        self.activations: dict[str, Tensor] = {}
        self._cut: dict[str, list[Tensor]] = {}
        self.watched: dict[str, Tensor] = {}
        self._parts: list[tuple[dict[str, Tensor], dict[str, list[Tensor]]]] = []  # of a batch that was run in parts
        self._hooks = Hooks()
        self._edges = Hooks()
        self._graph_prefix = False
        self._twin: nn.Module | None = None
        self._folding = False  # tried, with success or without
        self.converted: Converted | None = None  # what runs in its place, if anything does
        self._asked = 0  # passes
        self._timed = 0
        self._hooked = False  # by somebody else
        self.ran = Ran()
        self._running = False  # hooks act in passes of this object's own alone
        self._runs: Counter[str] = Counter()
        self._turns: Counter[str] = Counter()
        self._until: Counter[str] | None = None
        self._guard = leave_no_trace(self.module)

    def __enter__(self) -> Capture:
        require_values(self.module)
        if not self.stop_early:
            require_autograd(self.module)
        try:
            self._guard.__enter__()
            self._hooked = any(map(hooked, self.module.modules()))
            # The cut comes first: a layer both cut and watched is watched behind the cut.
            this: Any = weakref.proxy(self)  # so that a model does not keep what an interrupt has left on it
            for names, hook in ((self.layers, Capture._cut_hook), (self.watch, Capture._watch_hook)):
                for name in names:
                    layer = find_layer(self.module, name)
                    self._hooks.behind(layer, hook(this, name))
            if not self.stop_early:
                watch_edges(self.module, self._edges)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._hooks.close()
            self._edges.close()
            self.activations = {}
            self.watched = {}
            self._parts = []
        finally:
            self._guard.__exit__(*error)

    def forward(self, inputs: Tensor, module: nn.Module | None = None, *, scratch: bool = False) -> Any:
        """Run the model on `inputs` `(N, C, *space)`; the user's tensor is never written to.

        Args:
            inputs: a batch.
            module: what runs in the model's place: a copy of it that shares its hooks.
            scratch: the inputs are nobody's: the model may write to them, so they are not copied.
        """
        output = self._run(inputs, module or self.converted or self.network, scratch)
        missing = [n for n in (*self.layers, *self.watch) if n not in self.activations and n not in self.watched]
        if missing:
            raise LayerError(
                f"Layer {missing[0]!r} never ran in the forward pass; name a layer that does (`pellucid layers` "
                "lists those)."
            )
        return output

    @property
    def network(self) -> nn.Module:
        """What passes run in: the model, or the twin that it was quickened by."""
        return self._twin or self.module

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Inside, the hooks act in passes that somebody else runs too: who reads a layer shows in the graph."""
        before, self._running = self._running, True
        try:
            yield
        finally:
            self._running = before

    def quicken(self, x: Tensor, passes: int) -> int:
        """Let later passes without a graph run in another runtime, or in a twin that answers the same sooner.

        Whichever is proven and pays. May be called again, when more passes are known to come.

        Args:
            x: one input `(1, C, *space)`.
            passes: of one input that are asked for altogether.

        Returns:
            The passes that this took.
        """
        spent = self.convert(x, passes)
        return spent if self.converted is not None else spent + self.fold(x, passes)

    def fold(self, x: Tensor, passes: int, *, layout: bool = True) -> int:
        """The second half of `quicken`: the twin alone; without `layout`, only where there may be something to fold."""
        able = may_have_twin if layout else foldable
        if self._folding or passes < PAYS or not self._plain or not able(self.module, x):
            return 0
        self._folding = True
        self._twin = folded(self.module, lambda module, inputs: module(inputs), x.detach())
        return PASSES

    @property
    def _plain(self) -> bool:
        return not self.input_gradient and (self.stop_early or not self.layers) and not batch_size(self.module)

    def _place(self, x: Tensor) -> Place:
        return tuple(x.shape[1:]), (*self.layers, *self.watch), not self.stop_early

    def convert(self, x: Tensor, passes: int) -> int:
        """The first half of `quicken`: another runtime alone."""
        fresh, self._asked = max(0, passes - self._asked), max(passes, self._asked)
        odd = self._hooked or self.runs or self.edited or self._until is not None
        if odd or not self._plain or self.converted is not None:
            return 0
        choice = choose(self.module, x.detach(), self._place(x), passes, fresh)
        self.converted, self.ran = choice.network, choice.ran
        return choice.passes

    def shorten(self) -> None:
        """Let later passes end behind the last watched layer, once each has run as often as it did in this one.

        Their output is `None`. For scores taken inside the network only.
        """
        self._until = Counter(self._runs)

    def _run(self, inputs: Tensor, module: nn.Module, scratch: bool) -> Any:
        self.activations.clear()
        self._parts.clear()
        x = inputs.detach()
        x = renamed(x, inputs) if scratch else x.clone()  # the model may write to its input
        if self.input_gradient:
            self.activations["input"] = x.requires_grad_()
            x = x.clone()

        def one_pass(part: Tensor) -> Any:
            if not self.input_gradient:
                self.activations.clear()
            self._cut.clear()
            self.watched.clear()
            self._runs.clear()
            self._turns.clear()
            with torch.set_grad_enabled(self.input_gradient or self._graph_prefix):
                timed = module is self.module and self._timed < _TIMED
                start = clock() if timed else 0.0
                try:
                    self._running = True
                    output = module(part)
                except End:
                    output = None
                finally:
                    self._running = False
                    self._join_runs()
                if self.input_gradient or (self.layers and not self.stop_early):  # else no gradient can be asked for
                    straighten_gradients(output, self.watched)
                if timed:
                    self._timed += 1
                    note_pace(module, self._place(part), clock() - start, len(part))
                elif module is self.converted:
                    (self.activations if self.stop_early else self.watched).update(self.converted.read)
                return output

        watched: list[dict[str, Tensor]] = []

        def after() -> None:
            self._parts.append((dict(self.activations), dict(self._cut)))
            watched.append(dict(self.watched))

        output = run_model(self.module, x, one_pass, after=after, whole=self.edited or module is not self.module)
        if self._parts:
            self.activations |= {} if self.input_gradient else self._whole([a for a, _ in self._parts], len(x))
            self.watched |= self._whole(watched, len(x))
        return output

    def _join_runs(self) -> None:
        for name, runs in self.runs.items():
            if len(self._cut.get(name, ())) == len(runs.kept):
                with torch.no_grad():
                    self.activations[name] = runs.joined(self._cut[name])

    def _whole(self, parts: Sequence[Any], count: int) -> Any:
        """What parts of a batch gave, as one."""
        return joined(parts, count, batch_size(self.module))

    def gradients(self, scores: Sequence[Tensor], *, last: bool = True) -> list[dict[str, Tensor]]:
        """For each score `(N,)`, its gradient to every captured activation, in one shared graph.

        The graph is freed behind the `last` of them.
        """
        # A layer may be cut at several runs, and a batch may have been run in parts.
        parts = [(self.activations, self._cut)] if self.input_gradient or not self._parts else self._parts
        cuts = [[cut.get(name, [a]) for name, a in activations.items()] for activations, cut in parts]
        wrt, found = [run for cut in cuts for runs in cut for run in runs], []
        for per_score in gradients(scores, wrt, needed=self.input_gradient, last=last):
            slopes = iter(per_score)
            each = [self._read([[next(slopes) for _ in runs] for runs in cut]) for cut in cuts]
            found.append(each[0] if len(each) == 1 else self._whole(each, len(scores[0])))
        return found

    def _read(self, gradients: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        named = zip(self.activations, gradients, strict=True)
        return {name: self.runs[name].joined(g) if name in self.runs else g[0] for name, g in named}

    def scored(
        self, inputs: Tensor, score: Callable[[Any, Mapping[str, Tensor]], Sequence[Tensor]]
    ) -> tuple[Any, list[Tensor]]:
        """Forward pass and the scores that `score(output, watched)` reads from it, in the graph.

        A model that switches autograd off around its own backbone would lose the graph behind the cut; then the
        pass is repeated with the prefix in the graph too.
        """
        for self._graph_prefix in (False, True):
            output = self.forward(inputs)
            scores = self.scores(output, len(inputs), score)
            if all(s.requires_grad for s in scores) or self.input_gradient:
                break
        return output, scores

    def scores(
        self, output: Any, count: int, score: Callable[[Any, Mapping[str, Tensor]], Sequence[Tensor]]
    ) -> list[Tensor]:
        """What `score(output, watched)` reads from the pass just made of `count` inputs, in the graph.

        Raises:
            TargetError: not one score for each input.
        """
        with torch.enable_grad():
            scores = list(score(output, self.watched))
        if wrong := [tuple(s.shape) for s in scores if s.shape != (count,)]:
            raise TargetError(
                f"The target returned scores of shape {wrong[0]} for {count} inputs; it must return one score for "
                "each, a tensor (N,)."
            )
        return scores

    @property
    def tail_only(self) -> bool:
        """Whether the graph of the pass begins at the cut."""
        return not self._graph_prefix

    def _cut_hook(self, name: str) -> Behind:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if not self._running:
                return None  # the model is run for something else
            activation = self._activation(name, output)
            if name in self.runs:
                return self._cut_run(name, activation, output)
            in_graph = torch.is_grad_enabled() and activation.requires_grad and len(self.activations) > 0
            if not in_graph or name in self.activations:
                activation = activation.detach()
                activation.requires_grad_(not self.stop_early)
            self.activations[name] = activation
            if self.stop_early:
                if len(self.activations) == len(self.layers) and not self.runs:
                    raise End
                return None
            torch.set_grad_enabled(True)
            # A copy goes on, so that an in-place operation behind the layer spoils neither the leaf nor its value.
            return replace_first_tensor(output, activation.clone())

        return hook

    def _cut_run(self, name: str, activation: Tensor, output: Any) -> Any:
        """One of several runs of a layer that are read as one."""
        turn, self._turns[name] = self._turns[name], self._turns[name] + 1
        if turn not in self.runs[name].kept:
            return None
        activation = activation.detach().requires_grad_(not self.stop_early)
        self._cut.setdefault(name, []).append(activation)
        self.activations[name] = activation
        if not self.stop_early:
            torch.set_grad_enabled(True)
            return replace_first_tensor(output, activation.clone())
        whole = all(len(self._cut.get(n, ())) == len(runs.kept) for n, runs in self.runs.items())
        if whole and len(self.activations) == len(self.layers):
            raise End
        return None

    def _watch_hook(self, name: str) -> Behind:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if not self._running:
                return None
            self.watched[name] = self._activation(name, output)
            self._runs[name] += 1
            if self._until is not None and self._runs == self._until:
                raise End
            return replace_first_tensor(output, self.watched[name].clone())

        return hook

    @staticmethod
    def _activation(name: str, output: Any) -> Tensor:
        activation = first_tensor(output)
        if activation is None:
            raise LayerError(f"Layer {name!r} returns no activation tensor ({type(output).__name__}); name another.")
        if activation.is_inference():
            raise ModelError(
                "The model runs in `torch.inference_mode`, which forbids gradients; use `torch.no_grad` instead."
            )
        return activation


_NO_WAY_BACK = (
    "No gradient leads from the score back to the input: the model or the target cuts the graph (torch.no_grad, "
    f"detach, rounding, numpy): {OUTPUTS_ONLY}"
)
_NOT_IN_GRAPH = (
    "The score does not depend on the explained layer through the model's graph: choose a layer that runs before what "
    "the target reads and behind the model's own cuts (torch.no_grad, numpy), return a score computed from the model's "
    f"output without detaching it, or {OUTPUTS_ONLY}."
)


def require_way_back(scores: Sequence[Tensor]) -> None:
    """Raises TargetError for a score without a graph."""
    if not all(score.requires_grad for score in scores):
        raise TargetError(f"{_NO_WAY_BACK}.")


def gradients(
    scores: Sequence[Tensor], wrt: Sequence[Tensor], *, needed: bool = False, last: bool = True
) -> list[tuple[Tensor, ...]]:
    """Gradient of each score `(N,)`, summed over the batch, to each tensor of `wrt`.

    Samples must not influence each other (evaluation mode sees to that), so the gradient of the sum is each
    sample's own. The graph is kept between the scores and freed with the last one, if it is the `last`. What a score
    does not depend on has a gradient of zero; with `needed`, a score that depends on nothing of `wrt` is an error.
    """
    results = []
    for k, score in enumerate(scores):
        if needed:
            require_way_back([score])
        elif not score.requires_grad:
            raise TargetError(_NOT_IN_GRAPH)
        with guarded_backward():
            grads = torch.autograd.grad(
                score.sum(), wrt, retain_graph=k < len(scores) - 1 or not last, allow_unused=True
            )
        if needed and all(g is None for g in grads):
            raise TargetError(f"{_NO_WAY_BACK}, or explain a layer behind the cut, for instance with grad-cam.")
        results.append(tuple(torch.zeros_like(w) if g is None else g for g, w in zip(grads, wrt, strict=True)))
    return results
