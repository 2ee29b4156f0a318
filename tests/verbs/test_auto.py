"""`auto`: the best measured of maps that share a pass, what it costs, and what is said when none is faithful."""

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import STRETCH, pixels, planted_net
from helpers.trials import agreement, agreements, moved
from pellucid.errors import PellucidError
from pellucid.evaluation import Perturbed, check
from pellucid.evaluation.chance import mask_pairs
from pellucid.results import Heatmap
from pellucid.verbs.auto import Auto
from pellucid.verbs.request import CODECS

PLACE = (slice(8, 24), slice(40, 56))


def scene(place=PLACE):
    values = np.random.default_rng(0).integers(100, 150, (64, 64, 3)).astype(np.uint8)
    values[place] = 250
    return values


class Counted(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        self.seen.append(len(x))  # a list that copies share is put back by none
        return self.net(x)


@pytest.fixture(scope="module")
def model():
    return pl.wrap(planted_net(), transform=STRETCH, labels=("bright", "dark"))


def best_of(found):
    """By brute force: each map's agreement with masks of its own."""
    return max(e.session.perturbed(e.explained).agreement(e.map()[0]).correlation for e in found)


def test_the_map_shown_agrees_best_and_is_as_faithful_as_the_usual_one(model):
    e = pl.explain(model, scene(), "auto", "bright")
    among = e.record.run["chosen"]["among"]
    assert {"grad-cam", "hires-cam", "layer-cam", "eigen-cam"} <= {t["method"] for t in among}
    assert e.method == e.record.method["name"] == among[0]["method"]
    assert e.quality.verdict == "faithful"
    assert e.quality.agreement == pytest.approx(max(t["agreement"] for t in among if t["p_value"] <= 0.02))
    usual = pl.explain(model, scene(), "grad-cam,layer-cam,hires-cam", "bright")
    assert e.quality.agreement > best_of(usual) - 0.01  # of other numbers of masks, whichever made it certain
    assert e.notes[-1].startswith("Chosen from")


def test_it_is_measured_once_and_kept(model):
    e = pl.explain(model, scene(), "auto", "bright", check=True)
    passes, before = e.session.passes, e.quality
    assert e.check() is before
    assert e.session.passes == passes == e.record.run["chosen"]["passes"]


def test_it_costs_hardly_more_than_the_usual_map_with_its_check():
    costs = {}
    for method in ("auto", "grad-cam"):
        counter = Counted(planted_net())
        e = pl.explain(pl.wrap(counter, transform=STRETCH, labels=("bright", "dark")), scene(), method, "bright")
        e.check()
        costs[method] = e.session.passes
    assert costs["auto"] <= costs["grad-cam"]  # which is certain at once here


def test_no_more_is_asked_than_the_usual_map_needs_to_be_certain():
    corner = torch.zeros(14, 14)
    corner[2:6, 3:8] = torch.arange(1, 21).reshape(4, 5) / 20  # no move of it looks like it
    x = corner.repeat_interleave(4, 0).repeat_interleave(4, 1).expand(1, 3, -1, -1)
    asked = {}
    blind = [torch.randn(14, 14, generator=torch.Generator().manual_seed(s)) for s in range(40)]
    for name, maps in {"usual": [corner], "first": [corner, *blind], "last": [*blind, corner]}.items():
        seen = []

        def score(inputs, seen=seen):
            seen.append(len(inputs))
            return torch.sigmoid(8 * (inputs * x).mean((1, 2, 3)) / x.mean() - 4)

        found = Perturbed(score, x).agreements(maps)
        asked[name] = sum(seen)
        assert found[-1 if name == "last" else 0].alone <= 0.004
    assert asked["first"] == asked["usual"] <= asked["last"]


def test_weights_are_shuffled_for_the_map_that_is_shown_alone(model, monkeypatch):
    compared = []
    monkeypatch.setattr(check, "sanity_correlations", lambda _e, _m, _x, maps: compared.append(len(maps)) or [0.0])
    assert pl.explain(model, scene(), "auto", "bright").quality.verdict == "faithful"
    assert compared == [1]


def test_targets_and_pictures_are_chosen_for_one_by_one(model):
    both = [scene(), scene((slice(40, 56), slice(8, 24)))]
    found = pl.explain(model, both, ["auto", "saliency"], ["bright", "dark"])
    assert [e.method == "saliency" for e in found] == [False, True] * 4
    assert [e.target for e in found] == ["bright", "bright", "dark", "dark"] * 2
    for k, picture in enumerate(both):
        alone = pl.explain(model, picture, "auto", "bright")
        assert alone.method == found[4 * k].method
        torch.testing.assert_close(alone.attribution, found[4 * k].attribution)
        assert alone.quality.p_value == found[4 * k].quality.p_value


def test_what_was_chosen_is_recomputed_by_its_record(model, tmp_path):
    e = pl.explain(model, scene(), "auto", "bright", check=True)
    file = e.save(tmp_path)[0]
    assert str(pl.verify(file, model=model, inputs=scene())) == "same"
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["record"]["run"]["chosen"] == e.record.run["chosen"]


def test_where_none_is_faithful_it_says_so():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[4].weight *= 1e-3  # a score that nothing moves
    e = pl.explain(pl.wrap(net.eval(), transform=STRETCH), pixels(64, 64), "auto", 0)
    assert e.quality.verdict != "faithful"
    assert e.notes[-2].startswith("None of ")
    assert e.notes[-1].startswith("Nor is rise ")


class Switch(nn.Module):
    """Is it bright at the place, yes or no? No gradient says where that was read."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 4, 8, 8)
        self.head = nn.Linear(4, 2)
        place = torch.zeros(3, 64, 64)
        place[:, *PLACE] = 1 / place[:, *PLACE].numel()
        self.place = nn.Parameter(place.reshape(1, -1))

    def forward(self, x):
        told = self.head(self.features(x).mean((2, 3))) * 1e-3
        bright = ((x.flatten(1) @ self.place.T)[:, 0] > 0.8).to(x.dtype)
        return told + torch.stack([4 * bright, torch.full_like(bright, 2.0)], 1)


def test_where_no_map_of_a_pass_is_faithful_masks_are_asked():
    values = scene()
    values[40:56, 8:24] = 250  # as bright, and not read
    values[40:56, 40:56] = 250
    model = pl.wrap(Switch().eval(), transform=STRETCH, labels=("bright", "dark"))
    e = pl.explain(model, values, "auto", "bright")
    among = e.record.run["chosen"]["among"]
    assert (e.method, e.quality.verdict, e.ran.samples) == ("rise", "faithful", 500)
    assert among[0]["method"] == "rise"
    assert len(among) > 8
    alone = pl.explain(model, values, e.ran, "bright").check()
    assert e.quality.p_value == among[0]["p_value"] == pytest.approx(2 * alone.p_value)  # a second look
    assert "None of" in e.notes[-1]
    assert "counts twice" in e.notes[-1]
    assert e.check() is e.quality
    assert pl.explain(model, values, "auto", "bright", layer="features").method != "rise"  # a layer was asked for


def test_where_masks_do_no_better_it_says_so_too():
    model = pl.wrap(Switch().eval(), transform=STRETCH, labels=("bright", "dark"))
    e = pl.explain(model, scene((slice(8, 24), slice(8, 24))), "auto", "bright")  # dark at the place: nothing switches
    assert e.quality.verdict != "faithful"
    assert e.method != "rise" or e.quality.verdict == "partly faithful"
    assert e.record.run["chosen"]["among"][-1]["method"] == "rise"
    assert e.notes[-1].startswith("Nor is rise")


def test_a_black_box_is_explained_by_what_needs_outputs_alone():
    net = planted_net()

    def box(batch):
        with torch.no_grad():
            return net(batch)

    e = pl.explain(pl.wrap(box, transform=STRETCH, labels=("bright", "dark")), scene(), "auto", "bright")
    assert isinstance(e, Heatmap)
    assert e.method == "rise"
    assert e.quality is not None


def test_a_layer_that_is_named_is_kept_or_refused(model):
    assert pl.explain(model, scene(), "auto", "bright", layer="0").record.run["layer"] == "0"
    with pytest.raises(PellucidError, match="nowhere"):
        pl.explain(model, scene(), "auto", "bright", layer="nowhere")


def test_it_can_be_written_down_and_read_back():
    codec = CODECS["method"]
    asked = Auto(layer="0", seed=3)
    assert codec.read(codec.write(asked)) == asked


# ---------------------------------------------------------------- the chance of the best of several


def drawn(count, seed, grid=(6, 6)):
    g = torch.Generator().manual_seed(seed)
    masks = mask_pairs(grid, seed, 0)
    return [torch.randn(*grid, generator=g) for _ in range(count)], masks, torch.randn(2, masks.shape[1], generator=g)


def test_alone_and_beside_itself_a_map_has_the_p_value_that_it_had():
    maps, masks, scores = drawn(1, 0)
    alone = agreement(maps[0], masks, scores)
    twice = agreements(maps * 2, masks, scores)
    assert {a.p_value for a in twice} == {alone.p_value}
    assert {a.correlation for a in twice} == {alone.correlation}


def test_it_is_the_share_of_moves_that_would_have_looked_as_good():
    maps, masks, scores = drawn(3, 1)
    every = [[agreement(m.reshape(6, 6), masks, scores).correlation for m in moved(values.double())] for values in maps]
    own = [[sum(other >= c - 1e-9 for other in row) / len(row) for c in row] for row in every]
    best = [min(at) for at in zip(*own, strict=True)]
    for shares, found in zip(own, agreements(maps, masks, scores), strict=True):
        assert found.p_value == pytest.approx(sum(b <= shares[0] for b in best) / len(best))
        assert found.p_value >= shares[0]


def test_the_best_of_blind_maps_is_believed_no_more_often_than_one():
    naive, fair = 0, 0
    for seed in range(60):
        maps, masks, scores = drawn(6, 100 + seed)
        found = agreements(maps, masks, scores)
        fair += min(a.p_value for a in found) <= 0.05
        naive += min(agreement(m, masks, scores).p_value for m in maps) <= 0.05
    assert naive > 7  # about 1 - 0.95**6 of them
    assert fair <= 8  # 5 % of 60 and three standard deviations


def test_every_order_of_candidates_finds_the_same_map():
    maps, masks, scores = drawn(3, 2)
    first = {round(a.correlation, 9): a.p_value for a in agreements(maps, masks, scores)}
    for order in itertools.permutations(maps):
        assert {round(a.correlation, 9): a.p_value for a in agreements(list(order), masks, scores)} == first
