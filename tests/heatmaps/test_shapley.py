"""Shapley, KernelSHAP, Owen and LIME on networks whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import bright_net
from helpers.nets import Busy, MultiLayer, Sevens, noise, pooled, seeded
from pellucid.engine.masks import grid_labels
from pellucid.errors import MethodError
from pellucid.heatmaps.lime import LIME
from pellucid.heatmaps.shapley import KernelSHAP, Owen, Shapley, halves
from pellucid.media.segments import superpixels
from pellucid.models.targets import Contrast, PerSample, TopClass
from pellucid.numerics import games
from pellucid.numerics.games import exact_shapley, owen

ALL = (Shapley, KernelSHAP, Owen, LIME)


@pytest.mark.parametrize("method", [Shapley(), Shapley(samples="exact"), KernelSHAP(samples=6)], ids=repr)
def test_the_values_of_captums_net(method):
    x = torch.tensor([[[20.0, 50, 30]]])
    expected = torch.tensor([[76.6667, 196.6667, 116.6667]])
    found = method.explain(MultiLayer(), x, [0, 1])
    for f in found:
        torch.testing.assert_close(f.values, expected, rtol=1e-5, atol=1e-3)
        assert f.facts["efficiency_gap"][0] < 1e-9
    merged = torch.tensor([0, 0, 1])
    together = Shapley(segments=merged).attribute(MultiLayer(), x, 0)
    torch.testing.assert_close(together, torch.tensor([[275.0, 275, 115]]), rtol=1e-5, atol=1e-3)


def by_hand(net, x, labels, target, baseline=0.0):
    """The game of one input (C, *space), one forward a coalition."""

    def value(coalitions):
        scores = []
        for z in coalitions:
            mask = z[labels]
            scores.append(net((mask * x + (1 - mask) * baseline)[None])[0, target])
        return torch.stack(scores)[:, None].detach().double()

    return value


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_equal_to_the_game_played_by_hand(dims):
    net, space = pooled(dims), {1: (24,), 2: (12, 18), 3: (6, 8, 8)}[dims]
    x = noise(2, 3, *space)
    labels = grid_labels(space, {1: (6,), 2: (2, 3), 3: (2, 2, 2)}[dims])
    players = int(labels.max()) + 1
    truth = torch.stack([exact_shapley(by_hand(net, s, labels, 1), players).values[:, 0] for s in x])
    for method in (Shapley(segments=labels), KernelSHAP(segments=labels)):
        (found,) = method.explain(net, x, [1])
        assert found.values.shape == (2, *space)
        torch.testing.assert_close(found.extras["segments"], truth.float(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.values, truth.float()[:, labels], rtol=1e-4, atol=1e-6)
        assert not found.extras["standard_error"].any()
        assert found.facts["players"] == [players] * 2
        assert torch.equal(found.extras["labels"], labels.expand(2, *space))
        assert found.cost.forwards <= 2 * (2**players + 1)
    nested = torch.stack([owen(by_hand(net, s, labels, 1), halves(labels)).values[:, 0] for s in x])
    (found,) = Owen(segments=labels).explain(net, x, [1])
    torch.testing.assert_close(found.extras["segments"], nested.float(), rtol=1e-4, atol=1e-6)
    assert found.facts["unsplit"] == [0, 0]


def test_many_segments_are_sampled_with_an_error_that_holds():
    net = seeded(lambda: Sevens(32)).eval()
    x = noise(1, 3, 32, 32)
    (long,) = Shapley(count=16, samples=3000).explain(net, x, [0])
    (found,) = Shapley(count=16, samples=60, seed=1).explain(net, x, [0])
    off = (found.extras["segments"] - long.extras["segments"]).abs()
    assert (off < 4 * found.extras["standard_error"] + 1e-6).all()
    assert found.facts["efficiency_gap"][0] < 1e-9
    assert 0 < found.facts["relative_error"][0] < 1
    assert long.facts["relative_error"][0] < found.facts["relative_error"][0]
    (auto,) = Shapley(count=16, tolerance=0.2).explain(net, x, [0])
    assert auto.facts["relative_error"][0] <= 0.2
    assert not auto.notes
    (stopped,) = Shapley(count=16, tolerance=1e-4, max_evaluations=200).explain(net, x, [0])
    assert stopped.facts["samples"][0] <= 200
    assert "raise max_evaluations" in stopped.notes[0]
    (kernel,) = KernelSHAP(count=16, samples=600).explain(net, x, [0])
    assert kernel.facts["samples"][0] <= 602
    assert torch.nn.functional.cosine_similarity(kernel.extras["segments"], long.extras["segments"]) > 0.9
    assert kernel.facts["efficiency_gap"][0] < 1e-9


def planted(top, left, side=64, seed=0):
    x = 0.2 + 0.05 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
    x[..., top : top + 16, left : left + 16] += 0.7
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top : top + 16, left : left + 16] = True
    return x, inside


@pytest.mark.parametrize(
    "method",
    [
        Shapley(count=64, max_evaluations=600),
        KernelSHAP(count=64, samples=300),
        Owen(max_evaluations=600),
        LIME(samples=200, baseline="zero"),
        LIME(samples=200, baseline="zero", segments="felzenszwalb"),
        LIME(samples=300, baseline="zero", penalty="lasso", alpha=0.01),
        Shapley(segments="slic", count=30, samples=20),
    ],
    ids=repr,
)
def test_a_planted_object_is_found(method):
    x, inside = planted(16, 32)
    (found,) = method.explain(bright_net(), x, [0])
    values = found.values[0]
    assert values[inside].mean() > 5 * values[~inside].abs().mean()
    assert inside.flatten()[values.flatten().argmax()]


def test_lime_is_the_ridge_of_its_samples():
    net = pooled(2)
    x = noise(1, 3, 20, 20)
    labels = grid_labels((20, 20), (3, 3))
    (found,) = LIME(segments=labels, baseline="zero", samples=120, alpha=0.3).explain(net, x, [2])
    z = torch.randint(2, (120, 9), generator=torch.Generator().manual_seed(0)).float()
    z[0] = 1
    y = by_hand(net, x[0], labels, 2)(z).numpy()
    z = z.double().numpy()
    w = np.exp(-((1 - np.sqrt(z.mean(1))) ** 2) / (2 * 0.25**2))
    rows = np.concatenate([np.c_[z, np.ones(120)] * np.sqrt(w)[:, None], np.c_[np.eye(9) * 0.3**0.5, np.zeros(9)]])
    truth = np.linalg.lstsq(rows, np.concatenate([y * np.sqrt(w)[:, None], np.zeros((9, 1))]), rcond=None)[0]
    assert np.allclose(found.extras["segments"][0].numpy(), truth[:9, 0], rtol=1e-3, atol=1e-6)
    rise = y[:, 0] - np.average(y[:, 0], weights=w)
    residual = y[:, 0] - np.c_[z, np.ones(120)] @ truth[:, 0]
    assert found.facts["r2"][0] == pytest.approx(1 - (w @ residual**2) / (w @ rise**2), abs=1e-4)


def test_lime_says_how_well_a_line_fits():
    class Parity(nn.Module):
        """Whether an odd number of quarters is bright: no line can tell."""

        def forward(self, x):
            bright = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) > 0.5
            return (bright.sum(1) % 2).float()[:, None]

    x = torch.ones(1, 1, 16, 16)
    labels = grid_labels((16, 16), (4, 4))
    (poor,) = LIME(segments=labels, baseline="zero", samples=150).explain(Parity(), x, [0])
    assert poor.facts["r2_held_out"][0] < 0.1
    assert "R2" in poor.notes[0]
    (good,) = LIME(samples=150, baseline="zero").explain(bright_net(), planted(16, 16)[0], [0])
    assert good.facts["r2"][0] >= good.facts["r2_held_out"][0] > 0.9
    assert not good.notes


def test_superpixels_of_the_input_and_their_own_colours_behind_them():
    x = torch.cat([planted(16, 16)[0], planted(32, 8, seed=3)[0]])
    (found,) = LIME(samples=60, count=20).explain(bright_net(), x, [0])
    labels = found.extras["labels"]
    for n in range(2):
        assert torch.equal(labels[n], superpixels(x[n], 20))
        k = int(labels[n].max()) + 1
        assert found.extras["segments"][n, :k].isfinite().all()
        assert found.extras["segments"][n, k:].isnan().all()
        assert torch.equal(found.values[n], found.extras["segments"][n][labels[n]])
    ground = LIME().ground(x[:1], labels[0])
    for k in range(3):
        where = labels[0] == k
        torch.testing.assert_close(ground[0][:, where].mean(1), x[0][:, where].mean(1))
        assert ground[0][:, where].std(1).max() < 1e-6
    assert found.values[0].abs().max() < 2  # colours stay, so little is lost


@pytest.mark.parametrize("cls", ALL)
def test_several_targets_from_the_same_evaluations(cls):
    net = pooled(2)
    x = noise(2, 3, 16, 16)
    labels = grid_labels((16, 16), (2, 4))
    method = cls(segments=labels)
    together = method.explain(net, x, [0, PerSample((3, 1)), Contrast(2, 4), TopClass()])
    for found, target in zip(together, [0, PerSample((3, 1)), Contrast(2, 4), TopClass()], strict=True):
        (alone,) = method.explain(net, x, [target])
        torch.testing.assert_close(found.values, alone.values, rtol=1e-5, atol=1e-7)
        assert alone.cost.forwards == found.cost.forwards
    labelled = Shapley(segments=labels).attribute(net, x, Contrast(2, 4))
    apart = Shapley(segments=labels).attribute(net, x, 2) - Shapley(segments=labels).attribute(net, x, 4)
    torch.testing.assert_close(labelled, apart, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("baseline", ["zero", "uniform"])
def test_bit_for_bit_again_alone_or_in_company(cls, baseline):
    net = pooled(2)
    x = noise(3, 3, 16, 16)
    method = cls(count=16, baseline=baseline, seed=5, **{} if cls in (Owen, LIME) else {"samples": 40})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = method.attribute(net, x, 1)
        torch.manual_seed(2)
        assert torch.equal(one, method.attribute(net, x, 1))
    assert torch.equal(one[1:2], method.attribute(net, x[1:2], 1))
    own = cls(count=16, baseline=noise(3, 3, 16, 16, seed=9), segments="grid")
    assert torch.equal(own.attribute(net, x, 1)[2:], own_of(own, 2).attribute(net, x[2:], 1))


def own_of(method, n):
    return type(method)(count=16, baseline=method.baseline[n : n + 1], segments="grid")


@pytest.mark.parametrize("cls", ALL)
def test_the_size_of_batches_does_not_matter(cls, monkeypatch):
    net, x = pooled(2), noise(1, 3, 16, 16)
    method = cls(segments=grid_labels((16, 16), (3, 4)))
    plain = method.attribute(net, x, 0)
    monkeypatch.setattr("pellucid.engine.perturb.default_batch", lambda *_, **__: 7)
    torch.testing.assert_close(method.attribute(net, x, 0), plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", ALL)
def test_no_trace_and_no_pretty_blank(cls):
    net = seeded(Busy)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = noise(1, 3, 16, 16)
    kept = x.clone()
    random = torch.get_rng_state()
    cls(segments=grid_labels((16, 16), (2, 3))).attribute(net, x, 0)
    assert net.training
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), random)
    (blank,) = cls(segments=grid_labels((16, 16), (2, 3)), baseline=kept).explain(pooled(2), x, [0])
    assert not blank.values.abs().max() > 1e-6
    (still,) = cls(segments=grid_labels((16, 16), (2, 3))).explain(Constant(), x, [0])
    assert not still.values.any()
    assert "map is zero" in still.notes[0]


class Constant(nn.Module):
    """Answers the same to everything."""

    def forward(self, x):
        return torch.ones(len(x), 2)


def test_refusals_name_the_cure():
    net, x = pooled(2), noise(1, 3, 16, 16)
    many = grid_labels((16, 16), (4, 4))
    with pytest.raises(MethodError, match=r"at most 12 players.*or permutation sampling"):
        Shapley(segments=many, samples="exact").attribute(net, x, 0)
    with pytest.raises(MethodError, match="at least 32 samples"):
        KernelSHAP(segments=many, samples=20).attribute(net, x, 0)
    for cls in ALL:
        with pytest.raises(MethodError, match="only one segment"):
            cls(segments=torch.zeros(16, 16, dtype=torch.long)).attribute(net, x, 0)
        with pytest.raises(MethodError, match="one integer for each place"):
            cls(segments=torch.zeros(3, 3, dtype=torch.long)).attribute(net, x, 0)
        with pytest.raises(MethodError, match="choose grid, slic, supervoxels"):
            cls(segments="voronoi")
        with pytest.raises(MethodError, match="at least 2"):
            cls(count=1)
    with pytest.raises(MethodError, match="segments='grid'"):
        LIME(segments="felzenszwalb").attribute(net, torch.zeros(1, 3, 16, 16), 0)
    with pytest.raises(MethodError, match="'auto' or 'exact'"):
        Shapley(samples="all")


def test_exact_only_where_it_is_no_dearer():
    net, x = pooled(2), noise(1, 3, 16, 16)
    labels = grid_labels((16, 16), (2, 5))
    (few,) = Shapley(segments=labels, samples=4).explain(net, x, [0])
    assert few.facts["samples"][0] <= 4 * 9 + 2
    (auto,) = Shapley(segments=labels).explain(net, x, [0])
    assert auto.facts["samples"] == [1024]
    (capped,) = Shapley(segments=labels, max_evaluations=100).explain(net, x, [0])
    assert capped.facts["samples"][0] <= 100


def test_halves_of_a_grid_are_boxes():
    def boxes(node):
        inside = torch.zeros(8 * 6, dtype=torch.bool)
        inside[games.members(node)] = True
        rows, columns = inside.reshape(8, 6).any(1), inside.reshape(8, 6).any(0)
        assert int(inside.sum()) == int(rows.sum()) * int(columns.sum())
        if not isinstance(node, int):
            assert len(node) == 2
            for child in node:
                boxes(child)

    tree = halves(grid_labels((32, 24), (8, 6)))
    boxes(tree)
    assert sorted(games.members(tree)) == list(range(48))
    rings = torch.stack([torch.full((3, 3), 0), torch.full((3, 3), 1)])
    rings[0, 1, 1] = 2
    assert sorted(games.members(halves(rings))) == [0, 1, 2]
    nested = torch.zeros(9, 9, dtype=torch.long)  # boxes within boxes share their middle
    nested[2:7, 2:7], nested[4, 4] = 1, 2
    assert sorted(games.members(halves(nested))) == [0, 1, 2]


def test_quick_versions_cost_less_and_records_hold_no_tensors():
    net, x = bright_net(), planted(16, 16)[0]
    for cls, cap in zip(ALL, (512, 8 * 49 + 2, 256, 250), strict=True):
        (found,) = cls().quick().explain(net, x, [0])
        assert found.facts["samples"][0] <= cap
        labels = grid_labels((4, 4), (2, 2))
        told = cls(segments=labels, baseline=x).parameters()
        assert told["segments"].startswith("sha256:")
        assert told["baseline"].startswith("sha256:")
        assert told["segments"] != cls(segments=labels.T.contiguous() * 2).parameters()["segments"]
