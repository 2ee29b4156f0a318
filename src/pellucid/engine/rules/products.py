"""Products, gates, normalisations and attention: who takes the relevance where two signals meet."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pellucid.engine.attention import attended, proven
from pellucid.engine.backward import Call, Rule, carrier
from pellucid.engine.rules.pointwise import Pass

PRODUCTS = ("mul", "matmul", "einsum", "outer", "dot")
LISTS = ("cat", "stack")
SUMS = ("add", "sub", "rsub", *LISTS)
PADS = ("pad", "constant_pad_nd")
SPREADS = ("norm", "linalg_norm", "linalg_vector_norm", "var", "std")
NORMS = ("layer_norm", "native_layer_norm", "group_norm", "rms_norm", "instance_norm")


@dataclass(frozen=True)
class Gate(Pass):
    """An activation whose answer, times a signal, takes nothing of the relevance (Arras et al. 2017, sec. 3)."""

    def __call__(self, call: Call) -> Any:
        """The activation's value, marked as a gate."""
        answer = super().__call__(call)
        return answer if answer is None else call.run.mark(answer, gate=True)


@dataclass(frozen=True)
class Expansion(Rule):
    """The gradient; what its expansion leaves over is absorbed."""

    def __call__(self, call: Call) -> Any:
        """The answer, led back plainly."""
        live = call.live()
        if not live:
            return None
        y, back = call.pulled(live)
        return call.rerouted(y, live, back)


@dataclass(frozen=True)
class Stop(Rule):
    """Attention weights are constants: nothing leads back (CP-LRP, Ali et al. 2022, arXiv:2202.07304).

    Attributes:
        otherwise: of a softmax that is no attention, over classes or over branches: in a product it is a gate.
    """

    otherwise: Rule = Expansion()

    def __call__(self, call: Call) -> Any:
        """The answer, detached; of a softmax over another axis than the last, as `otherwise` says."""
        with torch.no_grad():
            answer = call.answer()
        if call.name != "softmax" or (answer.ndim > 2 and call.argument(1, "dim") in (-1, answer.ndim - 1)):
            return answer.detach()
        return call.run.mark(self.otherwise(call), gate=True)


@dataclass(frozen=True)
class Shared(Rule):
    """Of a product of signals each takes the same share (Achtibat et al. 2024, arXiv:2402.05602, eq. 13).

    Of gate and signal, the signal takes all.
    """

    def __call__(self, call: Call) -> Any:
        """The product; None where at most one factor depends on the picture."""
        live = call.live()
        if len(live) < 2:
            return None
        gates = [k for k in live if call.run.is_gate(call.args[k])]
        if gates and len(gates) < len(live):
            held = [a.detach() if k in gates else a for k, a in enumerate(call.args)]
            return call.answer(*held)
        y, back = call.pulled(live)
        return call.rerouted(y, live, lambda g: [h / len(live) for h in back(g)])


@dataclass(frozen=True)
class Spread(Rule):
    """How far values lie apart, or how long they are: in a product, or below a line, it takes nothing.

    Attributes:
        otherwise: where it is itself a signal. A length is its gradient times its input.
    """

    otherwise: Rule = Expansion()

    def __call__(self, call: Call) -> Any:
        """The answer, marked as a gate; None where there are several."""
        if call.live() != [0]:
            return None
        return call.run.mark(self.otherwise(call), gate=True)


@dataclass(frozen=True)
class Denominator(Rule):
    """Of a quotient the numerator takes all."""

    def __call__(self, call: Call) -> Any:
        """The quotient, its denominator held fixed; None where that does not depend on the picture.

        A vector of zeros over its length, which is kept from 0 by almost nothing, takes no more than it is given.
        """
        live = call.live()
        if len(call.args) < 2 or 1 not in live:
            return None
        with torch.no_grad():
            value = call.answer()
        x = call.args[0]
        if live != [0, 1] or value.shape != x.shape:
            return call.answer(x, call.args[1].detach(), *call.args[2:])
        return call.rerouted(value, [0], lambda g: (carrier(value).div(carrier(x)).mul_(g),), keeps=True)


