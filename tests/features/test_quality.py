"""Measures of a picture against their plain definitions, and on cases whose answer is known."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from helpers.canvases import model_of
from helpers.nets import noise, pooled, seeded
from pellucid.errors import TargetError
from pellucid.features import Channel, Direction, Layer, Neuron, Robustness, activation
from pellucid.features.quality import (
    path_similarity,
    robust_activation,
    seed_stability,
    selectivity,
    static_equivalent,
)

SIDE = 20


@pytest.fixture
def model():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.Flatten()))
    return model_of(nn.Sequential(*net, nn.Linear(8 * 16 * 16, 4)).eval(), (3, SIDE, SIDE), black=-1.0)


def test_robust_activation_is_the_mean_over_the_views(model):
    picture = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    robust = Robustness(noise=0.05)
    found = robust_activation(model, Channel("2", 1), picture, robust, count=9, seed=4)
    views = robust.views(picture[None], 9, [torch.Generator().manual_seed(4)], (SIDE, SIDE))
    with torch.no_grad():
        values = model.module[:3](views * 2 - 1)[:, 1].mean((1, 2))
        plain = model.module[:3](picture[None] * 2 - 1)[:, 1].mean()
    assert found.plain == pytest.approx(float(plain), rel=1e-5)
    assert found.mean == pytest.approx(float(values.mean()), rel=1e-5)
    assert found.deviation == pytest.approx(float(values.std(unbiased=False)), rel=1e-4)
    assert found.lowest == pytest.approx(float(values.min()), rel=1e-5)
    still = robust_activation(model, Channel("2", 1), picture, Robustness.none(), count=3)
    assert still.deviation == pytest.approx(0, abs=1e-6)
    assert still.mean == pytest.approx(still.plain, rel=1e-6)


def test_selectivity_is_the_place_among_the_peers(model):
    x = noise(7, 3, SIDE, SIDE)
    with torch.no_grad():
        A = model.module[:3](x).double()
        y = model.module(x).double()
    for objective, peers, index in (
        (Channel("2", 3), A.mean((2, 3)), 3),
        (Neuron("2", 5, (1, 2)), A[:, :, 1, 2], 5),
        (2, y, 2),
    ):
        alone = selectivity(model, objective, x[:1])
        own = peers[0]
        assert (alone.rank, alone.of) == (1 + int((own > own[index]).sum()), len(own))
        assert alone.z == pytest.approx(float((own[index] - own.mean()) / own.std(unbiased=False)), rel=1e-4)
        scaled = (peers[0] - peers[1:].mean(0)) / peers[1:].std(0)
        among = selectivity(model, objective, x)
        assert among.rank == 1 + int((scaled > scaled[index]).sum())
        assert among.z == pytest.approx(float((scaled[index] - scaled.mean()) / scaled.std(unbiased=False)), rel=1e-4)
    for wrong in (Layer("2"), Direction("2", torch.ones(8))):
        with pytest.raises(TargetError, match="one unit"):
            selectivity(model, wrong, x)


def test_path_similarity_is_normalised_rank_correlation(model):
    made, alike, different = noise(2, 3, SIDE, SIDE), noise(3, 3, SIDE, SIDE, seed=1), noise(4, 3, SIDE, SIDE, seed=2)
    base = noise(1, 3, SIDE, SIDE, seed=3)
    alike = base + 0.5 * alike
    made = base + 0.8 * made
    found = path_similarity(model, made, alike, different, ["1", "2"])
    for value, layer in zip(found.tolist(), (2, 3), strict=True):
        with torch.no_grad():
            m, a, d = (model.module[:layer](t).flatten(1).numpy() for t in (made, alike, different))
        rho = lambda p, q: spearmanr(p, q).statistic
        mean = lambda pairs: sum(pairs) / len(pairs)
        one = mean([rho(a[i], a[j]) for i in range(3) for j in range(3) if i != j])
        zero = mean([rho(p, q) for p in a for q in d])
        assert value == pytest.approx((mean([rho(p, q) for p in m for q in a]) - zero) / (one - zero), abs=1e-4)
    again = path_similarity(model, alike[:1] * 0 + different[:1], alike, different, ["1"])
    assert abs(float(again)) < 0.3
    with pytest.raises(TargetError, match="two natural ones"):
        path_similarity(model, made, alike[:1], different, ["1"])


def test_seed_stability(model):
    x = noise(3, 3, SIDE, SIDE)
    with torch.no_grad():
        profile = model.module[:2](x).mean((2, 3))
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum(float(nn.functional.cosine_similarity(profile[i], profile[j], dim=0)) for i, j in pairs) / 3
    assert seed_stability(model, x, "1") == pytest.approx(expected, rel=1e-4)
    assert seed_stability(model, x[:1].expand(4, -1, -1, -1), "1") == pytest.approx(1, abs=1e-5)
    with pytest.raises(TargetError, match="at least 2"):
        seed_stability(model, x[:1], "1")


def test_static_equivalent_of_motion_and_of_none():
    class Steps(nn.Module):
        """Class 0 is the change from frame to frame, class 1 the brightness."""

        def forward(self, x):
            return torch.stack([x.diff(dim=2).abs().mean((1, 2, 3, 4)), x.mean((1, 2, 3, 4))], 1)

    clip = torch.rand(3, 6, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.7
    m = model_of(Steps(), (3, 6, 8, 8))
    assert static_equivalent(m, 0, clip) == pytest.approx(0, abs=1e-6)
    brightest = max(float(frame.mean()) for frame in clip.unbind(1))
    assert static_equivalent(m, 1, clip) == pytest.approx((brightest - 0.5) / (float(clip.mean()) - 0.5), rel=1e-4)
    assert math.isnan(static_equivalent(m, 0, torch.full_like(clip, 0.5)))
    with pytest.raises(TargetError, match="clip"):
        static_equivalent(m, 0, clip[:, 0])


def test_measures_leave_the_graph_alone():
    m = model_of(pooled(), (3, 32, 32))
    found = activation(m, noise(2, 3, 32, 32), [Channel("3", 0), 1])
    assert found.shape == (2, 2)
    assert not found.requires_grad
    assert all(p.grad is None for p in m.module.parameters())
