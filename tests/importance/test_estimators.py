"""Conductance, permutation and intervals against closed forms, a rival and simulations."""

from contextlib import contextmanager

import pytest
import torch
from captum.attr import LayerConductance
from torch import nn

from helpers.nets import noise, pooled, seeded
from pellucid.engine import Cost
from pellucid.errors import MethodError
from pellucid.importance import (
    ESTIMATORS,
    FEATURES,
    Channels,
    ColourBands,
    FrequencyBands,
    Game,
    Players,
    Properties,
    Regions,
    Superpixels,
    Tokens,
    get_estimator,
    get_players,
    measure,
)
from pellucid.importance.exchange import Kept, exchange
from pellucid.importance.path import follow
from pellucid.media.segments import grid
from pellucid.numerics.games import permutation_shapley
from pellucid.scoring.job import prepare


class Squared(nn.Module):
    """`y_0 = (sum_j a_j)^2` of channel means `a_j = w_j mean(x_0)`: conductance of channel j is `a_j sum_i a_i`."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, 2.0, -0.5]).reshape(3, 1, 1, 1)

    def forward(self, x):
        total = self.conv(x).mean((2, 3)).sum(1)
        return torch.stack([total**2, 3 * total], dim=1)


def test_conductance_equals_its_closed_form():
    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)) + 0.5
    found = measure(Channels(layer="conv"), get_estimator("conductance"), prepare(Squared().eval(), x, [0, 1]))
    a = torch.tensor([1.0, 2.0, -0.5]).double() * x.mean().double()
    assert torch.allclose(found.values[:, 0], a * a.sum(), atol=1e-5)
    assert torch.allclose(found.values[:, 1], 3 * a, atol=1e-5)
    assert torch.allclose(found.full - found.empty, found.values.sum(0), atol=1e-5)


@pytest.mark.parametrize("layer", ["1", "3"])
def test_conductance_equals_captums_on_a_fine_path(layer):
    net, x, b = pooled(), noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    found = measure(Channels(layer=layer, baseline=b), get_estimator("conductance", samples=600), prepare(net, x, [2]))
    theirs = LayerConductance(net, net[int(layer)]).attribute(x, b, target=2, n_steps=600)
    expected = theirs.detach().sum((2, 3))[0].double()
    assert torch.allclose(found.values[:, 0], expected, atol=5e-3 * float(expected.abs().max()))
    gap = float(found.full[0] - found.empty[0] - found.values.sum())
    assert abs(gap) < 0.01 * abs(float(found.full[0] - found.empty[0]))


def test_the_units_of_every_layer_share_the_change_of_the_score():
    net, x = pooled(), noise(1, 3, 16, 16)
    job = prepare(net, x, [1])
    for layer in (None, "0", "3"):
        path = follow(job, layer, torch.zeros_like(x))
        change = float(path.full[0] - path.empty[0])
        assert float(path.flow.sum()) == pytest.approx(change, abs=0.011 * abs(change))
        assert float(path.gap[0]) == pytest.approx(change - float(path.flow.sum()), abs=1e-9)


def test_conductance_of_regions_and_bands_is_integrated_gradients():
    net, x = pooled(), noise(1, 3, 16, 16)
    job, zero = prepare(net, x, [1]), torch.zeros_like(x)
    path = follow(job, None, zero)
    regions = measure(Regions(labels=grid((16, 16), 4), baseline="zero"), get_estimator("conductance"), job)
    quarters = path.flow[0].sum(0).reshape(2, 8, 2, 8).sum((1, 3)).flatten()
    assert torch.allclose(regions.values[:, 0], quarters, atol=1e-6)
    colours = measure(ColourBands(), get_estimator("conductance"), job)
    assert float(colours.values.sum()) == pytest.approx(float(path.flow.sum()), rel=1e-4)


def test_gradients_of_bands_are_those_of_their_coefficients():
    """`d v / d c_k` at the whole, by differences."""
    net, x = pooled(), noise(1, 3, 16, 16).double().float()
    for players in (ColourBands(), FrequencyBands(count=3)):
        names, make = players.parts(x)
        found = measure(players, get_estimator("gradient"), prepare(net, x, [0])).values[:, 0]
        ones = torch.ones(len(names))
        for k in range(len(names)):
            step = 1e-2 * torch.eye(len(names))[k]
            with torch.no_grad():
                up, down = net(make((ones + step)[None]))[0, 0], net(make((ones - step)[None]))[0, 0]
            assert float(found[k]) == pytest.approx(float(up - down) / 2e-2, abs=2e-3)


def test_cells_of_a_layer_equal_the_loop_that_zeroes_each():
    net, x = pooled(), noise(1, 3, 16, 16)
    found = measure(Tokens(layer="3"), get_estimator("ablation"), prepare(net, x, [0]))
    assert found.names[5] == "row 2, column 2"
    with torch.no_grad():
        A = net[:4](x)
        for cell in (0, 5, 15):
            changed = A.clone()
            changed.flatten(2)[..., cell] = 0
            assert float(found.values[cell, 0]) == pytest.approx(float((net[4:](A) - net[4:](changed))[0, 0]), abs=1e-5)
    first = measure(Tokens(layer="3"), get_estimator("gradient"), prepare(net, x, [0])).values
    assert torch.allclose(first, found.values, atol=1e-5)  # pooling and a linear layer: first order is exact


def test_permutation_equals_the_loop_over_donors():
    net, x = pooled(), noise(3, 3, 16, 16)
    job = prepare(net, x[:1], [0, Kept(int(net(x[:1]).argmax()))])
    found = exchange(Channels(layer="3"), [x[1:2], x[2:3]], job)
    with torch.no_grad():
        A = net[:4](x)
        for channel in range(6):
            lost, changed = [], []
            for donor in (1, 2):
                other = A[:1].clone()
                other[:, channel] = A[donor, channel]
                lost.append(float((net[4:](A[:1]) - net[4:](other))[0, 0]))
                changed.append(float(net[4:](other).argmax() != net[4:](A[:1]).argmax()))
            assert float(found.values[channel, 0]) == pytest.approx(sum(lost) / 2, abs=1e-5)
            assert float(found.values[channel, 1]) == pytest.approx(sum(changed) / 2)


@pytest.mark.parametrize("players", [Regions(labels=grid((16, 16), 4)), FrequencyBands(count=3), ColourBands()])
def test_contents_of_the_input_are_exchanged(players):
    """All of them exchanged at once is the donor."""
    net, x = pooled(), noise(2, 3, 16, 16)
    donor = x[1:2] - x[1:2].mean((2, 3), keepdim=True) + x[:1].mean((2, 3), keepdim=True)  # bands keep the constant
    with players.donated(donor).game(prepare(net, x[:1], [0])) as game:
        ends = game.value(torch.stack([torch.zeros(len(game.names)), torch.ones(len(game.names))]))
    with torch.no_grad():
        assert float(ends[0, 0]) == pytest.approx(float(net(donor)[0, 0]), abs=1e-4)
        assert float(ends[1, 0]) == pytest.approx(float(net(x)[0, 0]), abs=1e-4)


class GameOf(Players):
    """A game given as a function of coalitions, whatever the model says."""

    kind = "test players"

    def __init__(self, value, count):
        self.value, self.count = value, count

    @contextmanager
    def game(self, job):
        yield Game(self.value, [str(k) for k in range(self.count)], Cost())


def test_intervals_of_sampled_shapley_cover_the_truth_at_their_rate():
    """8 pairs of orders of 16 players, Student's t; the truth from very many orders."""
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 16, generator=generator).double()

    def value(c):
        c = c.double()
        return (torch.sin(2 * c @ a) + 0.05 * (c @ b) ** 3)[:, None]

    truth = permutation_shapley(value, 16, samples=20000, generator=generator)
    assert float(truth.standard_error.max()) < 0.02
    job, players = prepare(pooled(), noise(1, 3, 16, 16), [0]), GameOf(value, 16)
    covered = torch.zeros(16)
    for seed in range(100):
        found = measure(players, get_estimator("shapley", samples=16, seed=seed), job, pairs=False)
        covered += ((found.low <= truth.values) & (truth.values <= found.high))[:, 0]
    assert 0.92 <= float(covered.mean()) / 100 <= 0.98
    assert float(covered.min()) / 100 >= 0.85