@dataclass(frozen=True)
class Normalised(Rule):
    """A normalisation by the picture's own statistics, its spread held fixed (Ali et al. 2022, eq. 9)."""

    def __call__(self, call: Call) -> Any:
        """`(x - mean) weight / spread + bias`, led back as if `weight / spread` were constant."""
        if call.live()[:1] != [0]:
            return None
        x = call.args[0].detach()
        answer = call.answer(x, *call.args[1:])
        y = answer[0] if isinstance(answer, tuple) else answer
        dims, shape = _statistics(call, x)
        grouped = x.reshape(shape)
        centre = torch.zeros(()) if call.name == "rms_norm" else grouped.mean(dims, keepdim=True)
        centred = grouped - centre.to(grouped)
        eps = _eps(call, x)
        scale = (centred.square().mean(dims, keepdim=True) + eps).rsqrt().expand_as(grouped).reshape(x.shape)
        weight = _weight(call)
        if weight is not None:
            channels = call.name in ("group_norm", "instance_norm")
            scale = scale * (weight.detach().reshape(-1, *[1] * (x.ndim - 2)) if channels else weight.detach())

        def back(g: Tensor) -> tuple[Tensor]:
            sent = (g * scale).reshape(shape)
            return ((sent if call.name == "rms_norm" else sent - sent.mean(dims, keepdim=True)).reshape(x.shape),)

        found = call.rerouted(y.detach(), [0], back)
        return (found, *answer[1:]) if isinstance(answer, tuple) else found


