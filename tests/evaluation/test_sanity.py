import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from helpers.cases import bright_net
from pellucid.evaluation import randomised_copy, sanity_correlations, spearman
from pellucid.evaluation.sanity import shuffled_once


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bn_net():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, bias=False),
        nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 5),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.uniform_(m.weight, 0.5, 1.5)
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
    return net.eval()


def state(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


# ---------------------------------------------------------------- rank correlation


@pytest.mark.parametrize("levels", [2, 3, 10, 1000])
def test_spearman_is_that_of_scipy_ties_too(levels):
    rng = np.random.default_rng(levels)
    for _ in range(5):
        a, b = rng.integers(0, levels, (2, 7, 11)) / 7
        expected = stats.spearmanr(a.ravel(), b.ravel()).statistic
        assert spearman(torch.tensor(a), torch.tensor(b).float()) == pytest.approx(expected, abs=1e-9)


def test_spearman_of_what_is_known():
    a = noise(1, 5, 5)
    assert spearman(a, a.exp() * 3) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, torch.ones(1, 5, 5)) == 0
    assert spearman(a, torch.full((1, 5, 5), torch.nan)) == 0
    assert spearman(a.clone().fill_(torch.inf), a) == 0
    assert spearman(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 3, 2])) == pytest.approx(0.5)  # 1 - 6 * 2 / 24


# ---------------------------------------------------------------- randomised copies


@pytest.mark.parametrize("train", [False, True])
def test_the_model_itself_is_left_bit_for_bit(train):
    net, x = bn_net().train(train), noise(1, 3, 16, 16)
    before, rng = state(net), torch.get_rng_state()
    modes = [m.training for m in net.modules()]
    twin = randomised_copy(net, x, 0)
    twin(x)
    after = state(net)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert [m.training for m in net.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(m.training for m in twin.modules())
    assert not any(a is b for a in net.parameters() for b in twin.parameters())


def test_every_weight_matrix_is_shuffled_and_keeps_its_values():
    net = bn_net()
    twin = randomised_copy(net, noise(1, 3, 16, 16), 0)
    for (name, a), b in zip(net.named_parameters(), twin.parameters(), strict=True):
        if a.ndim > 1:
            assert not torch.equal(a, b), name
            assert (a != b).float().mean() > 0.5
            assert torch.equal(a.flatten().sort().values, b.flatten().sort().values)
        else:
            assert torch.equal(a, b), name  # biases, and the scales of normalisations
    assert [m.momentum for m in twin.modules() if isinstance(m, nn.BatchNorm2d)] == [0.1, 0.1]


def test_copies_are_seeded():
    net, x = bn_net(), noise(1, 3, 16, 16)
    a, again, other = (state(randomised_copy(net, x, s)) for s in (0, 0, 1))
    assert all(torch.equal(a[k], again[k]) for k in a)
    assert not torch.equal(a["0.weight"], other["0.weight"])


def test_batch_norm_statistics_are_measured_again():
    net, x = bn_net(), noise(1, 3, 16, 16)
    twin = randomised_copy(net, x, 0)
    pair = torch.cat([x, x.flip(-1)])
    with torch.no_grad():
        first = twin[0](pair)
        normal = nn.functional.batch_norm(first, None, None, twin[1].weight, twin[1].bias, training=True)
        second = twin[3](normal.relu())
    for found, values in ((twin[1], first), (twin[4], second)):
        assert torch.allclose(found.running_mean, values.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(found.running_var, values.var((0, 2, 3)), atol=1e-4)
    # so what comes out is neither dead nor exploded, even where the shuffled weights would have been
    with torch.no_grad():
        net[0].weight.mul_(1e6)
        out = randomised_copy(net, x, 0)(x)
    assert 1e-3 < out.std() < 1e3


def test_a_cumulative_momentum_is_kept():
    net = bn_net()
    net[1].momentum = None
    twin = randomised_copy(net, noise(1, 3, 16, 16), 0)
    assert (net[1].momentum, twin[1].momentum) == (None, None)


class Keeps(nn.Module):
    """Keeps an activation with its graph as an attribute, as many models do for inspection."""

    def __init__(self):
        super().__init__()
        self.net = bn_net()
        self.seen = None

    def forward(self, x):
        self.seen = self.net[0](x)
        return self.net(x)


def test_a_model_that_keeps_its_activations_is_copied():
    net, x = Keeps().eval(), noise(1, 3, 16, 16)
    net(x)
    with pytest.raises(RuntimeError):
        copy.deepcopy(net)  # what torch says of such models
    kept = net.seen
    twin = randomised_copy(net, x, 0)
    twin(x)
    assert net.seen is kept
    assert kept.requires_grad
    assert not torch.equal(twin.net[0].weight, net.net[0].weight)


# ---------------------------------------------------------------- the test itself


def test_correlations_are_means_over_the_seeds_of_each_map():
    net, x = bright_net(), torch.rand(1, 3, 64, 64)

    def explain(twin):
        return [twin[0].weight.detach()[0], x]

    maps = [net[0].weight.detach()[1] + noise(3, 8, 8) * 1e-3, x]
    found = sanity_correlations(explain, net, x, maps)
    expected = [spearman(randomised_copy(net, x, s)[0].weight[0], maps[0]) for s in (0, 1)]
    assert found == pytest.approx([sum(expected) / 2, 1.0])


def test_weights_are_shuffled_once_for_many_pictures_and_are_the_same(monkeypatch):
    net, pictures = bn_net(), [noise(1, 3, 16, 16, seed=s) for s in range(3)]
    alone = [state(randomised_copy(net, x, seed)) for x in pictures for seed in (0, 1)]
    orders, real = [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *a, **k: orders.append(a) or real(*a, **k))
    with shuffled_once(), shuffled_once():
        for x in pictures:
            for seed in (0, 1):
                twin = randomised_copy(net, x, seed)
                together = state(twin)
                assert all(torch.equal(together[k], v) for k, v in alone.pop(0).items())
                with torch.no_grad():
                    twin[0].weight.zero_()  # what is done to a copy does not reach the next
    weights = [p for p in net.parameters() if p.ndim > 1]
    assert len(orders) == 2 * len(weights)
    orders.clear()
    randomised_copy(net, pictures[0], 0)  # nothing is kept behind
    assert len(orders) == len(weights)