@pytest.mark.parametrize("by", ["shapley", "kernel", "ablation"])
@pytest.mark.parametrize("count", [6, 11, 16])
def test_dear_players_cost_no_more_than_their_budget_and_as_much_as_was_said(by, count):
    """A noisy game, whose error never gets small; 11 players have more coalitions than the budget."""
    weights = torch.randn(count, generator=torch.Generator().manual_seed(1)).double()
    asked, said = [], []

    def value(c):
        asked.append(len(c))
        return torch.sin(40 * c.double() @ weights)[:, None]

    class Dear(GameOf):
        budget = 256

    measure(
        Dear(value, count),
        get_estimator(by),
        prepare(pooled(), noise(1, 3, 16, 16), [0]),
        pairs=False,
        say=said.append,
    )
    most = int(said[0].split("at most ")[1].split()[0])
    assert sum(asked) <= most + 2
    assert most <= 256 + 2
    if by == "shapley":
        assert sum(asked) > most / 2


CLIPS = ("frames", "segments", "tubes")

ODD = {
    ("channels", "permutation"), ("superpixels", "permutation"), ("patches", "permutation"), ("tokens", "permutation"),
    ("layers", "permutation"), ("colours", "permutation"), ("frequencies", "permutation"),
    ("properties", "permutation"), *((f, by) for f in CLIPS for by in ("gradient", "conductance", "permutation")),
    ("layers", "gradient"), ("layers", "conductance"), ("properties", "gradient"), ("properties", "conductance"),
}  # fmt: skip


