"""Differences from a reference in place of gradients: multipliers `dy/dx` whose products with `dx` sum to `dy` exactly.

Two passes: the first, on the reference, notes what each of these functions was given; in the second, on the input, each
rule finds what its function was given then. The batch is never doubled, so no rule needs to know which axis it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.engine.backward import Call, Rule
from pellucid.engine.rules.layers import Affine, straight_line
from pellucid.engine.rules.products import SPREADS
from pellucid.engine.rules.rectifiers import RECTIFIERS, follows

_SAME = 1e-4  # of the larger value: a smaller difference has no slope of its own, the gradient's is taken
BRANCHED = (
    "The network computes otherwise for the reference than for the input (a branch of its own code), so their "
    "differences cannot be led back: use integrated-gradients."
)


class DifferenceRule(Rule):
    """Base: pairs each call with its like in the reference pass."""

    def __call__(self, call: Call) -> Any:
        """In the reference pass the function's own answer, noted; then the answer led back by differences."""
        live, run = call.live(), call.run
        if not live or not self.fits(call, live):
            return None
        places = self.noted(call, live)
        if run.reference is None:
            run.inputs.append((call.name, [call.args[k].detach().clone() for k in places]))
            return call.answer()
        name, before = next(run.reference, ("", []))
        if name != call.name or [t.shape for t in before] != [call.args[k].shape for k in places]:
            run.branched = True
            return None
        return self.led(call, live, before)

    def fits(self, call: Call, live: Sequence[int]) -> bool:
        """Whether the rule is for such a call."""
        return True

    def noted(self, call: Call, live: Sequence[int]) -> Sequence[int]:
        """The places of what the reference pass notes: of all that depends on the input."""
        return live

    @abstractmethod
    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The answer, led back; `before` is what the arguments at `noted` were in the reference pass."""


def _apart(x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Where two values differ, and by how much; 1 elsewhere, to divide by."""
    away = x - before
    apart = (away.abs() > _SAME * torch.maximum(x.abs(), before.abs())) & away.isfinite()
    return apart, torch.where(apart, away, 1.0)


@dataclass(frozen=True)
class Rescale(DifferenceRule):
    """`g dy / dx`, elementwise (Shrikumar et al. 2017, arXiv:1704.02685, sec. 3.5.1); the gradient where `dx` is 0."""

    def fits(self, call: Call, live: Sequence[int]) -> bool:
        """Functions of one value; of names that may be rectifiers, those that are."""
        return len(live) == 1 and (call.name not in RECTIFIERS or follows(call) is not None)

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The secant."""
        (place,) = live
        given = list(call.args)
        for noted, old in zip(self.noted(call, live), before, strict=True):
            given[noted] = old
        with torch.no_grad():
            reference = call.answer(*given)
        x = call.args[place].detach()
        y, back = call.pulled(live)
        apart, away = _apart(x, before[0])
        secant = (y - reference) / away
        return call.rerouted(y, live, lambda g: (torch.where(apart, g * secant, back(g)[0]),))


@dataclass(frozen=True)
class Switched(Rescale):
    """What a mask, made of the values themselves, lets through: a function of one value, as a rectifier is.

    Masks that are the same in both passes are constants. Nothing tells from which value a mask was made; where it was
    another, the gap says so.
    """

    def fits(self, call: Call, live: Sequence[int]) -> bool:
        """A signal, and masks of its shape."""
        return len(live) == 1 and len(self.noted(call, live)) > 1

    def noted(self, call: Call, live: Sequence[int]) -> Sequence[int]:
        """The signal, and the masks: made of its values, they have its shape, and no graph."""
        x = call.args[live[0]]
        masks = [
            k
            for k, a in enumerate(call.args)
            if k != live[0] and isinstance(a, Tensor) and a.shape == x.shape and not a.requires_grad
        ]
        return [live[0], *masks]

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The secant; of masks that are the same, the plain gradient."""
        masks = self.noted(call, live)[1:]
        if all(torch.equal(call.args[k], old) for k, old in zip(masks, before[1:], strict=True)):
            return call.answer()
        return super().led(call, live, before)