def _statistics(call: Call, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Over which axes statistics are taken, and of which shape."""
    if call.name == "group_norm":
        return (2,), (len(x), call.argument(1, "num_groups"), -1)
    if call.name == "instance_norm":
        return tuple(range(2, x.ndim)), tuple(x.shape)
    count = len(call.argument(1, "normalized_shape"))
    return tuple(range(x.ndim - count, x.ndim)), tuple(x.shape)


_WEIGHTS = {"group_norm": 2, "layer_norm": 2, "native_layer_norm": 2, "rms_norm": 2, "instance_norm": 3}
_EPSILONS = {"group_norm": 4, "layer_norm": 4, "native_layer_norm": 4, "rms_norm": 3, "instance_norm": 7}


def _weight(call: Call) -> Tensor | None:
    weight = call.argument(_WEIGHTS[call.name], "weight")
    return weight if isinstance(weight, Tensor) else None


def _eps(call: Call, x: Tensor) -> float:
    eps = call.argument(_EPSILONS[call.name], "eps", None if call.name == "rms_norm" else 1e-5)
    return torch.finfo(x.dtype).eps if eps is None else float(eps)


def constant_part(call: Call) -> Tensor | None:
    """What a sum or a list answers to zeros in the place of all that depends on the picture; None: nothing is left."""
    run = call.run
    summed = (
        call.args[:2] if call.name in ("add", "sub", "rsub") else ()
    )  # there a whole number counts, else it is an axis
    parts = [p for p in tree_leaves((call.args, call.kwargs)) if isinstance(p, Tensor | float)]
    parts += [p for p in summed if isinstance(p, int)]
    if all(isinstance(p, Tensor) and run.is_live(p) for p in parts):
        return None
    with torch.no_grad():
        args, kwargs = tree_map(
            lambda p: torch.zeros_like(p) if isinstance(p, Tensor) and run.is_live(p) else p, (call.args, call.kwargs)
        )
        answer: Tensor = call.function(*args, **kwargs)
    return answer.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)  # what is padded with -inf takes part in no maximum


@dataclass(frozen=True)
class Offset(Rule):
    """Sums and lists with something that does not depend on the picture: its share of the relevance is absorbed."""

    def __call__(self, call: Call) -> Any:
        """The plain answer, which counts what its constant part takes; None where there is none."""
        run, constant = call.run, constant_part(call)
        if constant is None:
            return None
        answer = call.answer()
        if call.name in LISTS and call.args:  # a constant stands beside the rest: one of 0 carries relevance too
            constant = carrier(answer) * _constants(call)
        answer.register_hook(lambda g: run.absorb((constant.double() * g).sum()))
        return answer


def _constants(call: Call) -> Tensor:
    """1 where a list holds what does not depend on the picture, 0 elsewhere."""
    with torch.no_grad():
        marked = [(torch.zeros_like if call.run.is_live(t) else torch.ones_like)(t) for t in call.args[0]]
        found: Tensor = call.answer(marked, *call.args[1:])
    return found


@dataclass(frozen=True)
class Padded(Offset):
    """Zeros padded on are no part of the picture, as those that a convolution pads by itself are none.

    A rule that shares alike among all that it reads leaves them out. Other values are constants, as in a sum.
    """

    def __call__(self, call: Call) -> Any:
        """The plain answer, noted as padded; None where what is put on is the picture's own (a mirror)."""
        value = call.argument(3 if call.name == "pad" else 2, "value")
        if call.live() != [0] or (call.name == "pad" and call.argument(2, "mode", "constant") != "constant"):
            return None
        if value:
            return super().__call__(call)
        y, back = call.pulled([0])
        answer = call.rerouted(y, [0], back)
        like = call.args[0].detach()
        call.run.padded[answer] = (answer._version, lambda: call.answer(torch.ones_like(like), *call.args[1:]))
        return answer


@dataclass(frozen=True)
class Balanced(Offset):
    """A sum of two signals, which share by the size of their totals (Chefer et al. 2021, arXiv:2012.09838, eq. 9-10).

    Where their shares have opposite signs and nearly cancel, plain shares grow without bound; these do not. Totals are
    taken over the whole batch: run one input at a time.
    """

    def __call__(self, call: Call) -> Any:
        """The sum; of a signal and a constant, as `Offset`."""
        live = call.live()
        if len(live) < 2:
            return super().__call__(call)
        y, back = call.pulled(live)
        parts = [call.args[k].detach() for k in live]

        def balanced(g: Tensor) -> list[Tensor]:
            sent = back(g)
            totals = torch.stack([(x * h).sum(dtype=torch.float64) for x, h in zip(parts, sent, strict=True)])
            size = totals.abs()
            factors = torch.where(
                size > 0, totals.sum() * size / (totals * size.sum()).where(size > 0, totals.new_ones(())), 0.0
            )
            return [h * f.to(h) for h, f in zip(sent, factors, strict=True)]

        return call.rerouted(y, live, balanced)


_ATTENTION = inspect.signature(
    lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False: None
)


@dataclass(frozen=True)
class Attention(Rule):
    """Fused attention, taken apart into products and a softmax, each with its own rule."""

    def __call__(self, call: Call) -> Any:
        """Softmax of the scaled products, times the values; proven against the fused answer."""
        given = _ATTENTION.bind(*call.args, **call.kwargs)
        given.apply_defaults()
        with torch.no_grad():
            fused = call.answer()
        with call.run.inside():
            out, _ = attended(**given.arguments)
        return proven(out, fused)


@dataclass(frozen=True)
class Opened(Rule):
    """Functions that are a formula in others: gated linear units, and a product added to something."""

    def __call__(self, call: Call) -> Any:
        """The formula, each part with its own rule."""
        if call.name == "normalize":
            return Pass()(call)  # a vector of zeros takes no more than it is given, though 1 / eps is its slope
        with call.run.inside():
            if call.name == "glu":
                signal, gate = call.args[0].chunk(2, call.argument(1, "dim", -1))
                return signal * gate.sigmoid()
            if call.name == "baddbmm" and not ({"alpha", "beta"} & set(call.kwargs)):
                return call.args[0] + torch.bmm(*call.args[1:3])
            if call.name == "addcmul":
                return call.args[0] + call.args[1] * call.args[2] * call.kwargs.get("value", 1)
        return None