@pytest.mark.parametrize("by", ESTIMATORS)
@pytest.mark.parametrize("features", [f for f in FEATURES if f != "regions"])
def test_every_pairing_works_or_says_why_not(features, by):
    """The sum of Shapley-like values and of conductance is the change of the score."""
    net = nn.Sequential(pooled()[:4], *pooled()[4:]).eval()
    job = prepare(net, noise(1, 3, 16, 16), [0])
    if features in CLIPS:
        job = prepare(seeded(of_clips), noise(1, 3, 6, 12, 12), [0])
    settings = {
        "segments": {"count": 3},
        "tubes": {"count": 4},
        "channels": {"layer": "0.3"},
        "tokens": {"layer": "0.3"},
        "superpixels": {"count": 4, "segments": "grid"},
        "patches": {"count": 4},
        "frequencies": {"count": 4},
        "layers": {"layer": "0.1,0.3"},
    }.get(features, {})
    samples = {"lime": 200, "tree": 200, "kernel": 100, "owen": 100}.get(by, "auto")
    players, estimator = get_players(features, **settings), get_estimator(by, samples=samples)
    if (features, by) in ODD:
        with pytest.raises(MethodError, match=r"give a folder|use ablation or shapley"):
            measure(players, estimator, job)
        return
    found = measure(players, estimator, job)
    assert found.values.shape == (len(found.names), 1)
    assert found.values.isfinite().all()
    assert (found.low <= found.values).all()
    if by in ("shapley", "kernel", "owen", "conductance"):
        change = float(found.full[0] - found.empty[0])
        assert float(found.values.sum()) == pytest.approx(change, abs=0.011 * abs(change) + 1e-6)


def of_clips():
    return nn.Sequential(
        nn.Conv3d(3, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, 2)
    ).eval()


