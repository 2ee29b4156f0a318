"""Layers with weights, and the normalisation behind them: how relevance of `y = W x + b` is shared among the inputs.

Every rule here is `R_x = sum over terms of x' * W'^T (share R_y / (z + eps sign z))`, `z` the sum of `W' x' + b'` over
the terms: input, weights and bias by their signs, by their squares, or as ones. A layer whose answer a batch
normalisation reads is one layer with it, found by what was computed, not by names or order; so a rule answers the same
whether the normalisation is folded into the weights or not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.engine.backward import Call, Rule, carrier

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
DENSE = ("linear", "addmm")

Term = tuple[Tensor, Tensor, Tensor | None]
"""(input, weights, bias) as they count."""

Transposed = Callable[[Tensor], Tensor]
"""`s -> W^T s`: the plain way back through a layer."""

_MANY = 32  # inputs of a unit from which on signs are told apart by a sum of sizes: of fewer, all may have one sign
_CLEAR = 1e-2  # of that sum: what is smaller is not told by a difference


def stable(z: Tensor, epsilon: float) -> Tensor:
    """`z`, moved away from 0 by `epsilon`."""
    return z.abs().add_(epsilon).copysign_(z)


def below_zero(x: Tensor) -> bool:
    """Whether any value is negative; the least of them is found in a tenth of the time that a mask takes."""
    return bool(x.numel()) and float(x.min()) < 0


class Affine:
    """A call of a layer with weights.

    Attributes:
        x: input; weight, bias: of the layer, detached; y: its answer.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        places = {"addmm": (1, 2, 0)}.get(call.name, (0, 1, 2))
        given = [call.argument(p, n) for p, n in zip(places, ("input", "weight", "bias"), strict=True)]
        self.place, self._places = places[0], places
        self.x, self.weight = given[0], given[1].detach()
        self.bias = None if given[2] is None else given[2].detach()

    @staticmethod
    def fits(call: Call) -> bool:
        """Whether the input alone depends on the picture."""
        return call.live() == [1 if call.name == "addmm" else 0]

    @property
    def ones(self) -> Tensor:
        """In the place of each value of the input a 1; a 0 where the network padded zeros on in a call of its own."""
        known = self.call.run.padded.get(self.x)
        unpadded = known is None or known[0] != self.x._version
        return self.in_rows(torch.ones_like(self.x) if unpadded else known[1]())

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer with another input and other weights, the same but for rounding; its answer is in `x`'s order."""
        as_usual = x.is_contiguous()
        x, weight = self.in_rows(x), self.in_rows(weight)
        given, named = list(self.call.args), dict(self.call.kwargs)
        for place, name, value in zip(self._places, ("input", "weight", "bias"), (x, weight, bias), strict=True):
            if len(given) > place:
                given[place] = (
                    torch.zeros((), dtype=x.dtype, device=x.device) if value is None and place == 0 else value
                )
            elif name in named or value is not None:
                named[name] = value
        answer: Tensor = self.call.function(*given, **named)
        return answer.contiguous() if self.depthwise and as_usual else answer

    def in_rows(self, t: Tensor) -> Tensor:
        """In rows of channels for a depth-wise layer, which torch then runs several times as fast; else as it is."""
        return t.contiguous(memory_format=torch.channels_last) if self.depthwise else t

    @property
    def input(self) -> Tensor:
        """The input without its graph, `in_rows`."""
        return self.in_rows(self.x.detach())

    @property
    def depthwise(self) -> bool:
        """Whether each channel of a picture is convolved by itself, on a CPU and in rows of pixels."""
        return (
            self.call.name == "conv2d"
            and self.x.device.type == "cpu"
            and self.x.ndim == 4
            and 1 < self.x.shape[1] == self.call.argument(6, "groups", 1)
            and self.x.is_contiguous()
        )

    @property
    def fan_in(self) -> int:
        """How many inputs a unit reads, about."""
        transposed = self.call.name.startswith("conv_transpose") or self.call.name == "addmm"
        return int(self.weight.numel() // self.weight.shape[1 if transposed else 0])

    def folded(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and bias of the layer with `scale y + shift` `(C,)` behind it."""
        w = self.weight
        if self.call.name.startswith("conv_transpose"):
            groups = self.call.argument(6, "groups", 1)
            per_row = scale.reshape(groups, 1, -1).expand(-1, len(w) // groups, -1).reshape(w.shape[:2])
            weight = w * per_row.reshape(*per_row.shape, *[1] * (w.ndim - 2))
        elif self.call.name == "addmm":
            weight = w * scale
        else:
            weight = w * scale.reshape(-1, *[1] * (w.ndim - 1))
        return weight, shift if self.bias is None else self.bias * scale + shift


class AffineRule(Rule):
    """Base: how a layer with weights hands on relevance."""

    def __call__(self, call: Call) -> Any:
        """The layer's answer; the first layer of a pass may have a rule of its own."""
        if not Affine.fits(call):
            return None
        layer, run = Affine(call), call.run
        rule = self if run.first_seen or run.table.first is None else run.table.first
        run.first_seen = True
        assert isinstance(rule, AffineRule)
        y, back = call.pulled([layer.place])
        answer = call.rerouted(y, [layer.place], lambda g: (rule.back(layer, y, g, None, back),))
        run.notes[answer] = (answer._version, layer, rule, back)
        return answer

    def normalised(self, layer: Affine, call: Call, scale: Tensor, shift: Tensor, back: Any) -> Any:
        """The answer of a batch normalisation behind the layer, as one layer with it."""
        with torch.no_grad():
            y = call.answer()
        norm = (scale, shift)
        return call.run.rerouted(y, [layer.x], lambda g: (self.back(layer, y, g, norm, back),))

    def back(
        self,
        layer: Affine,
        y: Tensor,
        g: Tensor,
        norm: tuple[Tensor, Tensor] | None,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> Tensor:
        """The gradient to the input.

        Args:
            layer: the layer; y: what it answered, behind its normalisation if there is one.
            g: the gradient at `y`.
            norm: scale and shift of that normalisation.
            plain: the plain way back through the layer without it.
        """
        weight, bias = (layer.weight, layer.bias) if norm is None else layer.folded(*norm)
        scale = None if norm is None else norm[0].reshape(-1, *[1] * (y.ndim - 2))

        def transposed(s: Tensor) -> Tensor:
            return plain(s if scale is None else s * scale)[0]

        return self.shared(layer, weight, bias, y, carrier(y) * g, transposed)

    def shared(
        self, layer: Affine, weight: Tensor, bias: Tensor | None, y: Tensor, R: Tensor, transposed: Transposed
    ) -> Tensor:
        """The gradient to the input whose relevance is this rule's share of `R`: by definition, term by term.

        Args:
            layer: the layer; weight, bias: with its normalisation; y: what it answers with these.
            R: the relevance of `y`.
            transposed: `s -> W^T s` through the graph of the layer's forward pass, for no further one.
        """
        found: Tensor | None = None
        R, y = layer.in_rows(R), layer.in_rows(y)
        for share, epsilon, terms in self.groups(layer, weight, bias, y):
            given = R if isinstance(share, float) else R * share
            if given is not R and not bool(given.any()):
                continue
            leaves = [t[0].detach().requires_grad_() for t in terms]
            z = sum(layer.run(leaf, w, b) for leaf, (_, w, b) in zip(leaves, terms, strict=True))
            assert isinstance(z, Tensor)
            sent = stable(z.detach(), epsilon)
            torch.div(given, sent, out=sent)
            if given is R and share != 1:
                sent.mul_(share)
            for leaf, h in zip(leaves, torch.autograd.grad(z, leaves, sent), strict=True):
                found = h.mul_(leaf.detach()) if found is None else found.addcmul_(leaf.detach(), h)
        if found is None:
            return torch.zeros_like(layer.x)
        return (found.contiguous() if layer.depthwise else found).div_(carrier(layer.x))

    @abstractmethod
    def groups(
        self, layer: Affine, w: Tensor, b: Tensor | None, y: Tensor
    ) -> Iterator[tuple[Tensor | float, float, Sequence[Term]]]:
        """Groups of terms, each with the share of the relevance that it is given, and its stabiliser."""


def signs(x: Tensor, plus: Tensor, minus: Tensor, bias: Tensor | None) -> list[Term]:
    """The positive inputs with `plus` and the bias, the negative ones, if there are any, with `minus`."""
    if not below_zero(x):
        return [(x, plus, bias)]
    return [(x.clamp(min=0), plus, bias), (x.clamp(max=0), minus, None)]


class SignedProducts:
    """The products of a layer by their signs, for one further forward pass, whatever signs its input has.

    With `p = W+ x+ + W- x- + b+` what excites a unit and `m` what inhibits it, `p + m = y`, the layer's answer, and
    `p - m = |W| |x| + |b|`, one pass. The ways back are sums and differences of `W^T` and `|W|^T` in the same manner.
    Where the input has one sign, that pass is `p` itself.

    Attributes:
        p, m: see above.
    """

    def __init__(self, layer: Affine, weight: Tensor, bias: Tensor | None, y: Tensor, back: Transposed):
        self.x: Tensor = layer.x.detach()
        self._transposed = back
        self._many = layer.fan_in >= _MANY
        self.one_sign = not below_zero(self.x)
        how = {"min": 0.0} if self.one_sign else {}
        self._leaf = (self.x.detach() if self.one_sign else self.x.abs()).requires_grad_()
        w, b = (t if t is None else t.clamp(min=0) if how else t.abs() for t in (weight, bias))
        assert w is not None
        self._sizes = layer.run(self._leaf, w, b)
        found = self._sizes.detach()
        if self.one_sign:
            self.p, self.m = found, (y - found).clamp_(max=0)
        else:
            self.p, self.m = (y + found).mul_(0.5), (y - found).mul_(0.5)

    def clear(self, part: Tensor, R: Tensor) -> bool:
        """Whether rounding does not show in `p`, or in `-m`, anywhere where there is relevance."""
        if self.one_sign:
            return True
        if not self._many:
            return False
        sizes = self._sizes.detach()
        if float(torch.sub(part, sizes, alpha=_CLEAR).min()) >= 0:  # a fraction of what the masks take
            return True
        return not bool(((part < _CLEAR * sizes) & (R != 0)).any())

    def back(self, both: Tensor | None, up: Tensor, down: Tensor) -> Tensor:
        """Relevance of the input: `W` sends `both`, what excites sends `up`, what inhibits sends `down`."""
        half = 1.0 if self.one_sign else 0.5
        (by_size,) = torch.autograd.grad(self._sizes, self._leaf, (up - down).mul_(half))
        plainly = down if self.one_sign else (up + down).mul_(half)
        found = self.x * self._transposed(plainly if both is None else plainly + both)
        return found.addcmul_(self._leaf.detach(), by_size)


def _part(b: Tensor | None, **bounds: float) -> Tensor | None:
    return None if b is None else b.clamp(**bounds)


@dataclass(frozen=True)
class Epsilon(AffineRule):
    """`R_j = sum_k x_j w_jk / (z_k + eps sign z_k) R_k` (Bach et al. 2015): in proportion to what each adds."""

    epsilon: float = 1e-6

    def back(
        self,
        layer: Affine,
        y: Tensor,
        g: Tensor,
        norm: tuple[Tensor, Tensor] | None,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> Tensor:
        """The plain way back of a gradient that is damped where `z` is small: no further forward pass."""
        y = carrier(y)
        sent = stable(y, self.epsilon)  # and from here on in its memory: to take new memory is most of the time
        torch.div(y, sent, out=sent).mul_(g)
        if norm is not None:
            sent.mul_(norm[0].reshape(-1, *[1] * (y.ndim - 2)))
        return plain(sent)[0]

    def groups(
        self, layer: Affine, w: Tensor, b: Tensor | None, y: Tensor
    ) -> Iterator[tuple[Tensor | float, float, Sequence[Term]]]:
        """All of it at once."""
        yield 1.0, self.epsilon, [(layer.input, w, b)]


@dataclass(frozen=True)
class Gamma(AffineRule):
    """As epsilon, with `w + gamma w+` (Montavon et al. 2019, table 10.1) for positive inputs of positive units.

    For inputs and units of either sign it is what speaks for a unit's sign that counts `1 + gamma` times (Andeol et al.
    2021), biases too: of zennit its `Gamma`, of autolrp its `gamma`, and not its `gamma_montavon`.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6

    def shared(
        self, layer: Affine, weight: Tensor, bias: Tensor | None, y: Tensor, R: Tensor, transposed: Transposed
    ) -> Tensor:
        """`z = y + gamma p` of positive units, `y + gamma m` of negative ones."""
        below = R * (y < 0)
        x = layer.x.detach()
        if below_zero(x) or bool(below.any()):
            split = SignedProducts(layer, weight, bias, y, transposed)
            up = R * (y > 0) / stable(y + self.gamma * split.p, self.epsilon)
            down = below.div_(stable(y + self.gamma * split.m, self.epsilon))
            return split.back(up + down, self.gamma * up, self.gamma * down).div_(carrier(layer.x))
        return super().shared(layer, weight, bias, y, R, transposed)

    def groups(
        self, layer: Affine, w: Tensor, b: Tensor | None, y: Tensor
    ) -> Iterator[tuple[Tensor | float, float, Sequence[Term]]]:
        """Units that are positive, and units that are negative."""
        x = layer.input
        up, down = w + self.gamma * w.clamp(min=0), w + self.gamma * w.clamp(max=0)
        b_up, b_down = (None if b is None else b + self.gamma * b.clamp(**k) for k in ({"min": 0}, {"max": 0}))
        yield (y > 0).to(y), self.epsilon, signs(x, up, down, b_up)
        if below_zero(y):
            yield (y < 0).to(y), self.epsilon, signs(x, down, up, b_down)


@dataclass(frozen=True)
class AlphaBeta(AffineRule):
    """`alpha` times the shares of what excites, less `beta` times those of what inhibits (Bach et al. 2015, eq. 60)."""

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = 1e-6

    def shared(
        self, layer: Affine, weight: Tensor, bias: Tensor | None, y: Tensor, R: Tensor, transposed: Transposed
    ) -> Tensor:
        """`alpha R / p` to what excites, `-beta R / m` to what inhibits."""
        x = layer.x.detach()
        both = below_zero(x)
        if both and layer.fan_in < _MANY:  # a sum of sizes would not tell the signs apart
            return super().shared(layer, weight, bias, y, R, transposed)
        if self.beta or both:
            split = SignedProducts(layer, weight, bias, y, transposed)
            if split.clear(split.p, R) and (not self.beta or split.clear(-split.m, R)):
                up = (self.alpha * R).div_(stable(split.p, self.epsilon))
                down = (-self.beta * R).div_(stable(split.m, self.epsilon)) if self.beta else torch.zeros_like(up)
                return split.back(None, up, down).div_(carrier(layer.x))
        return super().shared(layer, weight, bias, y, R, transposed)

    def groups(
        self, layer: Affine, w: Tensor, b: Tensor | None, y: Tensor
    ) -> Iterator[tuple[Tensor | float, float, Sequence[Term]]]:
        """What excites, and what inhibits."""
        x = layer.input
        up, down = w.clamp(min=0), w.clamp(max=0)
        yield self.alpha, self.epsilon, signs(x, up, down, _part(b, min=0))
        if self.beta:
            yield -self.beta, self.epsilon, signs(x, down, up, _part(b, max=0))


@dataclass(frozen=True)
class ZPlus(AlphaBeta):
    """Only what excites counts, `alpha = 1, beta = 0` (Montavon et al. 2017, arXiv:1512.02479)."""

    alpha: float = 1.0
    beta: float = 0.0


@dataclass(frozen=True)
class WSquare(AffineRule):
    """`R_j = sum_k w_jk^2 / sum_i w_ik^2 R_k`, whatever the input (Montavon et al. 2017)."""

    epsilon: float = 1e-9

    def groups(
        self, layer: Affine, w: Tensor, b: Tensor | None, y: Tensor
    ) -> Iterator[tuple[Tensor | float, float, Sequence[Term]]]:
        """Squared weights of ones."""
        yield 1.0, self.epsilon, [(layer.ones, w.square(), None)]


@dataclass(frozen=True)
class Flat(AffineRule):
    """`R_j = sum_k R_k / (inputs of k)`: alike over all that a unit reads (Lapuschkin et al. 2017)."""

    epsilon: float = 1e-9

    def shared(
        self, layer: Affine, weight: Tensor, bias: Tensor | None, y: Tensor, R: Tensor, transposed: Transposed
    ) -> Tensor:
        """All channels read and are read alike, so one of each says all."""
        if layer.call.name not in CONVOLUTIONS or layer.call.argument(6, "groups", 1) != 1:
            return super().shared(layer, weight, bias, y, R, transposed)
        channels = 1 - weight.ndim
        leaf = layer.ones.narrow(channels, 0, 1).clone().requires_grad_()
        z = layer.run(leaf, torch.ones_like(weight[:1, :1]), None)
        sent = R.sum(channels, keepdim=True) / stable(z.detach() * layer.x.shape[channels], self.epsilon)
        (h,) = torch.autograd.grad(z, leaf, sent)
        return h * leaf.detach() / carrier(layer.x)

    def groups(
        self, layer: Affine, w: Tensor, b: Tensor | None, y: Tensor
    ) -> Iterator[tuple[Tensor | float, float, Sequence[Term]]]:
        """Ones of ones."""
        yield 1.0, self.epsilon, [(layer.ones, torch.ones_like(w), None)]


@dataclass(frozen=True)
class ZBox(AffineRule):
    """`x w - low w+ - high w-` for inputs that lie in a box (Montavon et al. 2017, eq. for the first layer).

    The box is the input's own: each channel's least and greatest value in each picture.
    """

    epsilon: float = 1e-6

    def groups(
        self, layer: Affine, w: Tensor, b: Tensor | None, y: Tensor
    ) -> Iterator[tuple[Tensor | float, float, Sequence[Term]]]:
        """What the input is above the darkest, and below the brightest; what is padded on is no part of it."""
        x, ones = layer.input, layer.ones
        dims = tuple(range(2, x.ndim)) or (1,)
        inside = ones > 0
        low = x.where(inside, torch.inf).amin(dims, keepdim=True) * ones
        high = x.where(inside, -torch.inf).amax(dims, keepdim=True) * ones
        down, up = _part(b, min=0), _part(b, max=0)
        yield (
            1.0,
            self.epsilon,
            [
                (x, w, b),
                (low, -w.clamp(min=0), None if down is None else -down),
                (high, -w.clamp(max=0), None if up is None else -up),
            ],
        )


@dataclass(frozen=True)
class BatchNormalised(Rule):
    """A batch normalisation in evaluation mode: one layer with what feeds it, else its own plain scale.

    Attributes:
        alone: the rule of one that no layer feeds, in place of the plain scale.
    """

    alone: Rule | None = None

    def __call__(self, call: Call) -> Any:
        """The normalisation's answer; None where it takes its statistics from the batch."""
        if call.live() != [0]:
            return None
        x = call.args[0]
        line = straight_line(call)
        if line is None:
            return None
        scale, shift = line
        known = call.run.notes.get(x)
        if known is not None and known[0] == x._version:
            _, layer, rule, back = known
            return rule.normalised(layer, call, scale, shift, back)
        if self.alone is not None:
            return self.alone(call)
        with torch.no_grad():
            y = call.answer()
        factor = scale.reshape(-1, *[1] * (x.ndim - 2))
        return call.rerouted(y, [0], lambda g: (g * factor,))


def straight_line(call: Call) -> tuple[Tensor, Tensor] | None:
    """Scale and shift `(C,)` of a normalisation, read from its answers; None where they depend on its input."""
    if call.function is functional.batch_norm and len(call.args) > 2 and not call.argument(5, "training", False):
        mean, var = call.args[1:3]
        weight, bias = call.argument(3, "weight"), call.argument(4, "bias")
        if isinstance(mean, Tensor) and isinstance(weight, Tensor) and isinstance(bias, Tensor):
            scale = (var + call.argument(7, "eps", 1e-5)).rsqrt() * weight.detach()
            return scale, bias.detach() - mean * scale
    x = call.args[0].detach()
    with torch.enable_grad():
        zero = torch.zeros((2, x.shape[1], *[1] * (x.ndim - 2)), dtype=x.dtype, device=x.device)
        zero[1] = 1.0
        zero.requires_grad_()
        try:
            y = call.answer(zero, *call.args[1:])
        except (ValueError, RuntimeError):  # statistics of one value a channel
            return None
        (scale,) = torch.autograd.grad(y.sum(), zero)
    scale, shift = scale.reshape(2, -1), y.detach().reshape(2, -1)
    straight = torch.allclose(shift[1] - shift[0], scale[0], rtol=1e-3, atol=1e-5 * float(1 + shift.abs().max()))
    return (scale[0], shift[0]) if straight and torch.equal(scale[0], scale[1]) else None
