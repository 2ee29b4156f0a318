"""FullGrad and Libra: closed forms of a small network, and shares that sum to the score on networks of all kinds."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.nets import noise, random_net, seeded
from pellucid.heatmaps import get_method

BOTH = ["full-grad", "libra-gradients"]


class Odd(nn.Module):
    """Biases everywhere: functional, in place, of sums, normalisations, gates, quotients, saturated rectifiers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.group = nn.BatchNorm2d(6), nn.GroupNorm(2, 6)
        self.shift = nn.Parameter(torch.randn(6, 1, 1))
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)
        self.last = nn.LayerNorm(4)
        for part in (self.group, self.last, self.norm):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
        self.norm.running_mean.normal_()

    def forward(self, x):
        x = self.norm(self.a(x))
        x = functional.relu_(x)
        x = x + self.shift
        x = functional.hardtanh_(2 * self.b(x)) * torch.sigmoid(x)
        x = self.group(x)
        x = x + functional.silu(x)
        x += self.shift
        x = self.up(functional.max_pool2d(x, 2))
        x = x / (1 + x.square().mean(1, keepdim=True)).sqrt()
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        x = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.head(self.last(functional.gelu(x)).mean(1)) - 0.3


def odd():
    return seeded(Odd).eval()


@pytest.mark.parametrize("name", BOTH)
def test_shares_sum_to_the_score_whatever_the_functions_are(name):
    net, x = odd(), noise(2, 3, 8, 12)
    for target, found in enumerate(get_method(name).explain(net, x, [0, 1])):
        assert found.values.shape == (2, 8, 12)
        torch.testing.assert_close(found.values.flatten(1).sum(1), net(x)[:, target].detach(), rtol=1e-4, atol=1e-4)
        assert max(found.facts["completeness_gap"]) < 1e-4
        assert found.notes == []


def test_a_rectifier_network_by_hand():
    """`sum x g` at the input, `b g` at each bias, drawn where the convolution put it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).eval()
    x = noise(1, 2, 4, 4).requires_grad_()
    hidden = net[0](x)
    score = net(x)[0, 1]
    (g,) = torch.autograd.grad(score, x)
    taken = net[0].bias[:, None, None] * net[3].weight[1].reshape(3, 4, 4) * (hidden[0] > 0)
    expected = (x * g)[0].sum(0) + taken.sum(0) + net[3].bias[1] / 16
    (found,) = get_method("full-grad").explain(net, x.detach(), [1])
    torch.testing.assert_close(found.values[0], expected.detach())
    assert found.facts["in_biases"][0] == pytest.approx(float((taken.sum() + net[3].bias[1]).detach()), rel=1e-4)
    (libra,) = get_method("libra-gradients").explain(net, x.detach(), [1])
    torch.testing.assert_close(libra.values, found.values)
    (sizes,) = get_method("full-grad", absolute=True).explain(net, x.detach(), [1])
    expected = (x * g)[0].abs().sum(0) + taken.abs().sum(0) + net[3].bias[1].abs() / 16
    torch.testing.assert_close(sizes.values[0], expected.detach())


def test_a_bend_by_hand():
    """`y = w silu(v x)`: the gradient takes `x y'`, and `y - x y'` stays; Libra's gate takes nothing."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.SiLU(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    torch.manual_seed(0)
    x = noise(1, 1, 2, 2)
    with torch.no_grad():
        v, w = net[0].weight.reshape(()), net[3].weight.reshape(1, 2, 2)
        whole = w * functional.silu(v * x[0])
    gradient = get_method("input-x-gradient").attribute(net, x, 0)[0]
    (full,) = get_method("full-grad").explain(net, x, [0])
    torch.testing.assert_close(full.values, whole)  # cell by cell, as all is cell by cell
    assert full.facts["in_biases"][0] == pytest.approx(float((whole - gradient).sum()), abs=1e-5)
    (libra,) = get_method("libra-gradients").explain(net, x, [0])
    torch.testing.assert_close(libra.values, whole)
    assert libra.facts["in_biases"][0] == 0


@pytest.mark.parametrize("name", BOTH)
def test_one_by_one_or_together(name):
    net, x = odd(), noise(3, 3, 8, 8)
    method = get_method(name)
    together = method.attribute(net, x, 1)
    torch.testing.assert_close(torch.cat([method.attribute(net, one[None], 1) for one in x]), together)


NETWORKS = [
    ("resnet18", 64), ("mobilenetv2_050", 64), ("convnext_atto", 64), ("vit_tiny_patch16_224", 224),
    ("xcit_nano_12_p16_224", 224), ("regnety_002", 64), ("swin_tiny_patch4_window7_224", 224),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("network", "side"), NETWORKS)
def test_whole_networks_are_accounted_for(name, network, side):
    (found,) = get_method(name).explain(random_net(network), noise(1, 3, side, side), [1])
    assert max(found.facts["completeness_gap"]) < 1e-3
    assert found.notes == []


class Bent(nn.Module):
    """Activations that torch differentiates only once."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = functional.hardswish(self.a(x))
        return self.fc((x * functional.hardsigmoid(x.mean((2, 3), keepdim=True))).mean((2, 3)))


def test_functions_without_a_second_derivative_are_accounted_for():
    net, x = seeded(Bent).eval(), noise(2, 3, 8, 8)
    (found,) = get_method("full-grad").explain(net, x, [1])
    torch.testing.assert_close(found.values.flatten(1).sum(1), net(x)[:, 1].detach(), rtol=1e-4, atol=1e-5)


def test_ones_that_are_padded_on_are_accounted_for():
    """As linear attention sums its weights: a column of ones beside the values."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(3, 9)

        def forward(self, x):
            q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, 2)
            v = functional.pad(v, (0, 1), value=1.0)
            y = q.sigmoid() @ (k.sigmoid().transpose(1, 2) @ v)
            return (y[..., :-1] / y[..., -1:]).mean(1)

    for name in ("full-grad", "libra-gradients"):
        (found,) = get_method(name).explain(seeded(Padded).eval(), noise(2, 3, 4, 4), [1])
        assert max(found.facts["completeness_gap"]) < 1e-4


def test_what_is_padded_with_minus_infinity_in_front_of_a_maximum_is_worth_nothing():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            x = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
            return self.fc(x.mean((2, 3)))

    for name in ("full-grad", "libra-gradients", "lrp"):
        (found,) = get_method(name).explain(seeded(Pooled).eval(), noise(2, 3, 4, 4), [1])
        assert found.values.isfinite().all()
        assert max(found.facts.get("completeness_gap", []) + found.facts.get("conservation_gap", [])) < 1e-4
