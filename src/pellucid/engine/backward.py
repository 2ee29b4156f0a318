"""The backward pass by rules: what leads through a function is not its gradient but what a table says.

A rule is a small value, a table maps names of functions to rules, and `Propagation` is a table at work in one pass.
What flows is a gradient `g` at every tensor `y` of the network, whose relevance is `y g`: a rule that hands relevance
`R` to its input `x` hands the gradient `R / x`. So whatever only moves values needs no rule, and what has none is
followed by its plain gradient. RuleTable see functions and aten overloads, whoever calls them, in place or not; values
stay as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from pellucid.engine.functions import Function, Functions, Replacement
from pellucid.engine.recurrent import RECURRENT, written_out
from pellucid.engine.spelling import OPENED, name_of, opened, spelled, without_writing, words
from pellucid.engine.strides import plain
from pellucid.errors import MethodError

_GLANCE = 1024  # values that mostly tell whether any is below 0
_TINY = 1e-12  # below it a value carries relevance as if it were this large (in half precision, 1e-4)


MOVES = words("""
    reshape view flatten permute transpose t swapaxes swapdims movedim moveaxis squeeze unsqueeze expand expand_as
    view_as reshape_as repeat repeat_interleave tile contiguous clone to type type_as float double half bfloat16 cpu
    cuda getitem select narrow slice index index_select gather take take_along_dim masked_select split chunk unbind
    tensor_split split_with_sizes unsafe_chunk unsafe_split cat concat concatenate stack hstack vstack roll flip
    rot90 unfold fold im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle unflatten pad constant_pad_nd
    reflection_pad replication_pad dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout identity
    alias detach requires_grad get setitem copy lift lift_fresh broadcast_to broadcast_tensors masked_fill scatter
    scatter_add index_add index_copy index_put atleast_1d atleast_2d atleast_3d diagonal tril triu as_strided
    native_dropout unsafe_view unsafe_split_with_sizes
""")
"""What only moves values: the gradient moves relevance the same way back."""

SELECTING = words("""
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool1d max_pool2d max_pool3d
    max_pool2d_with_indices amax max min amin topk sort median kthvalue
""")
"""What picks some of the values: the gradient gives relevance to those."""

LINEAR = words("""
    add sub rsub subtract neg negative positive sum mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d upsample_linear1d nanmean cumsum lerp
""")
"""What is linear and without a bias: gradient times input is each summand's own share."""

PLAIN = MOVES | SELECTING | LINEAR
# One less a gate is the gate of the other side; a spread stays one over its mean, as in response normalisation.
_KEEP_GATES = MOVES | {"add", "sub", "rsub", "mul", "div", "neg", "mean", "sum", "sqrt", "pow"}

_KINDS: Any = WeakIdKeyDictionary()  # tensor -> (its version, what its carrier is): each value is looked at once
_COPIES: Any = WeakIdKeyDictionary()  # copy -> (its version, what it was made of)


def carrier(y: Tensor) -> Tensor:
    """What relevance is carried by: the value itself, or a tiny one in the place of 0; without a graph.

    It may be `y`'s own memory: not to be written to.
    """
    tiny = 1e-4 if y.dtype == torch.float16 else _TINY
    kind = _kind(y, tiny) if y.device.type == "cpu" and y.numel() else "mixed"
    y = y.detach()
    if kind == "itself":
        return y
    if kind == "positive":
        return y.clamp_min(tiny)
    return functional.hardshrink(y, tiny).add_(y.abs().le_(tiny).mul_(tiny))  # `where` takes five times as long


def _kind(y: Tensor, tiny: float) -> str:
    """Whether a tensor carries `itself`, is `positive` but for zeros, or `mixed`.

    The least values tell sooner than a mask, and cost no waiting on the CPU.
    """
    version = -1 if y.is_inference() else y._version
    copied = _COPIES.get(y)
    if copied is not None and copied[0] == version:
        return _kind(copied[1], tiny)
    known = _KINDS.get(y)
    if known is not None and known[0] == version:
        return str(known[1])
    values = y.detach()
    least = min(float(_part(values).min()), 0.0) or float(values.min())
    kind = "positive" if 0 <= least < tiny else "itself"
    if least < 0 and float(values.abs().min()) < tiny:
        kind = "mixed"
    _KINDS[y] = (version, kind)
    return kind


