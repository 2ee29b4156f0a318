"""Paths that leave the straight line: closed forms on linear networks, loops by hand, completeness."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps import IDGI, XRAI, BlurIG, GuidedIG, IntegratedDecisionGradients, get_method
from pellucid.testing import check_method
from pellucid.testing.networks import Sound

NAMES = ("blur-ig", "idgi", "integrated-decision-gradients", "guided-ig", "xrai")


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name):
    check_method(get_method(name).quick())


def linear():
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))).eval()


def test_linear_networks_have_closed_forms():
    net, x, start = linear(), noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    w = net[1].weight[1].detach().reshape(3, 8, 8)
    change = (w * (x - start)).flatten(1).sum(1)
    close = {"rtol": 1e-4, "atol": 1e-5}
    (blurred,) = BlurIG().explain(net, x, [1])
    torch.testing.assert_close(blurred.values, w * (x - BlurIG().start(x)), **close)
    guided = GuidedIG(baseline=start).attribute(net, x, 1)
    torch.testing.assert_close(guided, w * (x - start), **close)
    along = IDGI(baseline=start).attribute(net, x, 1)
    torch.testing.assert_close(along, (w**2 / w.square().sum())[None] * change[:, None, None, None], **close)
    decided = IntegratedDecisionGradients(baseline=start).attribute(net, x, 1)
    torch.testing.assert_close(decided, w * (x - start) * change[:, None, None, None], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["blur-ig", "idgi", "guided-ig"])
def test_they_are_complete(name):
    (found,) = get_method(name, steps=100).explain(Sound(), noise(2, 3, 16, 16), [1])
    assert max(found.facts["completeness_gap"]) < 0.03
    assert found.notes == []


def test_idgi_is_what_a_loop_finds():
    net, x = Sound(), noise(1, 3, 16, 16)
    expected = torch.zeros_like(x)
    for k in range(5):
        z = (k / 5 * x).requires_grad_()
        score = net(z)[0, 1]
        (g,) = torch.autograd.grad(score, z)
        expected += g**2 / g.square().sum() * (net((k + 1) / 5 * x)[0, 1] - score).item()
    torch.testing.assert_close(IDGI(steps=5).attribute(net, x, 1), expected, rtol=1e-4, atol=1e-7)


class Steep(nn.Module):
    """`a b`, and a ripple in `c`."""

    def forward(self, x):
        a, b, c = x.flatten(1).unbind(1)
        return torch.stack([a, a * b + torch.sin(8 * c) / 4], 1)


def test_guided_ig_gives_each_term_to_its_own_values():
    x = torch.tensor([[[1.0, 1.0, 1.0]]])
    (found,) = GuidedIG(steps=200, fraction=0.34, distance=1.0).explain(Steep(), x, [1])
    a, b, c = found.values.flatten().tolist()
    assert a + b == pytest.approx(1, abs=0.05)
    assert c == pytest.approx(float(torch.sin(torch.tensor(8.0))) / 4, abs=0.05)


def test_xrai_takes_regions_by_their_gain_and_keeps_the_sum():
    net, x = linear(), torch.zeros(1, 3, 8, 8)
    x[:, :, :4] = 1.0  # two halves, told apart by colour
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[1] = torch.where(x[0] > 0, 1.0, 0.25).flatten()
    found = XRAI(least=4).attribute(net, x, 1)[0]
    assert (found[:4] > found[4:].max()).all()
    assert len(found[:4].unique()) == 1
    pixels = (net[1].weight[1].detach().reshape(3, 8, 8) * (x[0] - 0.5)).sum(0)
    assert float(found.sum()) == pytest.approx(float(pixels.sum()), rel=1e-3)


def test_gradients_are_counted():
    (found,) = IDGI(steps=10).explain(Sound(), noise(2, 3, 16, 16), [1])
    assert (found.cost.forwards, found.cost.backwards) == (2 * (1 + 11 + 2), 2 * 11)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("blur-ig", {"steps": 0}), ("guided-ig", {"fraction": 0}), ("xrai", {"scales": ()})],
)
def test_bad_settings_are_refused(name, wrong):
    with pytest.raises(MethodError, match=r"at least|between|one scale"):
        get_method(name, **wrong)


def test_xrai_refuses_clips():
    with pytest.raises(MethodError, match="cuts pictures into regions"):
        XRAI().attribute(Sound(3), noise(1, 3, 4, 16, 16), 1)