@dataclass(frozen=True)
class RevealCancel(Rescale):
    """What speaks for a unit and what speaks against it are led back apart (Shrikumar et al. 2017, sec. 3.5.3).

    With the differences that are added up to `dx = p + q`, positive and negative, `dy+` is the mean of what `p` adds to
    the function before and after `q`, and `dy-` the other way round. Where no layer with weights stands right in front,
    there is nothing to tell apart: rescale.
    """

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """Through the function and the layer in front of it at once."""
        (place,) = live
        known = call.run.notes.get(call.args[place])
        if known is None or known[0] != call.args[place]._version:
            return super().led(call, live, before)
        _, layer, x, old, scale = known
        given, was = list(call.args), before[0]

        def f(value: Tensor) -> Tensor:
            given[place] = value
            answer: Tensor = call.answer(*given)
            return answer

        weight = layer.weight if scale is None else layer.folded(scale, torch.zeros_like(scale))[0]
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        away = x - old
        for_it, against = away.clamp(min=0), away.clamp(max=0)
        with torch.no_grad():
            p = layer.run(for_it, up, None) + layer.run(against, down, None)
            q = layer.run(for_it, down, None) + layer.run(against, up, None)
            start, whole, only_p, only_q = f(was), f(was + p + q), f(was + p), f(was + q)
            y = f(call.args[place].detach())
            gained = ((only_p - start) + (whole - only_q)) / 2
            lost = ((only_q - start) + (whole - only_p)) / 2
            of_p = torch.where(p > 0, gained / torch.where(p > 0, p, 1.0), 0.0)
            of_q = torch.where(q < 0, lost / torch.where(q < 0, q, 1.0), 0.0)

        def through(value: Tensor, w: Tensor, g: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = value.detach().clone().requires_grad_()
                found: Tensor = torch.autograd.grad(layer.run(leaf, w, None), leaf, g)[0]
            return found

        def back(g: Tensor) -> tuple[Tensor]:
            good, bad = g * of_p, g * of_q
            above = through(x, up, good) + through(x, down, bad)
            below = through(x, down, good) + through(x, up, bad)
            return (torch.where(away > 0, above, torch.where(away < 0, below, (above + below) / 2)),)

        return call.run.rerouted(y, [layer.x], back)


@dataclass(frozen=True)
class Noted(DifferenceRule):
    """A layer with weights: the plain gradient, and a note of what it was given, for `RevealCancel` behind it."""

    def fits(self, call: Call, live: Sequence[int]) -> bool:
        """Layers whose weights do not depend on the picture."""
        return Affine.fits(call)

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The layer's own answer."""
        answer = call.answer()
        call.run.notes[answer] = (answer._version, Affine(call), call.args[live[0]].detach(), before[0], None)
        return answer


@dataclass(frozen=True)
class NotedNorm(Rule):
    """A batch normalisation behind such a layer: one layer with it."""

    def __call__(self, call: Call) -> Any:
        """The normalisation's own answer."""
        known = call.run.notes.get(call.args[0]) if call.live() == [0] else None
        line = None if known is None or known[0] != call.args[0]._version else straight_line(call)
        answer = call.answer()
        if known is not None and line is not None:
            call.run.notes[answer] = (answer._version, *known[1:4], line[0])
        return answer


@dataclass(frozen=True)
class Halved(DifferenceRule):
    """`d(ab) = da (b + b') / 2 + db (a + a') / 2`: a product's way back at the mean of its factors."""

    def __call__(self, call: Call) -> Any:
        """Of a signal and a mask, as `Switched`."""
        return Switched()(call) if len(call.live()) == 1 else super().__call__(call)

    def fits(self, call: Call, live: Sequence[int]) -> bool:
        """Products of two factors."""
        return len(live) == 2

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The product, led back from half way."""
        with torch.no_grad():
            y = call.answer()
        middle = list(call.args)
        for place, old in zip(live, before, strict=True):
            middle[place] = (call.args[place].detach() + old) / 2
        _, back = Call(call.function, call.name, tuple(middle), call.kwargs, call.run).pulled(live)
        return call.rerouted(y, live, back)


def _log_sum(x: Tensor, old: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`dL` of the log-sum of exponentials, and weights with `dL = sum w dx`, a mean of the old and new softmax.

    `L` is convex, so its change lies between what the old and the new weights say.
    """
    was, now = old.softmax(dim), x.softmax(dim)
    away = (x - old).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    logs = x.logsumexp(dim, keepdim=True) - old.logsumexp(dim, keepdim=True)
    low, high = ((s * away).sum(dim, keepdim=True) for s in (was, now))
    part = torch.where(high > low, (logs - low) / torch.where(high > low, high - low, 1.0), 0.5).clamp(0, 1)
    return logs, part * now + (1 - part) * was


@dataclass(frozen=True)
class SoftmaxDifference(DifferenceRule):
    """Softmax as `s = e^(x - L)`: a secant of `e`, and the exact change of the log-sum `L`."""

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The weights, led back."""
        dim, old = call.argument(1, "dim"), before[0]
        with torch.no_grad():
            x = call.args[0].detach()
            y, was = call.answer(), old.softmax(dim)
            logs, weights = _log_sum(x, old, dim)
            away = (x - old).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            apart, step = _apart(away - logs, torch.zeros_like(away))
            secant = torch.where(apart, (y - was) / step, y)

        def back(g: Tensor) -> tuple[Tensor]:
            sent = g * secant
            return (sent - weights * sent.sum(dim, keepdim=True),)

        return call.rerouted(y, [0], back)


@dataclass(frozen=True)
class LogSoftmaxDifference(DifferenceRule):
    """`x - L`, with the exact change of the log-sum `L`."""

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The logarithms, led back."""
        dim = call.argument(1, "dim")
        with torch.no_grad():
            y = call.answer()
            _, weights = _log_sum(call.args[0].detach(), before[0], dim)
        return call.rerouted(y, [0], lambda g: (g - weights * g.sum(dim, keepdim=True),))


_INDEXED: dict[str, Any] = {
    "max_pool1d": functional.max_pool1d_with_indices,
    "max_pool2d": functional.max_pool2d_with_indices,
    "max_pool3d": functional.max_pool3d_with_indices,
    "adaptive_max_pool1d": functional.adaptive_max_pool1d_with_indices,
    "adaptive_max_pool2d": functional.adaptive_max_pool2d_with_indices,
    "adaptive_max_pool3d": functional.adaptive_max_pool3d_with_indices,
}
MAX_POOLS = tuple(_INDEXED)


@dataclass(frozen=True)
class MaxPoolDifference(DifferenceRule):
    """`dy` goes to the window's winner, the input's where the maximum has grown, else the reference's.

    Its own difference is at least as large, so the multiplier `dy / dx` lies in [0, 1], window by window: exact where
    windows overlap too.
    """

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The pooled values, led back."""
        pool = _INDEXED[call.name]
        named = {k: v for k, v in call.kwargs.items() if k != "return_indices"}
        x, old = call.args[0].detach(), before[0]
        with torch.no_grad():
            (y, mine), (reference, its) = (pool(t, *call.args[1:], **named) for t in (x, old))
        flat = x.ndim - int(call.name[-2])
        away = (x - old).flatten(flat)
        winner = torch.where(y > reference, mine, its).flatten(flat)
        step, own = (y - reference).flatten(flat), away.gather(-1, winner)
        same = (mine == its).flatten(flat).to(step)
        share = torch.where(own != 0, step / torch.where(own != 0, own, 1.0), same)

        def back(g: Tensor) -> tuple[Tensor]:
            sent = torch.zeros_like(away).scatter_add(-1, winner, g.flatten(flat) * share)
            return (sent.reshape(x.shape),)

        return call.rerouted(y, [0], back)


@dataclass(frozen=True)
class LogSumDifference(DifferenceRule):
    """The exact change of a log-sum, shared by a mean of the old and new softmax."""

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The log-sum over one axis, led back."""
        dim, keep = call.argument(1, "dim"), bool(call.argument(2, "keepdim", False))
        dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
        if not isinstance(dim, int):
            return None
        with torch.no_grad():
            y = call.answer()
            _, weights = _log_sum(call.args[0].detach(), before[0], dim)
        return call.rerouted(y, [0], lambda g: ((g if keep else g.unsqueeze(dim)) * weights,))


@dataclass(frozen=True)
class MostDifference(DifferenceRule):
    """`dy` of the largest (or least) value along axes goes to the winner, as in a pooling with one window."""

    def led(self, call: Call, live: Sequence[int], before: Sequence[Tensor]) -> Any:
        """The values, led back."""
        x, old = call.args[0].detach(), before[0]
        dim = call.argument(1, "dim", ())
        dims = [d % x.ndim for d in (dim if isinstance(dim, list | tuple) else (dim,))] or list(range(x.ndim))
        rest = [d for d in range(x.ndim) if d not in dims]
        sign = -1.0 if call.name == "amin" else 1.0

        def rows(t: Tensor) -> Tensor:
            return t.permute(*rest, *dims).flatten(len(rest))

        with torch.no_grad():
            y = call.answer()
            away = rows(x - old)
            (top, mine), (was, its) = ((sign * rows(t)).max(-1) for t in (x, old))
            winner = torch.where(top > was, mine, its)[..., None]
            step, own = (sign * (top - was))[..., None], away.gather(-1, winner)
            same = (mine == its)[..., None].to(step)
            share = torch.where(own != 0, step / torch.where(own != 0, own, 1.0), same)
        order = [*rest, *dims]

        def back(g: Tensor) -> tuple[Tensor]:
            sent = torch.zeros_like(away).scatter_(-1, winner, g.reshape(step.shape) * share)
            return (sent.reshape([x.shape[d] for d in order]).permute([order.index(d) for d in range(x.ndim)]),)

        return call.rerouted(y, [0], back)


@dataclass(frozen=True)
class Largest(Rule):
    """`max`, `maximum` and their like: of a value and a constant a rectifier, else the largest along an axis.

    Of two tensors that both depend on the input the axis is a new one, as in `stack((a, b)).amax(0)`.

    Args:
        rectifier: the rule where it is one.
    """

    rectifier: DifferenceRule

    def __call__(self, call: Call) -> Any:
        """The values led back, with their places where the function tells them; None for what is neither."""
        live, least = call.live(), call.name.removeprefix("f").startswith("min")
        most = torch.amin if least else torch.amax
        other = call.argument(1, "other")
        if isinstance(other, Tensor):
            both = (call.args[0], other)
            if not all(map(call.run.is_live, both)):
                return self.rectifier(call)
            with call.run.inside():
                return most(torch.stack(torch.broadcast_tensors(*both)), 0)  # type: ignore[no-untyped-call]
        if live != [0]:
            return None
        with call.run.inside():
            dim = call.argument(1, "dim")
            if dim is None:
                return most(call.args[0])
            values = most(call.args[0], dim, call.argument(2, "keepdim", False))
        kind = torch.return_types.min if least else torch.return_types.max
        return kind((values, call.answer().indices))


@dataclass(frozen=True)
class Expanded(Rule):
    """Normalisations and quotients, written out in functions that have rules of their own."""

    def __call__(self, call: Call) -> Any:
        """The formula."""
        x = call.args[0]
        with call.run.inside():
            if call.name in ("div", "rsub"):
                return x * call.args[1].reciprocal() if 1 in call.live() else None
            if call.name in SPREADS:
                return _spread(call)
            if call.name == "normalize":
                p, dim = call.argument(1, "p", 2.0), call.argument(2, "dim", 1)
                if p != 2.0:
                    return None
                return x * (x.square().sum(dim, keepdim=True) + 1e-24).rsqrt()
            if call.name in ("group_norm", "instance_norm"):
                by_channel = call.name == "instance_norm"
                if by_channel and not call.argument(5, "use_input_stats", True):
                    return None  # a plain scale
                groups = x.shape[1] if by_channel else call.argument(1, "num_groups")
                eps = call.argument(7 if by_channel else 4, "eps", 1e-5)
                found = _standard(x.reshape(len(x), groups, -1), (2,), eps).reshape(x.shape)
                first = 3 if by_channel else 2
                weight, bias = call.argument(first, "weight"), call.argument(first + 1, "bias")
                shape = (-1, *[1] * (x.ndim - 2))
                weight, bias = (None if t is None else t.reshape(shape) for t in (weight, bias))
            else:
                dims = tuple(range(x.ndim - len(call.argument(1, "normalized_shape")), x.ndim))
                weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
                if call.name == "rms_norm":
                    eps, bias = call.argument(3, "eps"), None
                    eps = torch.finfo(x.dtype).eps if eps is None else eps
                    found = x * (x.square().mean(dims, keepdim=True) + eps).rsqrt()
                else:
                    found = _standard(x, dims, call.argument(4, "eps", 1e-5))
            found = found if weight is None else found * weight
            return found if bias is None else found + bias


def _spread(call: Call) -> Tensor | None:
    """A length or a variance in sums of squares; None where these do not give the function's own answer."""
    x: Tensor = call.args[0]
    y: Tensor = call.answer(x.detach(), *call.args[1:])
    named = "axis" if call.name.startswith("linalg") else "dim"
    place = 2 if "norm" in call.name else 1
    dims = call.argument(place, "dim", call.kwargs.get(named))
    dims = tuple(range(x.ndim)) if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    count = 1
    for d in dims:
        count *= x.shape[d]
    if "norm" in call.name:
        with torch.no_grad():
            near = x.detach().square().sum(dims).sqrt()
        if not torch.allclose(near.reshape(y.shape), y, rtol=1e-4) if near.numel() == y.numel() else True:
            return None
        return (x.square().sum(dims) + 1e-24).sqrt().reshape(y.shape)
    squares = (x - x.mean(dims, keepdim=True)).square().sum(dims)
    for free in (1, 0):
        found = squares / max(count - free, 1)
        found = found if call.name == "var" else (found + 1e-24).sqrt()
        if found.numel() == y.numel() and torch.allclose(found.detach().reshape(y.shape), y, rtol=1e-4):
            return found.reshape(y.shape)
    return None


def _standard(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
