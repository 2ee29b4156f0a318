"""Gradients averaged over random copies: brute force, closed forms, captum, and when they stop."""

import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from helpers.nets import Sevens, noise, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps import ExpectedGradients, SmoothGrad, SmoothGradSquared, VarGrad, get_method
from pellucid.testing import check_method

NAMES = ("smooth-grad", "smooth-grad-squared", "var-grad", "expected-gradients")


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name):
    check_method(get_method(name, samples=10), clips=True)


def copies(x, samples, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    scale = noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).reshape(-1, 1, 1, 1)
    return [x + scale * torch.randn(1, *x.shape[1:], generator=generator) for _ in range(samples)]


def gradient(net, x, target=1):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x)[:, target].sum(), x)[0]


def test_they_are_what_a_loop_finds():
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    found = torch.stack([gradient(net, each) for each in copies(x, 11, 0.2, 5)])
    options = {"samples": 11, "noise": 0.2, "seed": 5, "tolerance": None}
    for method, expected in (
        (SmoothGrad(**options), found.mean(0)),
        (SmoothGradSquared(**options), found.square().mean(0)),
        (VarGrad(**options), found.var(0)),
    ):
        (ours,) = method.explain(net, x, [1])
        torch.testing.assert_close(ours.values, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
        assert (ours.cost.forwards, ours.cost.backwards) == (2 * 12, 2 * 11)
    (ours,) = SmoothGrad(**options).explain(net, x, [1])
    torch.testing.assert_close(ours.extras["standard_error"], found.std(0) / 11**0.5, rtol=1e-4, atol=1e-7)


def test_they_agree_with_captum_within_their_errors():
    net, x = seeded(Sevens).eval(), noise(1, 3, 32, 32)
    theirs = NoiseTunnel(Saliency(net))
    stdev = 0.1 * float(x.max() - x.min())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for method, kind in ((SmoothGrad, "smoothgrad"), (SmoothGradSquared, "smoothgrad_sq"), (VarGrad, "vargrad")):
            expected = theirs.attribute(x, nt_type=kind, stdevs=stdev, nt_samples=400, target=1, abs=False,
                                        nt_samples_batch_size=50)  # fmt: skip
            (ours,) = method(samples=400, noise=0.1, tolerance=None).explain(net, x, [1])
            away = (ours.values - expected) / (ours.extras["standard_error"] * 2**0.5)
            assert 0.7 < float(away.std()) < 1.3, kind


def test_a_linear_network_needs_no_copies():
    net, x = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 3))).eval(), noise(2, 3, 4, 4)
    weight = net[1].weight[1].reshape(3, 4, 4)
    (ours,) = SmoothGrad().explain(net, x, [1])
    torch.testing.assert_close(ours.values[0], weight)
    assert ours.facts["samples"] == [16.0, 16.0]  # the first look only remembers what is on top
    assert not VarGrad().attribute(net, x, 1).abs().max() > 1e-12
    (ours,) = ExpectedGradients(baseline="zero", tolerance=None, samples=4).explain(net, x, [1])
    torch.testing.assert_close(ours.values, x * weight)
    assert max(ours.facts["completeness_gap"]) < 1e-5


def test_expected_gradients_over_references_sum_to_the_mean_difference():
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    references = noise(8, 3, 32, 32, seed=3)
    (ours,) = ExpectedGradients(baseline=references, samples=400, tolerance=None).explain(net, x, [1])
    with torch.no_grad():
        change = net(x)[:, 1] - net(references)[:, 1].mean()
    torch.testing.assert_close(ours.values.flatten(1).sum(1), change, rtol=0.02, atol=0.02 * float(change.abs().max()))
    said = (ours.values.flatten(1).sum(1) - change).abs() / change.abs()
    torch.testing.assert_close(torch.tensor(ours.facts["completeness_gap"]), said, rtol=1e-2, atol=1e-4)


def test_inputs_stop_on_their_own_and_do_not_depend_on_their_company():
    net = seeded(Sevens).eval()
    x = torch.cat([noise(1, 3, 32, 32) * 0.01, noise(1, 3, 32, 32, seed=1) * 3])
    method = SmoothGrad(samples=64, tolerance=0.2, noise=0.3)
    (both,) = method.explain(net, x, [1])
    alone = [method.explain(net, x[k : k + 1], [1])[0] for k in range(2)]
    assert both.facts["samples"] == [a.facts["samples"][0] for a in alone]
    assert both.facts["samples"][0] < both.facts["samples"][1]
    for k in range(2):
        torch.testing.assert_close(both.values[k], alone[k].values[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("smooth-grad", {"samples": 1}, "at least 2 samples"),
        ("smooth-grad", {"noise": 0}, "positive share of the input's range"),
        ("var-grad", {"tolerance": 0}, "positive share, such as 0.1"),
        ("expected-gradients", {"baseline": "sky"}, "one of zero, mean, blur, uniform"),
    ],
)
def test_bad_settings_are_refused(name, wrong, said):
    with pytest.raises(MethodError, match=said):
        get_method(name, **wrong)


def test_references_of_another_size_are_refused():
    with pytest.raises(MethodError, match="References are"):
        ExpectedGradients(baseline=noise(4, 3, 8, 8)).attribute(seeded(Sevens).eval(), noise(1, 3, 32, 32), 1)
