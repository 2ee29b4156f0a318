import itertools
import math

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.detectors import Squares, scene
from pellucid.engine.masks import GridMasks
from pellucid.errors import MethodError
from pellucid.heatmaps.adaptive import AISE, GaussianMasks
from pellucid.heatmaps.sampling import RISE, cells_per_axis, orthogonal_block
from pellucid.heatmaps.sensitivity import HSIC, Sobol, hsic, median_distance, total_indices
from pellucid.numerics.stopping import BlockMean, Stopping, relative_error
from pellucid.scoring.job import prepare

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}
BRIEF = {
    "rise": RISE(samples=512),
    "rise, independent": RISE(samples=400, p=0.4),
    "rise, as in the paper": RISE(samples=1024, centred=False),
    "sobol": Sobol(samples=16 * 27, cells=5),
    "hsic": HSIC(samples=256, cells=5),
    "hsic, latin": HSIC(samples=120, cells=8),
    "aise": AISE(),
}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def finder(dims=2, channels=1, size=5):
    """Class 0: the brightest mean over `size` places; class 1: its opposite and more."""
    net = nn.Sequential(
        CONV[dims](channels, 1, size, padding=size // 2), nn.ReLU(), POOL[dims](1), nn.Flatten(), nn.Linear(1, 3)
    ).eval()
    with torch.no_grad():
        net[0].weight.fill_(1 / net[0].weight.numel())
        net[0].bias.zero_()
        net[4].weight.copy_(torch.tensor([[4.0], [-2.0], [0.0]]))
        net[4].bias.copy_(torch.tensor([0.0, 1.0, 7.0]))
    return net


def planted(space, corners, side=6, channels=1):
    """Faint noise with one bright box for each sample, whose first corner is given."""
    x = 0.05 * noise(len(corners), channels, *space).abs()
    for sample, corner in zip(x, corners, strict=True):
        sample[(slice(None), *(slice(c, c + side) for c in corner))] = 1
    return x


def linear(weights):
    """`sum w x + 3`, with x of ones and a baseline of zeros: the score is linear in the mask."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weights.numel(), 1))
    with torch.no_grad():
        net[1].weight.copy_(weights.flatten()[None])
        net[1].bias.fill_(3.0)
    return net.eval(), torch.ones(1, 1, *weights.shape)


def smoothed(weights, cells, p):
    """What RISE converges to on `linear`: `sum_j Cov(mask_i, mask_j) w_j / (p (1 - p))`, by drawing every cell."""
    space = weights.shape
    grid = tuple(c + 1 for c in cells_per_axis(cells, space))
    widths = [-(-s // (g - 1)) for s, g in zip(space, grid, strict=True)]
    total = torch.zeros(space)
    shifts = list(itertools.product(*[range(w) for w in widths]))
    each = torch.eye(math.prod(grid)).reshape(-1, *grid)
    for shift in shifts:
        drawn = GridMasks(each, space, "linear", torch.tensor(shift).expand(len(each), -1)).render(slice(None))[:, 0]
        total += torch.einsum("k...,k->...", drawn, (drawn * weights).flatten(1).sum(1))
    return total / len(shifts)


# --- RISE


@pytest.mark.parametrize(("p", "samples"), [(0.5, 256), (0.5, 20), (0.3, 128)])
@pytest.mark.parametrize("space", [(24,), (12, 9), (5, 6, 4)])
def test_rise_is_unbiased_on_a_linear_model(space, p, samples):
    weights = noise(*space)
    net, x = linear(weights)
    truth = smoothed(weights, 4, p)
    found = torch.stack([RISE(cells=4, p=p, samples=samples, seed=s).attribute(net, x)[0] for s in range(30)])
    error = found.std(0) / math.sqrt(len(found))
    deviation = ((found.mean(0) - truth) / error).flatten()
    assert deviation.square().mean().sqrt() < 2  # standard errors, over all places
    assert found.mean(0).flatten().dot(truth.flatten()) > 0


def test_an_orthogonal_block_is_exact_on_a_linear_model():
    weights = noise(8, 8)
    net, x = linear(weights)
    (found,) = RISE(cells=8, samples=512).explain(net, x, [None])  # cells of one place: no shift
    assert torch.allclose(found.values[0], weights, atol=1e-4)
    assert found.extras["standard_error"].max() < 1e-4


def test_values_of_rise_are_score_per_cell():
    net, x = linear(torch.full((40, 40), 0.01))
    cell = 8 * 8
    inner = RISE(cells=5, samples=4096).attribute(net, x)[0, 10:-10, 10:-10]
    assert abs(float(inner.mean()) - 0.01 * cell) < 0.05 * 0.01 * cell


@pytest.mark.parametrize(("p", "samples", "centred"), [(0.5, 128, True), (0.3, 128, True), (0.5, 128, False)])
def test_the_standard_error_of_rise_covers(p, samples, centred):
    weights = noise(16)
    net, x = linear(weights)
    truth = smoothed(weights, 4, p)
    if not centred:  # E[s mask] / p = (Cov + E[s] p) / p; the expectation of the mask is p everywhere
        truth = truth * (1 - p) + float(weights.sum()) * p + 3
    inside = []
    for seed in range(60):
        (found,) = RISE(cells=4, p=p, samples=samples, centred=centred, seed=seed).explain(net, x, [None])
        inside.append((found.values - truth).abs() <= 2.36 * found.extras["standard_error"])
    assert 0.91 < torch.stack(inside).float().mean() < 0.99  # 8 blocks, 7 degrees of freedom: 95 %


def test_orthogonal_blocks_are_coin_flips_without_correlation():
    generator = torch.Generator().manual_seed(0)
    for cells, rows in ((1, 2), (5, 16), (64, 128)):
        z = 2 * orthogonal_block(cells, generator) - 1
        assert z.shape == (rows, cells)
        assert torch.equal(z.T @ z, rows * torch.eye(cells))
        assert torch.equal(z.sum(0), torch.zeros(cells))
    flips = torch.stack([orthogonal_block(3, generator)[0] for _ in range(4000)])
    codes = (flips @ torch.tensor([1.0, 2.0, 4.0])).long().bincount(minlength=8) / 4000
    assert (codes - 1 / 8).abs().max() < 0.025  # a single mask is drawn as if its cells were independent


def test_orthogonal_blocks_lower_the_error():
    net, x = linear(noise(24, 24))
    size = {}
    for name, p in (("orthogonal", 0.5), ("independent", 0.5 + 1e-9)):
        (found,) = RISE(samples=1024, p=p).explain(net, x, [None])
        size[name] = float(found.extras["standard_error"].square().mean())
    assert size["orthogonal"] < size["independent"] / 2


def test_auto_stops_at_the_tolerance_and_says_when_it_could_not():
    net, x = finder(), planted((32, 32), [(20, 6), (3, 20)])
    (found,) = RISE(tolerance=0.1).explain(net, x, [0])
    assert max(found.facts["relative_standard_error"]) <= 0.1
    assert 512 <= max(found.facts["samples"]) < 4096
    assert found.notes == []
    same = RISE(samples=int(found.facts["samples"][0])).explain(net, x, [0])[0]
    assert torch.equal(same.values[0], found.values[0])  # a stop is a shorter run, nothing else
    (short,) = RISE(tolerance=0.01, max_samples=600).explain(net, x, [0])
    assert short.facts["samples"] == [512.0, 512.0]
    assert len(short.notes) == 1
    assert "raise max_samples" in short.notes[0]
    (few,) = RISE(samples=8).explain(net, x, [0])
    assert "noise" in few.notes[0]


# --- Sobol and HSIC


def test_total_indices_of_the_ishigami_function():
    def ishigami(u):
        x = (2 * u - 1) * math.pi
        return x[..., 0].sin() + 7 * x[..., 1].sin() ** 2 + 0.1 * x[..., 2] ** 4 * x[..., 0].sin()

    v1, v2 = 0.5 * (1 + 0.1 * math.pi**4 / 5) ** 2, 7**2 / 8
    v13 = 0.1**2 * math.pi**8 * (1 / 18 - 1 / 50)
    truth = torch.tensor([v1 + v13, v2, v13], dtype=torch.float64) / (v1 + v2 + v13)
    draw, size, _ = Sobol(seed=3).design(3)
    points = draw(2048)
    assert size == 5
    scores = ishigami(points)[None]
    values, error = total_indices(scores[..., 0], scores[..., 1], scores[..., 2:])
    assert (values[0] - truth).abs().max() < 0.02
    assert ((values[0] - truth).abs() < 3 * error[0]).all()

    random = torch.rand(300, 64, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = random.split(3, dim=-1)
    mixed = torch.where(torch.eye(3, dtype=torch.bool), b[..., None, :], a[..., None, :])
    many, errors = total_indices(ishigami(a), ishigami(b), ishigami(mixed))
    assert ((many.mean(0) - truth).abs() < 0.03).all()
    assert (
        (errors.mean(0) / many.std(0) - 1).abs() < 0.25
    ).all()  # the delta method tells the scatter of random points


def test_hsic_is_the_plain_definition():
    n, d = 24, 5
    masks = torch.randint(0, 2, (n, d), generator=torch.Generator().manual_seed(1)).float()
    scores = torch.stack([masks[:, 2] + 0.1 * noise(n), noise(n, seed=2)]).double()
    widths = median_distance(scores)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    for r, y in enumerate(scores):
        pairs = sorted(abs(float(y[a] - y[b])) for a in range(n) for b in range(a))
        assert float(widths[r]) == pytest.approx(pairs[(len(pairs) - 1) // 2])
        L = torch.tensor([[math.exp(-(float(s - t) ** 2) / (2 * float(widths[r]) ** 2)) for t in y] for s in y])
        for i in range(d):
            K = (masks[:, None, i] == masks[None, :, i]).double()
            plain = torch.trace(K @ centre @ L.double() @ centre) / (n - 1) ** 2
            assert float(hsic(masks, scores)[r, i]) == pytest.approx(float(plain), rel=1e-5)
    assert hsic(masks, scores)[0].argmax() == 2


def test_hsic_in_blocks_is_the_same_and_knows_its_error():
    method = HSIC(samples=512)
    draw, size, _ = method.design(6)
    weights = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0, 0.0])
    masks = draw(60 * 8).reshape(60, 8, size, 6)
    scores = (masks @ weights + 2 * masks[..., 0] * masks[..., 4] + noise(60, 8, size)).double()
    found = [method.estimate(m, s[None]) for m, s in zip(masks, scores, strict=True)]
    plain = hsic(masks[0].flatten(0, 1), scores[0].flatten()[None])
    assert torch.allclose(found[0][0], plain, rtol=1e-9)
    values, errors = (torch.cat(v) for v in zip(*found, strict=True))
    ratio = errors.mean(0) / values.std(0)
    assert (ratio > 0.75).all()
    assert (ratio < 2).all()


def test_latin_masks_are_balanced():
    for method, cells in ((HSIC(samples=512), 30), (HSIC(samples=64), 200)):
        draw, size, _ = method.design(cells)
        masks = draw(2)
        assert masks.shape == (2, size, cells)
        assert (masks.sum(1) == size / 2).all()
    first, second = draw(1), draw(1)
    assert not torch.equal(first, second)


def test_sobol_shares_of_a_net_with_two_cells():
    weights = torch.zeros(8, 8)
    weights[0, 0], weights[5, 6] = 1.0, 3.0
    net, x = linear(weights)
    (found,) = Sobol(samples=64 * 66).explain(net, x, [None])
    expected = torch.zeros(8, 8)
    expected[0, 0], expected[5, 6] = 0.1, 0.9
    assert (found.values[0] - expected).abs().max() < 0.06
    assert ((found.values[0] - expected).abs() <= 3 * found.extras["standard_error"][0] + 1e-6).all()


# --- all of them


@pytest.mark.parametrize("name", BRIEF)
@pytest.mark.parametrize("space", [(40,), (32, 32), (20, 14, 16)])
def test_finds_what_was_planted(name, space):
    corners = [tuple(s - 8 for s in space), tuple(2 for _ in space)]
    method = BRIEF[name]
    if len(space) == 3 and name in ("rise", "rise, as in the paper", "rise, independent", "sobol", "hsic"):
        cells = 3 if name in ("rise", "rise, as in the paper") else 4
        method = type(method)(**{**vars(method), "cells": cells})
    found = method.attribute(finder(len(space)), planted(space, corners), 0)
    assert found.dtype == torch.float32
    grid = found.shape[1:]
    for n, corner in enumerate(corners):
        best = torch.unravel_index(found[n].argmax(), grid)
        for at, cells, size, first in zip(best, grid, space, corner, strict=True):
            low, high = int(at) * size // cells, (int(at) + 1) * size / cells
            assert high >= first
            assert low <= first + 6


def test_aise_spends_its_windows_near_the_object():
    net, x = finder(), planted((32, 32), [(20, 6)])
    job = prepare(net, x, [0])
    spread, adaptive = (AISE(explore=e) for e in (1.0, 0.3))
    asked = []

    class Recorder(AISE):
        def _worth(self, scorer, centres, *rest):
            asked.append(centres)
            return super()._worth(scorer, centres, *rest)

    def share(method):
        asked.clear()
        Recorder(**vars(method)).perturb(job)
        later = torch.cat([c[0] for c in asked if c.shape[1] <= 10])
        return ((later - torch.tensor([23.0, 9.0]) / 32).norm(dim=1) < 0.25).double().mean()

    assert share(adaptive) > 1.5 * share(spread)


@pytest.mark.parametrize("sign", [1, -1])
def test_aise_is_zero_where_there_is_no_evidence_and_has_its_sign_elsewhere(sign):
    """A score linear in the picture, far from 0 without any: a window's worth is twice its own part."""
    weights = torch.zeros(8, 8)
    weights[6, 6] = sign
    net, x = linear(weights)
    net[1].bias.data.fill_(100.0)
    (found,) = AISE(samples=200, widths=(0.1,)).explain(net, x, [None])
    values = found.values[0] * sign
    top = divmod(int(values.argmax()), values.shape[1])
    assert all(6 / 8 <= (at + 0.5) / size <= 7 / 8 for at, size in zip(top, values.shape, strict=True))
    assert values[:3].abs().max() < 0.01 * values.max()  # five widths away and more
    assert found.facts["samples"] == [200]


def test_aise_of_a_box_looks_around_it():
    """In the planted scene, the pixels of each square alone carry its box."""
    model, x = pl.wrap(Squares(), task="boxes"), scene()
    red, blue = pl.explain(model, x, AISE(samples=40, widths=(0.2,)), ["box:0", "box:1"])
    for e, (left, top) in zip((red, blue), ((8, 16), (24, 0)), strict=True):
        values = e.map()[0]
        peak = divmod(int(values.argmax()), values.shape[1])
        assert (top <= peak[0] < top + 8, left <= peak[1] < left + 8) == (True, True)
        far = torch.ones_like(values, dtype=torch.bool)
        far[max(0, top - 8) : top + 16, max(0, left - 8) : left + 16] = False
        assert values[far].abs().max() < 0.1 * values.max()
        assert e.attribution.isfinite().all()


def test_gaussian_masks_of_a_frame_are_those_of_that_part():
    values = torch.tensor([[0.5, 0.25, 0.1, 0]])
    part = GaussianMasks(values, (20, 30), ((0.5, 0.5), (0.0, 1 / 3))).render(slice(None))[0, 0]
    whole = GaussianMasks(values, (10, 10)).render(slice(None))[0, 0]
    assert torch.allclose(part[10:, :10], whole, atol=1e-6)


def test_gaussian_masks():
    values = torch.tensor([[0.5, 0.25, 0.1, 0], [0.5, 0.25, 0.1, 1]])
    masks = GaussianMasks(values, (20, 30))
    drawn = masks.render(slice(None))
    y, x = torch.meshgrid((torch.arange(20) + 0.5) / 20, (torch.arange(30) + 0.5) / 30, indexing="ij")
    assert torch.allclose(drawn[0, 0], torch.exp(-((y - 0.5) ** 2 + (x - 0.25) ** 2) / 0.02), atol=1e-6)
    assert torch.allclose(drawn[1], 1 - drawn[0])
    weights = noise(2, 3)
    assert torch.allclose(masks.accumulate(weights), torch.einsum("mt,myx->tyx", weights, drawn[:, 0]), atol=1e-6)


@pytest.mark.parametrize("name", BRIEF)
def test_seeds_repeat_bit_for_bit_and_differ(name):
    net, x, method = finder(), planted((32, 32), [(20, 6)]), BRIEF[name]
    first, again = method.attribute(net, x, 0), method.attribute(net, x, 0)
    assert torch.equal(first, again)
    other = type(method)(**{**vars(method), "seed": 1}).attribute(net, x, 0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", BRIEF)
def test_neither_batch_size_nor_company_matters(name, monkeypatch):
    net, x, method = finder(), planted((32, 32), [(20, 6), (3, 20)]), BRIEF[name]
    (both,) = method.explain(net, x, [0])
    for n in range(2):
        assert torch.allclose(method.attribute(net, x[n : n + 1], 0)[0], both.values[n], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("pellucid.engine.perturb.default_batch", lambda *_, **__: 7)
    assert torch.allclose(method.attribute(net, x, 0), both.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*BRIEF, "auto"])
def test_several_targets_equal_separate_runs(name):
    net, x = finder(), planted((32, 32), [(20, 6), (3, 20)])
    method = BRIEF.get(name) or HSIC(cells=4, tolerance=0.05)
    targets = [0, 1, lambda y: y[:, 0].sigmoid()]
    together = method.explain(net, x, targets)
    for target, found in zip(targets, together, strict=True):
        (alone,) = method.explain(net, x, [target])
        assert torch.equal(alone.values, found.values)
        assert alone.facts == found.facts


@pytest.mark.parametrize("name", [*BRIEF, "auto"])
def test_a_score_that_stands_still_gives_zero_and_a_note(name):
    method = BRIEF.get(name) or RISE()
    (found,) = method.explain(finder(), planted((32, 32), [(20, 6)]), [2])
    assert not found.values.any()
    assert "stands still" in found.notes[0]
    assert max(found.facts["samples"]) <= 1024


@pytest.mark.parametrize("name", BRIEF)
def test_the_model_is_untouched_and_the_cost_is_told(name):
    net, x, calls = finder().train(), planted((32, 32), [(20, 6)]), []
    net.register_forward_hook(lambda _m, args, _y: calls.append(len(args[0])))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state, copy = torch.get_rng_state(), x.clone()
    (found,) = BRIEF[name].explain(net, x, [0])
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, copy)
    assert len(net._forward_hooks) == 1
    assert found.cost.forwards == sum(calls)
    assert found.cost.backwards == 0


def test_wrong_parameters_are_named():
    x = planted((12, 12), [(2, 2)])
    for wrong in (
        lambda: RISE(p=1.0),
        lambda: RISE(samples=2),
        lambda: HSIC(samples="some"),
        lambda: Sobol(tolerance=0.0),
        lambda: AISE(samples=4),
        lambda: AISE(widths=()),
        lambda: AISE(explore=2.0),
        lambda: RISE(cells=1).attribute(finder(), x, 0),
        lambda: RISE(cells=(3,)).attribute(finder(), x, 0),
        lambda: HSIC(cells=(30, 2)).attribute(finder(), x, 0),
    ):
        with pytest.raises(MethodError):
            wrong()


def test_grids_keep_proportion_and_two_cells_an_axis():
    assert cells_per_axis(7, (224, 224)) == (7, 7)
    assert cells_per_axis(8, (100, 50)) == (8, 4)
    assert cells_per_axis(8, (4, 224, 224)) == (2, 8, 8)
    assert cells_per_axis((4, 7), (16, 20)) == (4, 7)


def test_records_name_a_tensor_baseline():
    for method in (RISE, Sobol, HSIC, AISE):
        assert method(baseline=torch.zeros(1)).parameters()["baseline"].startswith("sha256:")
        assert method().quick().samples < 600


# --- stopping


def test_block_means_are_means_and_resting_maps_keep_theirs():
    blocks = noise(6, 2, 3, 4)
    tally = BlockMean(2)
    for k, block in enumerate(blocks):
        tally.add(block, torch.tensor([True, k < 4]))
    assert torch.allclose(tally.mean[0], blocks[:, 0].mean(0), atol=1e-6)
    assert torch.allclose(tally.error[0], blocks[:, 0].std(0) / math.sqrt(6), atol=1e-6)
    assert torch.allclose(tally.mean[1], blocks[:4, 1].mean(0), atol=1e-6)
    assert torch.allclose(tally.error[1], blocks[:4, 1].std(0) / 2, atol=1e-6)


def test_stopping_asks_for_a_small_error_and_a_stable_top():
    values = torch.arange(100.0).reshape(1, 10, 10)
    small, large = (torch.full_like(values, s * float(values.std())) for s in (0.05, 0.2))
    done = Stopping(0.1)
    assert not done(values, small)  # nothing to compare with
    assert done(values, small)
    assert not done(values, large)
    assert not done(values.flip(1), small)  # another top
    assert done(values.flip(1), small)
    assert relative_error(values, large) == pytest.approx(0.2, rel=0.02)
    assert relative_error(torch.zeros(1, 4), torch.zeros(1, 4)) == 0
