"""Players and estimators against planted truths: known channels, blocks, regions and bands, and exact games."""

import pytest
import torch
from torch import nn

from pellucid.engine import Capture
from pellucid.errors import MethodError
from pellucid.importance import (
    Blocks,
    Channels,
    ColourBands,
    FrequencyBands,
    Properties,
    Regions,
    get_estimator,
    measure,
)
from pellucid.importance.blocks import building_blocks
from pellucid.media.segments import grid
from pellucid.scoring.job import prepare


class Planted(nn.Module):
    """Score 0: the mean of the top left quarter's red channel; score 1: three times conv channel 2, minus channel 0."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.5, 0.5, 0]]).reshape(4, 3, 1, 1)

    def forward(self, x):
        a = self.conv(x)
        h, w = x.shape[2] // 2, x.shape[3] // 2
        return torch.stack([x[:, 0, :h, :w].mean((1, 2)), 3 * a[:, 2].mean((1, 2)) - a[:, 0].mean((1, 2))], dim=1)


@pytest.fixture
def x():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)) + 0.2


@pytest.mark.parametrize("estimator", ["ablation", "shapley", "kernel", "owen", "gradient", "lime"])
def test_additive_regions_get_exactly_what_they_add(x, estimator):
    job = prepare(Planted().eval(), x, [0])
    found = measure(Regions(labels=grid((16, 16), 16), baseline="zero"), get_estimator(estimator), job)
    quarter = x[0, 0, :8, :8] / 64
    blocks = quarter.reshape(2, 4, 2, 4).sum((1, 3))
    expected = torch.zeros(4, 4)
    expected[:2, :2] = blocks
    tolerance = 0.02 if estimator == "lime" else 1e-5  # a ridge shrinks
    assert torch.allclose(found.values[:, 0].float(), expected.flatten(), atol=tolerance)
    if estimator != "lime":
        assert float(found.full - found.empty - found.values.sum()) == pytest.approx(0, abs=1e-6)


def test_a_dummy_region_is_zero_with_an_interval_that_covers_zero(x):
    job = prepare(Planted().eval(), x, [0])
    found = measure(Regions(labels=grid((16, 16), 16)), get_estimator("shapley", samples=8), job)
    assert float(found.values[15, 0]) == pytest.approx(0, abs=1e-7)
    assert float(found.low[15, 0]) <= 1e-7
    assert float(found.high[15, 0]) >= -1e-7


@pytest.mark.parametrize("estimator", ["ablation", "shapley", "gradient"])
def test_planted_channels_are_found_first_with_their_exact_values(x, estimator):
    job = prepare(Planted().eval(), x, [1])
    found = measure(Channels(layer="conv"), get_estimator(estimator), job)
    mean = x[0].mean((1, 2)).double()
    expected = torch.stack([-mean[0], mean[1] * 0, 3 * mean[2], mean[0] * 0])
    if estimator == "gradient":
        expected = expected.float().double()
    assert torch.allclose(found.values[:, 0], expected, atol=1e-5)
    assert int(found.values[:, 0].abs().argmax()) == 2


def test_channels_equal_the_loop_that_zeroes_each_of_them(x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    net(x)
    net.eval()
    found = measure(Channels(layer="1", removal="mean"), get_estimator("ablation"), prepare(net, x, [2]))
    for channel in range(6):

        def averaged(_module, _args, output, channel=channel):
            output = output.clone()
            output[:, channel] = output[:, channel].mean()
            return output

        handle = net[1].register_forward_hook(averaged)
        with torch.no_grad():
            lost = net(x)[0, 2]
        handle.remove()
        with torch.no_grad():
            assert float(found.values[channel, 0]) == pytest.approx(float(net(x)[0, 2] - lost), abs=1e-5)


class Residual(nn.Module):
    """Adds a constant to what passes."""

    def __init__(self, amount):
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.inner.weight)
        self.inner.bias.data.fill_(amount)

    def forward(self, x):
        return x + self.inner(x)


def test_bypassed_blocks_lose_exactly_what_they_add(x):
    net = nn.Sequential(
        nn.Sequential(Residual(0.5), Residual(2.0), Residual(-1.0)), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    net.eval()
    assert building_blocks(net) == ["0.0", "0.1", "0.2"]
    found = measure(Blocks(), get_estimator("shapley"), prepare(net, x, [0]))
    assert found.values[:, 0].tolist() == pytest.approx([0.5, 2.0, -1.0], abs=1e-5)
    assert float(found.full - found.empty) == pytest.approx(1.5, abs=1e-5)
    assert found.notes == [[]]
    grown = measure(Blocks(layers=("0.0", "1")), get_estimator("ablation"), prepare(net, x, [0]))
    assert grown.notes[0][0].endswith("rather than a bypass: 1.")  # the pooling changes the shape


def test_interactions_of_a_product_are_found(x):
    class Product(nn.Module):
        def forward(self, x):
            a, b = x[:, 0, :8, :8].mean((1, 2)), x[:, 0, 8:, 8:].mean((1, 2))
            return torch.stack([a * b, a], dim=1)

    job = prepare(Product().eval(), torch.ones(1, 3, 16, 16), [0])
    found = measure(Regions(labels=grid((16, 16), 4), baseline="zero"), get_estimator("shapley"), job)
    assert found.values[:, 0].tolist() == pytest.approx([0.5, 0, 0, 0.5], abs=1e-6)
    i, j, value = found.interactions[0][0]
    assert {i, j} == {0, 3}
    assert value == pytest.approx(1.0, abs=1e-6)


def test_bands_add_up_to_the_input_and_find_a_planted_frequency():
    wave = torch.cos(2 * torch.pi * 10 * torch.arange(64) / 64)
    x = (wave[None, :] + 0.1 * torch.rand(64, 64, generator=torch.Generator().manual_seed(0))).expand(1, 3, 64, 64)

    class Variance(nn.Module):
        def forward(self, x):
            return torch.stack([x.var((1, 2, 3)), x.mean((1, 2, 3))], dim=1)

    for players in (FrequencyBands(count=4), ColourBands()):
        names, make = players.parts(x)
        assert torch.allclose(make(torch.ones(1, len(names))), x, atol=1e-5)
    found = measure(FrequencyBands(count=4), get_estimator("shapley"), prepare(Variance().eval(), x, [0]))
    best = int(found.values[:, 0].argmax())
    low, high = found.names[best].removesuffix(" cycles").split(" to ")
    assert float(low) < 10 <= float(high)


def test_neutral_properties_are_neutral():
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 3 + 1
    names, make = Properties().parts(x)
    without = {name: make(1 - torch.eye(len(names))[k : k + 1]) for k, name in enumerate(names)}
    assert float(without["brightness"].mean()) == pytest.approx(0, abs=1e-5)
    assert float(without["contrast"].std()) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(without["colour"][:, 0], without["colour"][:, 2])
    assert float(without["sharpness"].diff(dim=3).abs().mean()) < float(x.diff(dim=3).abs().mean())


def test_several_targets_share_the_game_and_equal_separate_runs(x):
    net, players = Planted().eval(), Regions(labels=grid((16, 16), 4))
    both = measure(players, get_estimator("shapley"), prepare(net, x, [0, 1]))
    for t in (0, 1):
        alone = measure(players, get_estimator("shapley"), prepare(net, x, [t]))
        assert torch.allclose(both.values[:, t], alone.values[:, 0], atol=1e-9)
        assert alone.cost.forwards == both.cost.forwards


def test_the_model_is_left_untouched_after_an_error(x):
    net = Planted().eval()

    class BoomError(Exception):
        pass

    calls = iter(range(100))

    def target(y):
        if next(calls) >= allowed:
            raise BoomError
        return y[:, 0]

    for players, allowed in ((Channels(layer="conv"), 2), (Regions(labels=grid((16, 16), 4)), 0)):  # noqa: B007
        calls = iter(range(100))
        with pytest.raises(BoomError):
            measure(players, get_estimator("ablation"), prepare(net, x, [target]))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    with Capture(net) as capture:  # and it still runs
        assert capture.forward(x).shape == (1, 2)


def test_bad_players_get_one_clear_sentence(x):
    job = prepare(Planted().eval(), x, [0])
    for players, estimator, said in (
        (Regions(labels=torch.zeros(16, 16, dtype=torch.long)), "ablation", "only one region"),
        (Regions(labels=grid((8, 8), 4)), "ablation", "fit them"),
        (Blocks(layers=("conv",)), "ablation", "fewer than two"),
        (Properties(), "gradient", "use ablation or shapley"),
    ):
        with pytest.raises(MethodError, match=said):
            measure(players, get_estimator(estimator), job)
    with pytest.raises(MethodError, match="There is no estimator"):
        get_estimator("magic")
