"""A rectifier, a spread or a maximum in spellings that no layer of torch has: the accounts close, maps are the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method


def by_index(x):
    x = x.clone()
    x[x < 0] = 0
    return x


RECTIFIED = {
    "torch.where": lambda x: torch.where(x > 0, x, 0.0),
    "the other way round": lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
    "Tensor.where": lambda x: x.where(x > 0, 0.0),
    "times a mask": lambda x: x * (x > 0),
    "times a mask of numbers": lambda x: (x > 0).float() * x,
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "masked_fill_": lambda x: x.clone().masked_fill_(x <= 0, 0),
    "by index": by_index,
    "leaky, of slope 0": lambda x: functional.leaky_relu(x, 0.0),
    "leaky, of slope 0, in place": lambda x: functional.leaky_relu_(x.clone(), negative_slope=0.0),
    "elu, of alpha 0": lambda x: functional.elu(x, 0.0),
    "rrelu, of slopes 0": lambda x: functional.rrelu(x, 0.0, 0.0),
    "half of it and its size": lambda x: (x + x.abs()) / 2,
    "half of its size and it": lambda x: 0.5 * torch.add(abs(x), x),
}


class Net(nn.Module):
    def __init__(self, between, around=torch.nn.functional.gelu):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)
        self.between, self.around = between, around

    def forward(self, x):
        return self.fc(self.around(self.b(self.between(self.a(x)))).mean((2, 3)))


def pair(function):
    """The function's network, and one with the same weights and `relu`."""
    nets = [seeded(lambda f=f: Net(f, f)).eval() for f in (function, functional.relu)]
    return *nets, noise(2, 3, 8, 8)


METHODS = ["deep-lift", "guided-backprop", "deconvnet", "lrp", "full-grad"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spelling", RECTIFIED)
def test_a_rectifier_is_one_however_it_is_written(spelling, name):
    net, plain, x = pair(RECTIFIED[spelling])
    found, expected = (get_method(name).attribute(n, x, 1) for n in (net, plain))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["lrp", "deep-lift", "full-grad"])
def test_a_power_is_one_as_an_operator_and_as_a_function(name):
    """`x ** 2` is a function of torch in Python that wraps a built-in one, whose arguments cannot be asked for."""
    net, plain = (
        seeded(lambda f=f: Net(f)).eval() for f in (lambda x: x.relu() ** 2, lambda x: torch.pow(x.relu(), 2))
    )
    found, expected = (get_method(name).attribute(n, noise(2, 3, 8, 8), 1) for n in (net, plain))
    torch.testing.assert_close(found, expected)


BENT = {
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.01),
    "elu": lambda x: functional.elu(x, alpha=0.5),
    "rrelu": lambda x: functional.rrelu(x, 0.0, 0.5),
}


@pytest.mark.parametrize("name", ["guided-backprop", "deconvnet"])
@pytest.mark.parametrize("function", BENT)
def test_what_is_no_rectifier_is_led_through_by_its_gradient_and_named(function, name):
    net, x = seeded(lambda: Net(BENT[function], functional.relu)).eval(), noise(2, 3, 8, 8)
    (found,) = get_method(name).explain(net, x, [1])
    assert [f"`{function}` (1x)" in note for note in found.notes] == [True]
    with pytest.raises(MethodError, match=f"`{function}`, for which there is no rule"):
        get_method(name, strict=True).explain(net, x, [1])


@pytest.mark.parametrize("between", [lambda x: x + 2 * x.abs(), lambda x: x + (2 * x).abs(), lambda x: x - x.abs()])
def test_a_sum_with_another_size_is_no_rectifier(between):
    """Beside a network whose sum is hidden from the rules: the plain gradient leads through it."""

    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return between(x)

        @staticmethod
        def backward(ctx, g):
            leaf = ctx.saved_tensors[0].detach().requires_grad_()
            with torch.enable_grad():
                return torch.autograd.grad(between(leaf), leaf, g)

    nets = [seeded(lambda f=f: Net(f, functional.relu)).eval() for f in (between, Hidden.apply)]
    found, expected = (get_method("guided-backprop").attribute(net, noise(2, 3, 8, 8), 1) for net in nets)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["deep-lift", "guided-backprop", "lrp"])
