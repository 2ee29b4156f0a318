"""Each rule of a layer with weights against a replica by explicit matrices, on every kind of layer; folded norms."""

import itertools

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded, settled
from pellucid.engine.backward import Propagation, RuleTable
from pellucid.engine.rules.layers import (
    CONVOLUTIONS,
    DENSE,
    Affine,
    AffineRule,
    AlphaBeta,
    BatchNormalised,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZBox,
    ZPlus,
)

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (2, 6)),
    "linear over tokens": (lambda: nn.Linear(6, 4), (2, 3, 6)),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), (2, 6)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2), (2, 2, 4, 5)),
    "conv2d dilated": (lambda: nn.Conv2d(2, 3, 2, dilation=2, bias=False), (2, 2, 5, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2), (2, 2, 3, 3, 3)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 2, 4)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2), (2, 4, 3, 3)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 2, 2), (1, 2, 2, 2, 2)),
}
EPS = 1e-6


def stab(z):
    return z + EPS * torch.where(z < 0, -1.0, 1.0)


def share(z, w, b, R, x):
    """`R_j = sum_k x_j w_kj / (z_k + b_k) R_k` of one sample by matrices: `x (J,)`, `w (K, J)`, `R (K,)`."""
    return x * (w.T @ (R / stab(z + b)))


REPLICAS = {
    Epsilon(EPS): lambda x, w, b, R, y: share(w @ x, w, b, R, x),
    ZPlus(epsilon=EPS): lambda x, w, b, R, y: positive(x, w, b, R, 1),
    AlphaBeta(epsilon=EPS): lambda x, w, b, R, y: 2 * positive(x, w, b, R, 1) - positive(x, w, b, R, -1),
    Gamma(0.5, EPS): lambda x, w, b, R, y: gamma(x, w, b, R, y, 0.5),
    WSquare(): lambda x, w, b, R, y: (w**2).T @ (R / (w**2).sum(1)),
    Flat(): lambda x, w, b, R, y: (w != 0).to(w).T @ (R / (w != 0).sum(1)),
}


def positive(x, w, b, R, sign):
    """Only products of that sign, and the bias's part of it."""
    products = (w * x * sign).clamp(min=0)
    z = products.sum(1) + (b * sign).clamp(min=0)
    return products.T @ (R * sign / stab(sign * z) if sign < 0 else R / stab(z))


def gamma(x, w, b, R, y, g):
    """What has the unit's sign counts `1 + g` times."""
    sign = torch.where(y > 0, 1.0, -1.0)[:, None]
    products = w * x * (1 + g * (w * x * sign > 0))
    bias = b * (1 + g * (b * sign[:, 0] > 0))
    return products.T @ (R / stab(products.sum(1) + bias))


def matrix(layer, shape):
    """The layer as `W (K, J)` and `b (K,)` over flattened samples."""
    count = torch.Size(shape[1:]).numel()
    with torch.no_grad():
        b = layer(torch.zeros(1, *shape[1:]))
        w = layer(torch.eye(count).reshape(count, *shape[1:])) - b
    return w.flatten(1).T.double(), b.flatten().double(), b.shape[1:]


def led(net, rule, x, R, **more):
    """Relevance at the input, of relevance `R` at the output, and the pass."""
    leaf = x.clone().requires_grad_()
    run = Propagation(RuleTable(dict.fromkeys((*CONVOLUTIONS, *DENSE), rule) | more), net)
    with run:
        y = net(leaf)
    assert torch.equal(y, net(x))
    (g,) = torch.autograd.grad(y, leaf, R / y.detach())
    return x * g if not isinstance(rule, WSquare | Flat) else torch.where(x.abs() < 1e-12, 1e-12, x) * g, run


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", REPLICAS, ids=lambda r: type(r).__name__)
def test_a_rule_is_its_matrix_replica(name, rule):
    build, shape = LAYERS[name]
    layer, x = seeded(build).double(), noise(*shape).double()
    w, b, out = matrix(layer.float(), shape)
    layer.double()
    R = noise(len(x), *out, seed=1).double()
    found, _ = led(layer, rule, x, R)
    y = layer(x).detach().flatten(1)
    for k in range(len(x)):
        expected = REPLICAS[rule](x[k].flatten(), w, b, R[k].flatten(), y[k])
        torch.testing.assert_close(found[k].flatten(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_box_rule_by_matrices():
    layer, x = seeded(lambda: nn.Conv2d(2, 3, 2, bias=False)), noise(1, 2, 3, 3)
    w, _, out = matrix(layer, x.shape)
    R = noise(1, *out, seed=1)
    found, _ = led(layer, ZBox(EPS), x, R)
    low, high = (f(x, (2, 3), keepdim=True).expand_as(x).flatten().double() for f in (torch.amin, torch.amax))
    products = w * x.flatten().double() - w.clamp(min=0) * low - w.clamp(max=0) * high
    expected = products.T @ (R.flatten().double() / stab(products.sum(1)))
    torch.testing.assert_close(found.flatten().double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", [Epsilon(0.01), ZPlus(), AlphaBeta(), Gamma(), WSquare(), Flat()])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(3, 4, 3),
        lambda: nn.Conv2d(2, 4, 3, groups=2, bias=False),
        lambda: nn.ConvTranspose2d(4, 4, 2, groups=2),
    ],
)
def test_a_normalisation_behind_a_layer_is_one_layer_with_it(layer, rule):
    net = settled(seeded(lambda: nn.Sequential(layer(), nn.BatchNorm2d(4)))).double()
    x = noise(2, net[0].in_channels, 5, 5).double()
    transposed = isinstance(net[0], nn.ConvTranspose2d)
    folded = nn.utils.fusion.fuse_conv_bn_eval(net[0], net[1], transpose=transposed) if not transposed else None
    R = noise(*net(x).shape, seed=2).double()
    found, _ = led(net, rule, x, R, batch_norm=BatchNormalised())
    if folded is None:  # torch folds grouped transposed layers wrongly: its own scale, by hand
        folded = nn.ConvTranspose2d(4, 4, 2, groups=2).double()
        scale = (net[1].weight / (net[1].running_var + net[1].eps).sqrt()).detach()
        folded.weight.data = net[0].weight.detach() * scale.reshape(2, 1, 2, 1, 1).expand(2, 2, 2, 1, 1).flatten(0, 1)
        folded.bias.data = (net[0].bias.detach() - net[1].running_mean) * scale + net[1].bias.detach()
    torch.testing.assert_close(folded(x), net(x))
    leaf = x.clone().requires_grad_()
    with Propagation(RuleTable(dict.fromkeys(CONVOLUTIONS, rule)), folded):
        y = folded(leaf)
    (g,) = torch.autograd.grad(y, leaf, R / net(x).detach())
    expected = torch.where(x.abs() < 1e-12, 1e-12, x) * g if isinstance(rule, WSquare | Flat) else x * g
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))