def _part(y: Tensor) -> Tensor:
    """Some of the values, without a copy."""
    while y.ndim > 1 and y.numel() > _GLANCE:
        y = y[0]
    return y


def carried(y: Tensor, g: Tensor) -> Tensor:
    """All the relevance of a tensor and its gradient, one number in double precision."""
    y, g = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (carrier(y), g))
    return torch.dot(y.flatten(), g.flatten()).double()


_BARE = (int, float, bool, str, type(None), torch.dtype, torch.device)


def _tensors(given: Any) -> Sequence[Tensor]:
    """The tensors that an argument or an answer is or holds; mostly it is one, or is none."""
    if isinstance(given, Tensor):
        return (given,)
    return () if isinstance(given, _BARE) else [t for t in tree_leaves(given) if isinstance(t, Tensor)]


@dataclass
class Call:
    """A function that was called in a pass by rules.

    Attributes:
        function: what was called, without writing to its input.
        name: what tables call it.
        args: positional arguments; kwargs: named ones.
        run: the pass.
    """

    function: Function
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    run: Propagation

    def answer(self, *args: Any) -> Any:
        """The function's own answer, to other positional arguments if there are any."""
        return self.function(*(args or self.args), **self.kwargs)

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def live(self) -> list[int]:
        """The places of the positional arguments that depend on the input."""
        return [k for k, each in enumerate(self.args) if isinstance(each, Tensor) and self.run.is_live(each)]

    def local(self, places: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """The function run apart: leaves in the places of its arguments, and its answer in their graph."""
        with torch.enable_grad():
            leaves = [self.args[k].detach().requires_grad_() for k in places]
            given = list(self.args)
            for k, leaf in zip(places, leaves, strict=True):
                given[k] = leaf
            return leaves, self.function(*given, **self.kwargs)

    def pulled(self, places: Sequence[int]) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        """The answer `y`, and the plain way back `g -> gradients` to the arguments at `places`."""
        leaves, value = self.local(places)

        def back(g: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(value, leaves, plain(g), retain_graph=True)

        return value.detach(), back

    def rerouted(
        self, value: Tensor, places: Sequence[int], back: Callable[[Tensor], Sequence[Tensor]], keeps: bool = False
    ) -> Tensor:
        """`value`, from which a gradient goes on as `back` says to the arguments at `places`."""
        return self.run.rerouted(value, [self.args[k] for k in places], back, keeps)


class Rule(ABC):
    """What leads back through a function: subclasses are frozen dataclasses, small values."""

    @abstractmethod
    def __call__(self, call: Call) -> Any:
        """What the call answers, in a graph whose backward pass is the rule; None: the rule does not fit this call."""


@dataclass(frozen=True)
class RuleTable:
    """A table as data: which rule for which function.

    Attributes:
        rules: name of a function (see `name_of`) -> its rule.
        first: the rule of the first layer with weights, in place of the table's.
        plain: functions whose gradient is their rule.
        unruled: functions that need a rule: where they have none, a note names them. None: all that are not plain.
    """

    rules: Mapping[str, Rule]
    first: Rule | None = None
    plain: frozenset[str] = PLAIN
    unruled: frozenset[str] | None = None

    def misses(self, name: str) -> bool:
        """Whether a function needs a rule and has none, or one that did not fit the call."""
        return (name not in self.rules and name not in self.plain) if self.unruled is None else name in self.unruled

    def with_rules(self, **changed: Rule | None) -> RuleTable:
        """The table with other rules; None takes one out."""
        rules = {name: rule for name, rule in {**self.rules, **changed}.items() if rule is not None}
        return replace(self, rules=rules)


class _Rerouted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, back: Any, copied: bool, value: Tensor, *sources: Tensor) -> Tensor:
        ctx.back = back
        return value.clone() if copied else value.data  # the rule keeps the value; the model writes to the copy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            return (None, None, None, *ctx.back(grads[0]))


def _written(x: Tensor, answer: Tensor) -> Tensor:
    """The answer, copied to where the model wants it."""
    written = x.copy_(answer)
    known = _COPIES.get(answer)
    if known is not None and known[1].dtype == x.dtype and known[1].shape == x.shape:
        _COPIES[written] = (written._version, known[1])
    return written


@dataclass(eq=False)
class Propagation:
    """A table at work: on between `with` and its end, for the forward pass; the backward pass may come later.

    Args:
        table: the rules.
        module: the model, whose parameters are not what is explained.
        strict: a function without a rule is an error.
        accounts: count the relevance that rules take out of the flow.

    Attributes:
        acted: how often each rule was met, by name of the function.
        unknown: how often each function without a rule was.
        absorbed: relevance that the rules took out of the flow (biases, stabilisers), of the backward pass that runs.
    """

    table: RuleTable
    module: nn.Module
    strict: bool = False
    accounts: bool = False
    acted: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    absorbed: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def __post_init__(self) -> None:
        self._functions: Any = None
        self._off, self._copies = False, True
        self._weights = {id(p) for p in self.module.parameters()}
        self._scripted = any(isinstance(part, torch.jit.ScriptModule) for part in self.module.modules())
        self._live: Any = WeakIdKeyDictionary()  # tensors that depend on the input; True: as a gate
        self._still: Any = WeakIdKeyDictionary()  # tensors with a graph that depend on weights alone
        self.notes: Any = (
            WeakIdKeyDictionary()
        )  # answer -> (its version, what a rule wants to know when it is read again)
        self.padded: Any = WeakIdKeyDictionary()  # answer -> (its version, what makes ones, and 0 where padded)
        self.first_seen = False  # a layer with weights was met
        self.layers_back = 0  # how many layers with weights have led back in this backward pass, by rules that count
        self.inputs: list[Any] = []  # of a reference pass: what each rule was given, in order
        self.reference: Iterator[Any] | None = None
        self.branched = False  # the pass and its reference are not of the same functions
        self._found: dict[Function, Replacement | None] = {}

    def __enter__(self) -> Self:
        self._functions = Functions(self)
        self._functions.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._functions is not None:
            self._functions.__exit__(*error)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, functions are torch's own: a score is no part of the network."""
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Inside, a rule's own functions are met too: it says what a function is made of."""
        assert self._functions is not None
        with self._functions, self._copying(True):
            yield

    def get(self, function: Function) -> Replacement | None:
        """Every function is heard: what depends on the input is known from one to the next."""
        return None if self._off or not torch.is_grad_enabled() else self._answer

    def is_live(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the input."""
        return tensor.requires_grad and (tensor in self._live or (tensor.is_leaf and id(tensor) not in self._weights))

    def is_gate(self, tensor: Tensor) -> bool:
        """Whether a tensor is a gate's, perhaps moved since."""
        return bool(self._live.get(tensor, False))

    def mark(self, answer: Any, gate: bool = False) -> Any:
        """Note that an answer depends on the input."""
        for each in _tensors(answer):
            if each.requires_grad:
                self._live[each] = gate
        return answer

    def _answer(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = [t for each in (*args, *kwargs.values()) for t in _tensors(each) if self._is_given(t)]
        if not given:
            return function(*args, **kwargs)
        if function in OPENED and name_of(function)[0] not in self.table.rules:
            with self.inside():
                return opened(function)(*args, **kwargs)
        function, args, kwargs = spelled(function, args, kwargs)
        name, _ = name_of(function)
        if name in RECURRENT and name not in self.table.rules:
            with self.inside():
                steps = written_out(name, args)
            if steps is not None:
                return steps
        gate = name in _KEEP_GATES and all(map(self.is_gate, given))
        rule = self.table.rules.get(name)
        if rule is not None:
            apart = without_writing(function, args, kwargs)
            called, given_args, named = apart or (function, args, kwargs)
            call = Call(called, name, given_args, named, self)
            if apart is not None:  # the rule keeps what the input was before it is written to
                call.args = (self.mark(self._kept(args[0]), self.is_gate(args[0])), *call.args[1:])
            with self._copying(apart is None):
                answer = rule(call)
            if answer is not None:
                self.acted[name] += 1
                if isinstance(answer, Tensor) and answer not in self._live:
                    self.mark(answer, gate)
                return answer if apart is None else self.mark(_written(args[0], answer))
        answer = function(*args, **kwargs)
        differentiable = any(t.requires_grad for t in _tensors(answer))
        if differentiable and self.table.misses(name):
            self._miss(name)
        return self.mark(answer, gate)

    def _kept(self, x: Tensor) -> Tensor:
        """What is about to be written to, as it is: what a rule has kept of it, else a copy."""
        known = _COPIES.get(x)
        if known is None or known[0] != x._version or known[1].dtype != x.dtype:
            return x.clone()
        kept: Tensor = _Rerouted.apply(lambda g: (g,), False, known[1], x)
        _COPIES[kept] = (kept._version, known[1])
        return kept

    @contextmanager
    def _copying(self, on: bool) -> Iterator[None]:
        """Whether the model is handed copies: not where a rule's answer is copied to where it is written anyway."""
        before, self._copies = self._copies, on
        try:
            yield
        finally:
            self._copies = before

    def _miss(self, name: str) -> None:
        """Count a function without a rule."""
        self.unknown[name] += 1
        if self.strict:
            raise MethodError(
                f"The network calls `{name}`, for which there is no rule: leave strict out to follow its plain "
                "gradient, with a note, or use integrated-gradients."
            )

    def _is_given(self, tensor: Tensor) -> bool:
        """`is_live`, also of what comes from a function that was not heard: one of the network's own, or a write."""
        if self.is_live(tensor) or not tensor.requires_grad or tensor.is_leaf:
            return self.is_live(tensor)
        if tensor in self._still or not self._reaches_input(tensor):
            self._still[tensor] = True
            return False
        node: Any = tensor.grad_fn
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            self._miss(type(node).__name__.removesuffix("Backward"))
        elif self._scripted and node is not None and node.name() != "CopySlices":
            self._miss("script")
        self.mark(tensor)
        return True

    def _reaches_input(self, tensor: Tensor) -> bool:
        """Whether the graph of a tensor leads to a leaf that is no weight."""
        waiting, seen = [tensor.grad_fn], set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if isinstance(leaf, Tensor) and id(leaf) not in self._weights:
                return True
            waiting += [following for following, _ in node.next_functions]
        return False

    def rerouted(
        self,
        value: Tensor,
        sources: Sequence[Tensor],
        back: Callable[[Tensor], Sequence[Tensor]],
        keeps: bool = False,
    ) -> Tensor:
        """`value`, from which a gradient goes on to the sources as `back` says; a rule that `keeps` absorbs nothing."""

        def accounted(g: Tensor) -> Sequence[Tensor]:
            found = back(g)
            if keeps or not self.accounts:
                return found
            given = sum(carried(x, h) for x, h in zip(sources, found, strict=True))
            self.absorb(carried(value, g) - given)
            return found

        answer: Tensor = _Rerouted.apply(accounted, self._copies, value, *sources)
        _COPIES[answer] = (answer._version, value)
        return answer

    def absorb(self, relevance: Tensor) -> None:
        """Count relevance that goes on to no input."""
        self.absorbed = self.absorbed + relevance.detach().cpu()

    def begin(self) -> None:
        """A backward pass of another score begins."""
        self.absorbed, self.layers_back = torch.zeros((), dtype=torch.float64), 0

    def said(self) -> list[str]:
        """A note on what has no rule."""
        if not self.unknown:
            return []
        named = ", ".join(f"`{name}` ({count}x)" for name, count in self.unknown.most_common())
        found = [f"There is no rule for {named}: what leads through is the plain gradient (strict=True refuses that)."]
        if RECURRENT & set(self.unknown):
            found.append(
                "Recurrent layers with projections or packed sequences are not taken apart: let the model run on "
                "padded sequences of one length, or use occlusion."
            )
        return found
