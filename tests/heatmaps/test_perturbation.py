"""Occlusion and feature ablation against captum's published values and plain loops."""

import itertools

import pytest
import torch

from helpers.nets import OneConv, chained, noise, pooled
from pellucid.engine import folding, perturb
from pellucid.engine.masks import grid_labels
from pellucid.engine.patches import PatchNet
from pellucid.engine.runtimes.asked import runtime
from pellucid.errors import MethodError
from pellucid.heatmaps import FeatureAblation, Occlusion

FOUR = torch.arange(16.0).reshape(1, 1, 4, 4)
ONE = torch.ones(1, 1, 4, 4)


def test_the_occlusion_values_of_captums_net():
    """Its test sums two inputs; here one is the input, the other is what shows when it is taken away."""
    net, x = OneConv(), FOUR + ONE
    assert torch.equal(Occlusion(window=4, baseline=ONE).attribute(net, x, 0), torch.full((1, 4, 4), 67.0))
    assert torch.equal(Occlusion(window=4, baseline=FOUR).attribute(net, x, 0), torch.full((1, 4, 4), 13.0))
    found = Occlusion(window=(2, 3), stride=(2, 1), baseline=ONE).attribute(net, x, 0)
    assert found[0].tolist() == [[17.0] * 4, [17.0] * 4, [64.0, 65.5, 65.5, 67.0], [64.0, 65.5, 65.5, 67.0]]


def score(net, x):
    with torch.no_grad():
        return float(net(x[None])[0, 1])


@pytest.mark.parametrize(
    ("space", "window", "stride"), [((20,), 4, 3), ((14, 17), (5, 3), 2), ((8, 9, 10), 4, (3, 2, 4))]
)
def test_occlusion_is_a_loop_over_windows(space, window, stride):
    net, x = pooled(len(space)), noise(2, 3, *space)
    sizes = window if isinstance(window, tuple) else (window,) * len(space)
    steps = stride if isinstance(stride, tuple) else (stride,) * len(space)
    starts = [range(0, -(-(s - w) // d) * d + 1, d) for s, w, d in zip(space, sizes, steps, strict=True)]
    expected = torch.zeros(2, *space, dtype=torch.float64)
    covered = torch.zeros(space, dtype=torch.float64)
    for start in itertools.product(*starts):
        box = tuple(slice(a, a + w) for a, w in zip(start, sizes, strict=True))
        covered[box] += 1
        for n in range(2):
            hidden = x[n].clone()
            hidden[(slice(None), *box)] = 0
            expected[(n, *box)] += score(net, x[n]) - score(net, hidden)
    found = Occlusion(window=window, stride=stride).attribute(net, x, 1)
    torch.testing.assert_close(found.double(), expected / covered, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("space", [(20,), (14, 17), (6, 9, 10)])
def test_feature_ablation_is_a_loop_over_segments(space):
    net, x = pooled(len(space)), noise(2, 3, *space)
    labels = grid_labels(space, [2] * len(space))
    found = FeatureAblation(segments=labels, baseline="mean").attribute(net, x, 1)
    for n, k in itertools.product(range(2), range(2 ** len(space))):
        hidden = torch.where(labels == k, x[n].mean(tuple(range(1, len(space) + 1)), keepdim=True), x[n])
        lost = score(net, x[n]) - score(net, hidden)
        torch.testing.assert_close(
            found[n][labels == k], torch.full_like(found[n][labels == k], lost), rtol=1e-3, atol=1e-6
        )


def test_what_does_not_fit_the_input_is_named():
    net, x = pooled(), noise(1, 3, 16, 20)
    for wrong, said in (
        (Occlusion(window=17), r"window of \[17, 17\] is larger than the input \(16, 20\)"),
        (Occlusion(window=(4, -1)), "window is one positive number"),
        (Occlusion(window=(4, 4, 4)), "one for each of 2 axes"),
        (Occlusion(stride=0), "stride is one positive number"),
        (FeatureAblation(segments=torch.zeros(16, 20).long()), "only one segment"),
        (FeatureAblation(segments=torch.zeros(4, 4).long()), "one integer for each place"),
        (FeatureAblation(segments=torch.rand(16, 20)), "one integer for each place"),
        (Occlusion(baseline="gray"), "no baseline 'gray'"),
    ):
        with pytest.raises(MethodError, match=said):
            wrong.attribute(net, x, 1)


def test_neither_batch_size_nor_company_matters(monkeypatch):
    net, x = pooled(), noise(3, 3, 16, 20)
    for method in (Occlusion(baseline="uniform"), FeatureAblation(baseline="uniform", seed=3)):
        whole = method.attribute(net, x, 1)
        alone = torch.cat([method.attribute(net, x[n : n + 1], 1) for n in range(3)])
        torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-6)
        with monkeypatch.context() as patched:
            patched.setattr("pellucid.engine.perturb.default_batch", lambda *_, **__: 7)
            torch.testing.assert_close(method.attribute(net, x, 1), whole, rtol=1e-4, atol=1e-6)
        assert torch.equal(method.attribute(net, x, 1), whole)


@pytest.mark.parametrize(
    "method",
    [
        Occlusion(window=(9, 6), stride=(7, 6), baseline="blur"),
        Occlusion(window=12, stride=6, baseline="noisy-linear"),
        FeatureAblation(baseline="mean"),
    ],
)
def test_maps_are_the_same_where_the_first_layers_run_on_windows_alone(method, monkeypatch):
    net = chained(32, 48, 48)
    x, targets = noise(2, 3, 61, 67), [[1, 2], 0]
    made = []
    expect = PatchNet.expect
    monkeypatch.setattr(PatchNet, "expect", lambda self, windows: made.append(len(windows)) or expect(self, windows))
    with runtime("torch"):  # whether another one pays hangs on how busy the machine is, and it takes passes too
        quick = method.explain(net, x, targets)
        assert sum(made) > 128
        monkeypatch.setattr(perturb, "find_patches", lambda *_: None)
        slow = method.explain(net, x, targets)
    for a, b in zip(quick, slow, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=1e-4, atol=1e-6)  # of scores of about a tenth
        plain = (
            b.cost.forwards - folding.PASSES
        )  # what nothing is patched in runs in a twin, which has a proof of its own
        assert a.cost.forwards == plain + 1 + 6 + 2  # the chain, the proof, each input's activations