class TwoReaders(nn.Module):
    """A convolution whose answer a normalisation reads, and somebody else too; registered in a misleading order."""

    def __init__(self):
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        z = self.conv(x)
        return self.bn(z) + z


def test_who_feeds_whom_counts_and_other_readers_keep_the_plain_layer():
    net, x = settled(seeded(TwoReaders)).double(), noise(1, 3, 2, 2).double()
    R = noise(1, 3, 2, 2, seed=1).double()
    found, run = led(net, Epsilon(1e-12), x, R, batch_norm=BatchNormalised())
    leaf = x.clone().requires_grad_()
    y = net(leaf)
    (g,) = torch.autograd.grad(y, leaf, R / y.detach())
    torch.testing.assert_close(found, x * g)  # with next to no epsilon, relevance is gradient times input
    assert run.acted == {"conv2d": 1, "batch_norm": 1}


WIDE = {
    "linear": (lambda: nn.Linear(40, 9), (3, 40)),
    "conv2d": (lambda: nn.Conv2d(6, 9, 3, padding=1), (2, 6, 5, 4)),
    "strided": (lambda: nn.Conv2d(8, 6, 3, stride=2, groups=2, bias=False), (2, 8, 7, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(36, 5, 2, stride=2), (2, 36, 3, 3)),
    "few inputs": (lambda: nn.Conv2d(6, 6, 3, groups=6), (2, 6, 5, 5)),
}


@pytest.mark.parametrize("signs", ["both", "one"])
@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(), AlphaBeta(alpha=1.5, beta=0.5), Gamma(), Gamma(2.0), Flat()])
@pytest.mark.parametrize("name", WIDE)
def test_a_rule_of_fewer_passes_is_its_definition(name, rule, signs, monkeypatch):
    """Products told apart by one pass of sizes, against the terms one by one."""
    build, shape = WIDE[name]
    layer, x = seeded(build), noise(*shape)
    x = x if signs == "both" else x.relu()
    R = noise(*layer(x).shape, seed=1)
    found, _ = led(layer, rule, x, R)
    monkeypatch.setattr(type(rule), "shared", AffineRule.shared)
    expected, _ = led(layer, rule, x, R)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("signs", ["both", "one"])
@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(), Gamma(), Flat()])
def test_a_rule_runs_its_layer_once_more(rule, signs, monkeypatch):
    layer, x = seeded(lambda: nn.Conv2d(90, 9, 1)), noise(2, 90, 6, 6)
    x = x if signs == "both" else x.relu()
    ran, run = [], Affine.run
    monkeypatch.setattr(Affine, "run", lambda *given: ran.append(1) or run(*given))
    led(layer, rule, x, layer(x).detach().relu())
    assert len(ran) == 1


def test_a_damped_gradient_is_the_rule_of_epsilon_by_its_definition():
    layer, x = seeded(lambda: nn.Conv2d(6, 9, 3, padding=1)), noise(2, 6, 5, 4)
    x[:, :2] = 0.0
    R = noise(*layer(x).shape, seed=1)
    for epsilon in (1e-6, 0.1):
        found, _ = led(layer, Epsilon(epsilon), x, R)
        z = layer(x).detach()
        share = R / torch.where(z >= 0, z + epsilon, z - epsilon)
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(layer(leaf), leaf, share)
        torch.testing.assert_close(found, x * g, rtol=1e-4, atol=1e-5 * float(found.abs().max()))


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("inputs", ["both signs", "one sign"])
def test_depthwise_layers_in_rows_of_channels_are_as_by_loops(beta, inputs):
    """The rule written out, unit by unit, in double precision."""
    layer, x = seeded(lambda: nn.Conv2d(5, 5, 3, groups=5)), noise(2, 5, 6, 7)
    x = x if inputs == "both signs" else x.abs()
    R = noise(2, 5, 4, 5, seed=1)
    found, _ = led(layer, AlphaBeta(1 + beta, beta, epsilon=1e-6), x, R)
    w, b, given = (t.detach().double() for t in (layer.weight, layer.bias, x))
    expected = torch.zeros_like(given)
    for n, c, i, j in itertools.product(range(2), range(5), range(4), range(5)):
        terms = given[n, c, i : i + 3, j : j + 3] * w[c, 0]
        up, down = terms.clamp(min=0), terms.clamp(max=0)
        p, m = up.sum() + b[c].clamp(min=0) + 1e-6, down.sum() + b[c].clamp(max=0) - 1e-6
        expected[n, c, i : i + 3, j : j + 3] += R[n, c, i, j] * ((1 + beta) * up / p - beta * down / m)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