def test_settings_that_mean_nothing_are_named():
    for features, settings, said in (
        ("superpixel", {}, "did you mean 'superpixels'"),
        ("qqqq", {}, "choose superpixels, patches"),
        ("superpixels", {"layer": "x"}, "superpixels have no layer: leave it out, or choose channels or tokens"),
        ("superpixels", {"count": 1}, "at least 2"),
        ("superpixels", {"segments": "slick"}, "choose grid, slic, supervoxels"),
        ("layers", {"removal": "burn"}, "bypass, zero, mean or resample"),
    ):
        with pytest.raises(MethodError, match=said):
            get_players(features, **settings)
    for by, settings, said in (
        ("shaply", {}, "did you mean 'shapley'"),
        ("owen", {"samples": "exact"}, "use shapley"),
        ("shapley", {"samples": 0}, "give more"),
    ):
        with pytest.raises(MethodError, match=said):
            get_estimator(by, **settings)
    job = prepare(pooled(), noise(1, 3, 16, 16), [0])
    with pytest.raises(MethodError, match="at most 12 players"):
        measure(Regions(labels=grid((16, 16), 16)), get_estimator("shapley", samples="exact"), job)
    with pytest.raises(MethodError, match="found only one superpixel"):
        measure(
            Superpixels(segments="felzenszwalb"),
            get_estimator("ablation"),
            prepare(pooled(), torch.ones(1, 3, 16, 16), [0]),
        )


def test_hue_is_turned_and_light_kept():
    x = noise(1, 3, 8, 8)
    names, make = Properties().parts(x)
    turned = make((torch.arange(len(names)) != names.index("hue")).float()[None])
    assert torch.allclose(turned.mean(1), x.mean(1), atol=1e-6)
    assert torch.allclose(turned - turned.mean(1, keepdim=True), -(x - x.mean(1, keepdim=True)), atol=1e-6)


def test_tokens_of_a_transformer_have_their_class_token():
    import timm

    net = seeded(lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)).eval()
    nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(0))
    x = noise(1, 3, 64, 64)
    found = measure(Tokens(layer="blocks.1"), get_estimator("ablation"), prepare(net, x, [0]))
    assert len(found.names) == 17
    assert found.names[-1] == "class token"
    assert found.values[:, 0].abs().argmax() == 16  # behind the last block only the class token is read
    assert found.values[:16].abs().max() < 1e-4
    patches = measure(get_players("patches"), get_estimator("ablation"), prepare(net, x, [0]))
    assert len(patches.names) == 16


def test_dropped_patches_equal_running_the_rest_of_the_tokens():
    import timm

    net = seeded(lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)).eval()
    nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(0))
    x = noise(1, 3, 64, 64)
    found = measure(get_players("patches", baseline="dropped"), get_estimator("ablation"), prepare(net, x, [1]))
    with torch.no_grad():
        tokens = net._pos_embed(net.patch_embed(x))
        for patch in (0, 9):
            rest = torch.cat([tokens[:, : 1 + patch], tokens[:, 2 + patch :]], 1)
            lost = net(x)[0, 1] - net.forward_head(net.norm(net.blocks(rest)))[0, 1]
            assert float(found.values[patch, 0]) == pytest.approx(float(lost), abs=1e-4)
    few = measure(get_players("patches", baseline="dropped", count=4), get_estimator("ablation"), prepare(net, x, [1]))
    assert len(few.names) == 4
    with pytest.raises(MethodError, match="sound only on a plain vision transformer"):
        measure(get_players("patches", baseline="dropped"), get_estimator("ablation"), prepare(pooled(), x, [0]))
    tiny = Regions(labels=grid((64, 64), 1024), baseline="dropped")
    with pytest.raises(MethodError, match="cut coarser, or choose another baseline"):
        measure(tiny, get_estimator("ablation"), prepare(net, x, [0]))
