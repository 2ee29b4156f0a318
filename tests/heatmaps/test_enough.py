"""SufficientRegion, necessary and complete regions: planted ones, and all subsets of a small grid."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from pellucid.errors import MethodError
from pellucid.heatmaps import CompleteRegion, NecessaryRegion, SufficientRegion, explain_all
from pellucid.heatmaps.enough import certificate, least_shares
from pellucid.models.targets import Contrast
from pellucid.numerics.conformal import conformal_bound
from pellucid.testing import check_method


class Reads(nn.Module):
    """Class 1 where at least `need` of the named cells (of 4 x 4 places each) are bright, else class 0."""

    def __init__(self, groups, need=1.0, size=4):
        super().__init__()
        self.groups, self.need, self.size = groups, need, size

    def forward(self, x):
        grid = nn.functional.avg_pool2d(x.mean(1), self.size)
        seen = torch.stack([torch.stack([grid[:, r, c] for r, c in cells], 1).amin(1) for cells in self.groups], 1)
        evidence = seen.amax(1) - 0.5 * self.need
        return torch.stack([-evidence, evidence], 1) * 8


def cells(*named, side=8):
    found = torch.zeros(side, side)
    for r, c in named:
        found[r, c] = 1
    return found


ONE = ((2, 3), (2, 4), (3, 3), (3, 4))
TWO = ((6, 1), (6, 2))
BRIGHT = torch.ones(1, 3, 32, 32)


def test_a_planted_region_is_found_exactly():
    """All four cells are needed, and one of them is enough to break it."""
    net = Reads([ONE])
    sufficient, necessary, complete = (
        row[0]
        for row in explain_all(
            [SufficientRegion(cells=8), NecessaryRegion(cells=8), CompleteRegion(cells=8)], net, BRIGHT, [1]
        )
    )
    assert torch.equal(sufficient.values[0], cells(*ONE))
    assert int(necessary.values.sum()) == 1
    assert (cells(*ONE) * necessary.values[0]).sum() == 1
    assert torch.equal(complete.values[0], cells(*ONE))
    assert sufficient.facts["area"] == [4 / 64]
    assert sufficient.facts["minimal"] == [1.0]
    assert sufficient.facts["score"][0] > 0.9 > 0.5 > necessary.facts["score"][0]


def test_two_planted_copies_are_two_disjoint_sets_and_both_are_needed():
    net = Reads([ONE, TWO])
    found = SufficientRegion(cells=8, many=3).explain(net, BRIGHT, [1])[0]
    first, second, third = found.extras["regions"][0]
    assert torch.equal(first, cells(*TWO)), "the smaller one comes first"
    assert torch.equal(second, cells(*ONE))
    assert not third.any()
    assert found.facts["regions"] == [2.0]
    assert any("no further region" in note for note in found.notes)
    assert torch.equal(found.values[0], cells(*TWO) + cells(*ONE) / 2)
    hidden = NecessaryRegion(cells=8).attribute(net, BRIGHT, 1)[0]
    assert [int((hidden * cells(*copy)).sum()) for copy in (ONE, TWO)] == [1, 1], "one cell of each copy"
    assert int(hidden.sum()) == 2


def test_a_quick_search_looks_for_the_first_region_alone():
    net, method = Reads([ONE, TWO]), SufficientRegion(cells=8, many=3)
    full, quick = (m.explain(net, BRIGHT, [1])[0] for m in (method, method.quick()))
    assert torch.equal(full.extras["regions"][0, 0], quick.extras["regions"][0, 0])
    assert quick.extras["regions"].shape[1] == 1
    assert quick.cost.forwards < full.cost.forwards


def network_and_input(seed):
    """Nothing shown is class 2 to the network, the input is another."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 3)).eval()
    with torch.no_grad():
        net[3].bias += torch.tensor([0, 0, 0.1]) - net(torch.zeros(1, 3, 8, 8))[0]
        return net, next(x for x in torch.randn(99, 1, 3, 8, 8) if net(x).argmax() != 2)