def test_a_mask_that_is_no_rectifiers_is_a_constant(name):
    """A mask of its own, the same for any input: only what it lets through is led back."""
    kept = noise(2, 6, 8, 8, seed=4) > 0
    net, x = seeded(lambda: Net(lambda v: v * kept)).eval(), noise(2, 3, 8, 8)
    other = seeded(lambda: Net(lambda v: v.masked_fill(~kept, 0.0))).eval()
    if name == "guided-backprop":
        other = seeded(lambda: Net(lambda v: v * kept, functional.relu)).eval()
        net = seeded(lambda: Net(lambda v: v - v * ~kept, functional.relu)).eval()
    found, expected = (get_method(name).attribute(n, x, 1) for n in (net, other))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def response_normalised(x):
    length = x.norm(dim=(2, 3), keepdim=True)
    return x + x * (length / (length.mean(1, keepdim=True) + 1e-6))


SPREAD = {
    "response": response_normalised,
    "vector_norm": lambda x: x / torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "std": lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
    "var": lambda x: (x - x.mean((2, 3), keepdim=True)) * (x.var((2, 3), keepdim=True, correction=0) + 1e-3).rsqrt(),
    "local response": lambda x: functional.local_response_norm(x, 3, alpha=1.0),
    "log of a sum": lambda x: x - torch.logsumexp(x, 1, keepdim=True),
    "largest": lambda x: x * torch.sigmoid(x.amax((2, 3), keepdim=True)),
    "least": lambda x: x - x.amin(1, keepdim=True),
}


@pytest.mark.parametrize("name", ["lrp", "attn-lrp", "deep-lift", "full-grad", "libra-gradients"])
@pytest.mark.parametrize("function", SPREAD)
def test_spreads_and_extremes_have_rules(function, name):
    net, x = seeded(lambda: Net(SPREAD[function])).eval(), noise(1, 3, 8, 8)
    settings = {"baseline": "blur"} if name == "deep-lift" else {}
    (found,) = get_method(name, **settings).explain(net, x, [1])
    assert not any("There is no rule" in note for note in found.notes)
    (gap,) = (found.facts[k] for k in ("conservation_gap", "completeness_gap") if k in found.facts)
    assert max(gap) < 1e-3


@pytest.mark.parametrize("function", ["vector_norm", "std", "var"])
def test_of_a_spread_the_signal_takes_all(function):
    """With the spread held fixed by hand, `lrp` says the same."""
    x = noise(1, 3, 8, 8)
    held = {
        "vector_norm": lambda v: v / torch.linalg.vector_norm(v, dim=1, keepdim=True).detach(),
        "std": lambda v: (v - v.mean(1, keepdim=True)) / v.std(1, keepdim=True).detach(),
        "var": lambda v: (
            (v - v.mean((2, 3), keepdim=True)) * (v.var((2, 3), keepdim=True, correction=0) + 1e-3).rsqrt().detach()
        ),
    }[function]
    found, expected = (
        get_method("lrp", composite="epsilon").attribute(seeded(lambda f=f: Net(f)).eval(), x, 1)
        for f in (SPREAD[function], held)
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_differences_that_grow_from_a_spread_of_nothing_are_refused_while_they_are_still_numbers():
    """From black, without biases, the reference's spread is 0: what is divided by it grows without bound."""
    net = seeded(lambda: Net(lambda v: functional.layer_norm(v, v.shape[1:], eps=1e-20))).eval()
    nn.init.zeros_(net.a.bias)
    with pytest.raises(MethodError, match=r"grow beyond all numbers.*baseline=uniform or blur"):
        get_method("deep-lift").attribute(net, noise(1, 3, 8, 8), 1)


class Cosine(nn.Module):
    """Attention by angles over tokens of which some are zeros, as windows are padded."""

    def __init__(self, divided):
        super().__init__()
        self.embed, self.qkv, self.fc = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 18, bias=False), nn.Linear(6, 3)
        self.divided = divided

    def unit(self, x):
        if self.divided:
            return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return functional.normalize(x, dim=-1)

    def forward(self, x):
        x = functional.pad(self.embed(x).flatten(2).mT, (0, 0, 0, 2))
        q, k, v = self.qkv(x).chunk(3, -1)
        a = (self.unit(q) @ self.unit(k).mT * 5 + torch.eye(x.shape[1])).softmax(-1)
        return self.fc((x + a @ v).mean(1))


@pytest.mark.parametrize("name", ["lrp", "attn-lrp"])
@pytest.mark.parametrize("divided", [True, False])
def test_vectors_of_zeros_that_are_normalised_make_no_relevance(divided, name):
    net, x = seeded(lambda: Cosine(divided)).eval(), noise(1, 3, 8, 8)
    (found,) = get_method(name).explain(net, x, [1])
    assert max(found.facts["conservation_gap"]) < 1e-4
    assert found.notes == []
