import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.nets import noise, pooled, seeded
from pellucid.engine.masks import grid_labels
from pellucid.errors import MethodError
from pellucid.heatmaps.mask_optimisation import (
    ExtremalPerturbation,
    IGOSPlusPlus,
    MeaningfulPerturbation,
    fitting_grid,
    smooth_maximum,
    variation,
)
from pellucid.heatmaps.trace_order import TraceOrder
from pellucid.progress import reporting

FITS = [
    MeaningfulPerturbation(iterations=40, baseline="zero", cells=8, jitter=0),
    ExtremalPerturbation(iterations=60, baseline="zero", cells=8, areas=(0.07,), smoothing=0.5),
    IGOSPlusPlus(iterations=12, nodes=3, baseline="zero", cells=8),
]
ALL = [*FITS, TraceOrder(cells=4, baseline="zero", sweeps=1)]
NAMES = [m.name for m in ALL]


class Weighted(nn.Module):
    """Two scores, a weighted sum of the input and its negative."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        total = (x * self.weights).flatten(1).sum(1)
        return torch.stack([total, -total], 1)


class Planted(nn.Module):
    """Class 0 sees the brightness of one box, saturating, class 1 all of the picture."""

    def __init__(self, box):
        super().__init__()
        self.box = box
        self.gain = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        whole = x.flatten(1).mean(1)
        return torch.stack([(self.gain * x[:, :, *self.box].flatten(1).mean(1)).tanh() + 0.05 * whole, whole], 1)


BOXES = {
    "picture": ((slice(8, 16), slice(20, 28)), (32, 32)),
    "volume": ((slice(0, 4), slice(8, 12), slice(4, 8)), (8, 16, 16)),
    "signal": ((slice(16, 24),), (64,)),
}


def inside(box, space, grid):
    mask = torch.zeros(space)
    mask[box] = 1
    for axis, g in enumerate(grid):
        mask = mask.unflatten(axis, (g, -1)).mean(axis + 1)
    return mask > 0.5


@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("m", ALL, ids=NAMES)
def test_finds_a_planted_object(m, kind):
    box, space = BOXES[kind]
    net, x = Planted(box).eval(), noise(1, 2, *space).abs() + 0.2
    grid = tuple(s // 4 for s in space)
    if isinstance(m, TraceOrder) and kind == "picture":
        grid = (4, 8)  # it runs every cell against every other
    found = replace(m, cells=grid).attribute(net, x, 0)
    assert found.shape == (1, *grid)
    where = inside(box, space, grid)
    top = found[0].flatten().topk(int(where.sum())).indices
    assert where.flatten()[top].float().mean() >= 0.7, f"{found[0]}"
    assert found[0][where].mean() > 1.4 * found[0][~where].mean()


@pytest.mark.parametrize("seed", range(3))
def test_extremal_of_a_linear_score_is_its_largest_cells(seed):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randperm(64, generator=generator)[:7]
    weights = torch.full((64,), -0.1)
    weights[positive] = 0.5 + torch.rand(7, generator=generator)
    m = ExtremalPerturbation(areas=(7 / 64,), smoothing=0, cells=8, baseline="zero", iterations=60)
    (found,) = m.explain(Weighted(weights.reshape(1, 8, 8)), torch.ones(1, 1, 8, 8), [0])
    expected = torch.zeros(64).index_fill(0, positive, 1).reshape(1, 8, 8)
    torch.testing.assert_close(found.values, expected, atol=0.02, rtol=0)


def test_meaningful_of_a_linear_score_deletes_what_counts():
    """Without jitter and smoothing each cell stands alone: it goes if its share of the score is above its price."""
    weights = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.125]).reshape(1, 8)
    m = MeaningfulPerturbation(area_weight=0.5, smooth_weight=0, jitter=0, cells=8, baseline="zero", iterations=60)
    found = m.attribute(Weighted(weights), torch.ones(1, 1, 8), 0)
    expected = (weights / weights.sum() > 0.5 / 8).float()  # a price of 0.5 / 8 a cell
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("areas", [(0.05,), (0.1, 0.3)])
@pytest.mark.parametrize("smoothing", [0, 0.5])
def test_extremal_masks_have_the_asked_area(areas, smoothing):
    net, x = pooled(), noise(2, 3, 32, 32)
    m = ExtremalPerturbation(areas=areas, smoothing=smoothing, cells=10)
    (found,) = m.explain(net, x, [1])
    masks = found.extras["masks"]
    assert masks.shape == (2, len(areas), 10, 10)
    torch.testing.assert_close(found.values, masks.mean(1))
    for k, a in enumerate(areas):
        assert (masks[:, k].flatten(1).sum(1) - a * 100).abs().max() <= 2
        torch.testing.assert_close(torch.tensor(found.facts[f"area_{a:g}"]), masks[:, k].flatten(1).mean(1))


def shown(x, mask, baseline):
    big = nn.functional.interpolate(mask[:, None], size=x.shape[2:], mode="bilinear", align_corners=False)
    return big * x + (1 - big) * baseline


def test_facts_are_the_scores_of_the_masks_and_better_than_at_the_start():
    net, x = Planted(BOXES["picture"][0]).eval(), noise(2, 2, 32, 32).abs()
    zero = torch.zeros_like(x)

    def s(mask):
        with torch.no_grad():
            f, low, high = net(shown(x, mask, zero))[:, 0], net(zero)[:, 0], net(x)[:, 0]
        return (f - low) / (high - low).abs()

    (a,) = FITS[0].explain(net, x, [0])
    torch.testing.assert_close(torch.tensor(a.facts["score_left"]), s(1 - a.values), rtol=1e-3, atol=1e-4)
    assert max(a.facts["score_left"]) < 0.3  # of 1 at the start
    (a,) = FITS[1].explain(net, x, [0])
    torch.testing.assert_close(torch.tensor(a.facts["score_0.07"]), s(a.values), rtol=1e-3, atol=1e-4)
    even = s(torch.full_like(a.values, 0.07))
    assert (torch.tensor(a.facts["score_0.07"]) > even + 0.2).all()
    (a,) = FITS[2].explain(net, x, [0])
    torch.testing.assert_close(torch.tensor(a.facts["score_left"]), s(1 - a.values), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.tensor(a.facts["score_alone"]), s(a.values), rtol=1e-3, atol=1e-4)
    assert max(a.facts["score_left"]) < 0.4 < 0.6 < min(a.facts["score_alone"])
    kept = (1 - a.extras["deletion"]) * (1 - a.extras["insertion"])
    torch.testing.assert_close(a.values, 1 - kept)


@pytest.mark.parametrize("m", ALL, ids=NAMES)
def test_samples_and_targets_do_not_influence_each_other(m):
    net, x = pooled(), noise(3, 3, 32, 32)
    together = m.explain(net, x, [1, 2])
    for n, t in itertools.product(range(3), range(2)):
        alone = m.attribute(net, x[n : n + 1], (1, 2)[t])
        # A mask is the end of a long walk: rounding by batch size grows on the way, but the walk is the same.
        assert (together[t].values[n] - alone[0]).abs().mean() < 0.02


@pytest.mark.parametrize("m", [*ALL, MeaningfulPerturbation(iterations=5, jitter=3)], ids=[*NAMES, "jitter"])
def test_one_seed_one_answer(m):
    net, x = pooled(), noise(1, 3, 32, 32)
    first = m.attribute(net, x, 1)
    torch.manual_seed(123)
    assert torch.equal(m.attribute(net, x, 1), first)


def test_another_seed_shifts_otherwise():
    net, x = pooled(), noise(1, 3, 32, 32)
    a, b = (MeaningfulPerturbation(iterations=10, jitter=4, cells=8, seed=s).attribute(net, x, 1) for s in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("m", ALL, ids=NAMES)
def test_leaves_no_trace(m):
    net, x = pooled().train(), noise(2, 3, 32, 32)
    net[1].eval()
    flags, random = [k.training for k in net.modules()], torch.get_rng_state()
    weights = {k: v.clone() for k, v in net.state_dict().items()}

    class Stop(Exception):  # noqa: N818
        pass

    def failing(y):
        if torch.is_grad_enabled() and y.requires_grad:
            raise Stop
        return y[:, 1]

    found = m.attribute(net, x, 1)
    assert not found.requires_grad
    if m.needs == "gradients":
        with pytest.raises(Stop):
            m.attribute(net, x, failing)
    assert [k.training for k in net.modules()] == flags
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(k._forward_hooks for k in net.modules())


@pytest.mark.parametrize("m", FITS, ids=NAMES[:3])
def test_a_baseline_that_says_the_same(m):
    net, x = pooled(), noise(2, 3, 32, 32)
    x[1] = 0
    (found,) = m.explain(net, x, [1])
    assert found.values[0].any()
    assert not found.values[1].any()
    assert any("choose another baseline" in note for note in found.notes)
    assert found.values.isfinite().all()


class Listener:
    def __init__(self):
        self.steps = {}

    def start(self, label, total):
        self.steps[label] = [0, total]
        self.label = label
        return 0

    def advance(self, _task, steps):
        self.steps[self.label][0] += steps

    def stop(self, task):
        pass


def test_costs_and_progress():
    net, x, listener = pooled(), noise(2, 3, 32, 32), Listener()
    with reporting(listener):
        costs = [m.explain(net, x, [1])[0].cost for m in FITS]
    assert (costs[0].forwards, costs[0].backwards) == (2 * (3 + 40 + 1), 2 * 41)
    assert (costs[1].forwards, costs[1].backwards) == (2 * (3 + 60 + 1), 2 * 61)
    assert (costs[2].forwards, costs[2].backwards) == (2 * (3 + 12 * 3 * 4 + 2), 2 * (12 * 3 * 4 + 2))
    for m in FITS:
        assert listener.steps[m.name] == [m.iterations, m.iterations]


def test_pieces():
    assert fitting_grid(None, (224, 224)) == (28, 28)
    assert fitting_grid(None, (64, 64, 64)) == (9, 9, 9)
    assert fitting_grid(None, (16, 16)) == (16, 16)
    assert math.prod(fitting_grid(None, (8, 224, 224))) == pytest.approx(784, rel=0.1)
    assert fitting_grid(7, (224, 112)) == (7, 4)
    values = torch.rand(2, 4, 5)
    torch.testing.assert_close(smooth_maximum(values, torch.eye(20)), values)
    whole = smooth_maximum(values, torch.ones(20, 20)).flatten(1)
    weights = (20 * values.flatten(1)).softmax(1)
    torch.testing.assert_close(whole, (weights * values.flatten(1)).sum(1, keepdim=True).expand(2, 20))
    by_hand = sum((values[:, i] - values[:, i + 1]).abs().pow(3).sum(1) for i in range(3))
    by_hand = by_hand + sum((values[:, :, i] - values[:, :, i + 1]).abs().pow(3).sum(1) for i in range(4))
    torch.testing.assert_close(variation(values, 3), by_hand / 20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeaningfulPerturbation(iterations=0),
        lambda: ExtremalPerturbation(areas=()),
        lambda: ExtremalPerturbation(areas=(0.1, 1.5)),
        lambda: ExtremalPerturbation(rate=0),
        lambda: IGOSPlusPlus(nodes=0),
        lambda: TraceOrder(curve="deleted"),
        lambda: ExtremalPerturbation(cells=70, iterations=1).attribute(pooled(), noise(1, 3, 80, 80), 0),
        lambda: TraceOrder(cells=1).attribute(pooled(), noise(1, 3, 32, 32), 0),
    ],
)
def test_bad_parameters(make):
    with pytest.raises(MethodError):
        make()


# --- trace-order ---


def curves(score, order, cells):
    """Scores while the first k cells are shown, and while they are hidden, by one pass each."""
    masks = torch.tensor([[float(order.index(c) < k) for c in range(cells)] for k in range(cells + 1)])
    return torch.stack([score(m) for m in masks]), torch.stack([score(1 - m) for m in masks])


@pytest.mark.parametrize("curve", ["both", "insertion", "deletion"])
def test_trace_order_is_the_best_of_all_orders_where_greed_is_no_loss(curve):
    """On additive scores the best order is that of the weights."""
    weights = torch.tensor([0.3, -1.0, 2.0, 0.7, -0.2, 1.1])
    net = Weighted(weights.reshape(1, 2, 3))
    (found,) = TraceOrder(cells=(2, 3), curve=curve, baseline="zero").explain(net, torch.ones(1, 1, 2, 3), [0])
    assert found.extras["order"].tolist() == [weights.argsort(descending=True).tolist()]
    assert found.values[0].flatten().argsort(descending=True).tolist() == weights.argsort(descending=True).tolist()
    assert found.values.max() == 1
    assert found.values.min() == pytest.approx(1 / 6)


@pytest.mark.parametrize("seed", range(4))
def test_trace_order_against_every_order(seed):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2)), seed)
    x = noise(1, 1, 8, 8, seed=seed)
    labels = grid_labels((8, 8), (2, 2))

    def score(mask):
        with torch.no_grad():
            return net(x * mask[labels])[0, 0].double()

    def areas(order):
        inserted, deleted = curves(score, list(order), 4)
        return float(torch.trapezoid(inserted, dx=1 / 4)), float(torch.trapezoid(deleted, dx=1 / 4))

    (found,) = TraceOrder(cells=2, baseline="zero", sweeps=4).explain(net, x, [0])
    insertion, deletion = found.facts["insertion_area"][0], found.facts["deletion_area"][0]
    expected = areas(found.extras["order"][0].tolist())
    assert (insertion, deletion) == pytest.approx(expected, abs=1e-5)
    every = [i - d for i, d in (areas(order) for order in itertools.permutations(range(4)))]
    assert insertion - deletion == pytest.approx(max(every), abs=1e-5)


def test_a_few_tried_cells_find_the_order_of_additive_scores_in_fewer_passes():
    weights = torch.randn(36, generator=torch.Generator().manual_seed(0))
    net, asked = Weighted(weights.reshape(1, 6, 6)), {"curve": "deletion", "sweeps": 0, "baseline": "zero"}
    whole, few = (
        TraceOrder(cells=6, tried=tried, **asked).explain(net, torch.ones(1, 1, 6, 6), [0])[0] for tried in (None, 3)
    )
    assert few.extras["order"].tolist() == whole.extras["order"].tolist() == [weights.argsort(descending=True).tolist()]
    once = 36 + 34 * 3  # all for the first rank, three for each further one; the last follows
    assert few.cost.forwards <= once + 2 * 37 + 9 < whole.cost.forwards / 2
    (first,) = TraceOrder(cells=6, ranks=5, **asked).explain(net, torch.ones(1, 1, 6, 6), [0])
    assert first.extras["order"].tolist() == whole.extras["order"].tolist()
    assert first.cost.forwards <= sum(range(32, 37)) + 30 + 2 * 37 + 9
    for wrong in ({"tried": 0}, {"ranks": 0}, {"tried": -1}):
        with pytest.raises(MethodError, match="Cells tried for a rank"):
            TraceOrder(**wrong)


def test_exchanges_only_help_and_are_bounded_in_cost():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.Tanh(), nn.Linear(24, 4)))
    x = 4 * noise(3, 1, 16, 16)  # far into saturation: what a cell adds depends on the others
    reached, costs = [], []
    for sweeps in (0, 1, 4):
        (found,) = TraceOrder(cells=4, sweeps=sweeps, baseline="zero").explain(net, x, [2])
        reached.append(torch.tensor(found.facts["insertion_area"]) - torch.tensor(found.facts["deletion_area"]))
        costs.append(found.cost.forwards)
    assert (reached[1] >= reached[0] - 1e-6).all()
    assert (reached[2] >= reached[1] - 1e-6).all()
    assert reached[2].sum() > reached[0].sum()
    assert costs[0] <= 3 * (16 * 17 + 2 * 17 + 1)
    assert costs[1] - costs[0] <= 3 * 4 * 16