@pytest.mark.parametrize("seed", range(3))
def test_the_claimed_least_size_is_that_of_all_subsets(seed):
    """65,536 sets of a 4 x 4 grid, each blended and asked by itself."""
    net, x = network_and_input(seed)
    top = int(net(x).argmax())
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=16)))
    with torch.no_grad():
        shown = masks.reshape(-1, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        kept = torch.cat([net(part * x).argmax(1) == top for part in shown.split(8192)])
    sizes, hidden = masks.sum(1), kept.flip(0)  # the list runs backwards through the complements
    least = {
        SufficientRegion: sizes[kept].min(),
        NecessaryRegion: sizes[~hidden].min() if not hidden.all() else None,
        CompleteRegion: sizes[kept & ~hidden].min() if (kept & ~hidden).any() else None,
    }
    for kind, expected in least.items():
        found = kind(cells=4, budget=70000).explain(net, x, [top])[0]
        if expected is None:
            assert not found.values.any()
            continue
        assert int(found.values.sum()) == expected, kind.__name__
        assert found.facts["proven"] == [1.0]
        quick = kind(cells=4, budget=400).explain(net, x, [top])[0]
        assert int(quick.values.sum()) == expected, f"{kind.__name__} with a search that cannot try all"


def test_scores_are_shared_and_counted():
    """Three methods cost less than twice one: the map and every score are common."""
    net = Reads([ONE])
    one = SufficientRegion(cells=8).explain(net, BRIGHT, [1])[0].cost.forwards
    three = explain_all(
        [SufficientRegion(cells=8), NecessaryRegion(cells=8), CompleteRegion(cells=8)], net, BRIGHT, [1]
    )[0][0].cost
    assert three.forwards < 2 * one


def test_a_small_budget_begins_with_fewer_masks_and_no_integrated_gradient():
    net, x = network_and_input(0)
    small, ample = (SufficientRegion(cells=4, budget=b).explain(net, x, [None])[0] for b in (100, 600))
    first = [found.cost.forwards - found.facts["tried"][0] for found in (small, ample)]
    assert first[0] + 100 < first[1], "26 masks, and 128 with a path of 16"
    assert 0 < small.cost.backwards < ample.cost.backwards


def test_any_target():
    """A contrast keeps its sign; a plain function half of what the input adds; `keep` is the caller's share."""
    net = Reads([ONE])
    assert torch.equal(SufficientRegion(cells=8).attribute(net, BRIGHT, Contrast(1, 0))[0], cells(*ONE))

    def mean(output):
        return output[:, 1] * 0 + output[:, 1].sigmoid()

    assert torch.equal(SufficientRegion(cells=8).attribute(net, BRIGHT, mean)[0], cells(*ONE))
    area = [
        float(SufficientRegion(cells=8, keep=k).attribute(nn.Flatten(), BRIGHT[:, :1], lambda y: y.mean(1)).mean())
        for k in (0.25, 0.75)
    ]
    assert area == [0.25, 0.75]


def test_a_class_that_is_not_the_answer():
    """Its score itself is kept by half."""
    found = SufficientRegion(cells=8).explain(Reads([ONE], need=3.0), BRIGHT, [1])[0]
    assert torch.equal(found.values[0], cells(*ONE))


def test_nothing_to_find():
    always = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.zeros_(always[2].weight)
    always[2].bias.data = torch.tensor([0.0, 1.0])
    sufficient, necessary = (r[0] for r in explain_all([SufficientRegion(), NecessaryRegion()], always, BRIGHT, [1]))
    for found in (sufficient, necessary):
        assert not found.values.any()
        assert "baseline alone" in found.notes[0]


def test_where_the_baseline_gives_the_answer_away_half_of_the_score_is_asked_for():
    class Lit(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)) * 0, 1 + x.mean((1, 2, 3))], 1)

    found = SufficientRegion(cells=8).explain(Lit(), BRIGHT, [1])[0]
    assert found.facts["area"] == [0.5]
    assert "baseline alone" in found.notes[0]


class Moments(nn.Module):
    """A clip's class 1 where frame 2 is bright in its upper left quarter."""

    def forward(self, x):
        seen = x[:, :, 2, :8, :8].mean((1, 2, 3)) - 0.5
        return torch.stack([-seen, seen], 1)


def test_frames_tubes_and_volumes():
    x = torch.ones(1, 3, 4, 16, 16)
    frames = SufficientRegion(cells=(4, 1, 1)).attribute(Moments(), x, 1)[0]
    assert frames.flatten().tolist() == [0, 0, 1, 0]
    tubes = SufficientRegion(cells=(1, 2, 2)).attribute(Moments(), x, 1)[0]
    assert tubes.flatten().tolist() == [1, 0, 0, 0]
    both = SufficientRegion().attribute(Moments(), x, 1)[0]
    assert both.shape == (4, 6, 6)
    assert both[[0, 1, 3]].sum() == 0
    assert both[2].any()


@pytest.mark.parametrize("kind", [SufficientRegion, NecessaryRegion, CompleteRegion])
def test_the_contract(kind):
    check_method(kind(cells=3, budget=24), clips=True)


def test_settings_without_sense():
    for wrong in ({"keep": 1.0}, {"budget": 3}, {"many": 0}, {"share": 2.0}):
        with pytest.raises(MethodError):
            SufficientRegion(**wrong)


class Spot(nn.Module):
    """Class 1 where enough light is shown, wherever it comes from."""

    def forward(self, x):
        seen = x.flatten(1).sum(1) / 100
        return torch.stack([1 - seen, seen - 1], 1)


def test_the_guaranteed_share_holds_for_new_inputs():
    """Calibrated on some, 90 % at least of the others are recognised by their first cells alone."""
    method = SufficientRegion(cells=4, baseline="zero")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 8, 8, generator=generator) * (4 + 12 * torch.rand(60, 1, 1, 1, generator=generator))
    shares = least_shares(method, Spot(), x[:40], 1)
    share = conformal_bound(shares, 0.1)
    found = replace(method, share=share, guarantee=0.1).explain(Spot(), x[40:], [1])[0]
    shown = found.values.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None] * x[40:]
    kept = Spot()(shown).argmax(1) == 1
    assert {float(v.mean()) for v in found.values} == {round(share * 16) / 16}, "the size is the same for all"
    assert kept.float().mean() >= 0.85  # 18 of 20 are expected
    assert 0 < share < 1


def test_what_vouches_for_a_region_is_said():
    found = SufficientRegion(cells=8).explain(Reads([ONE]), BRIGHT, [1])[0]
    line = certificate({name: values[0] for name, values in found.facts.items()})
    assert line.startswith("6.2% of the input; score 1.00 so, 1.00 with all, 0.00 with none; none of the")
    assert "nor can any single cell be missed" in line
    assert certificate({"completeness_gap": 0.1}) == ""


def test_a_region_is_cut_finer_once_its_cells_are_known():
    """What is planted in a quarter of a cell is found there; the sides of a coarse answer are."""
    net = Reads([((3, 5),), ((3, 4), (0, 0))])
    coarse = SufficientRegion(cells=4).explain(net, BRIGHT, [1])[0]
    fine = SufficientRegion(cells=4, finer=2).explain(net, BRIGHT, [1])[0]
    assert coarse.facts["area"] == [1 / 16]
    assert fine.facts["area"] == [1 / 64]
    assert torch.equal(fine.values[0], cells((3, 5)))
    assert fine.facts["proven"] == [1.0]
