"""Targets that hang on different layers, asked together or one after the other: each is explained at its own."""

import copy

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.errors import LayerError
from pellucid.heatmaps import explain_all, get_method


class TwoLevels(nn.Module):
    """Answer 0 hangs on one level, answer 1 on another, as the boxes of a detector on its pyramid."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        seen = self.stem(x).relu()
        levels = self.fine(seen).relu(), self.coarse(seen[..., ::2, ::2]).relu()
        return torch.stack([level.mean((1, 2, 3)) for level in levels], 1)


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["grad-cam", "hires-cam", "ablation-cam", "group-cam"])
def test_targets_on_different_levels_are_what_each_is_alone(name):
    net = TwoLevels()
    alone = [explain_all([get_method(name)], copy.deepcopy(net), X, [t])[0][0] for t in (0, 1)]
    assert {a.layer.name for a in alone} == {"fine", "coarse"}
    together = explain_all([get_method(name)], copy.deepcopy(net), X, [1, 0, 1])[0]
    one_model = [explain_all([get_method(name)], net, X, [t])[0][0] for t in (0, 1)]
    for found in ([together[1], together[0]], [together[1], together[2]], one_model):
        for a, b in zip(found, alone, strict=True):
            assert a.layer.name == b.layer.name
            torch.testing.assert_close(a.values, b.values)


def test_methods_of_one_pass_go_apart_together():
    methods = [get_method("grad-cam"), get_method("hires-cam"), get_method("saliency")]
    found = explain_all(methods, TwoLevels(), X, [0, 1])
    for m, row in zip(methods, found, strict=True):
        for target, a in zip((0, 1), row, strict=True):
            own = explain_all([m], TwoLevels(), X, [target])[0][0]
            torch.testing.assert_close(a.values, own.values)


def test_a_named_layer_beside_the_way_is_refused_as_ever():
    with pytest.raises(LayerError, match="use 'coarse', or name no layer"):
        explain_all([get_method("grad-cam", layer="fine")], TwoLevels(), X, [0, 1])


@pytest.mark.slow
def test_boxes_of_a_pyramid_are_explained_in_any_order():
    name, kept = "torchvision:ssdlite320_mobilenet_v3_large", []
    for order in (["box:0", "box:1@20,20,560,380"], ["box:1@20,20,560,380", "box:0"]):
        model = pl.load(name, random_weights=3)
        kept.append({e.target: e for e in pl.explain(model, "sample:coffee", "odam", order)})
    assert kept[0].keys() == kept[1].keys()
    for target, e in kept[0].items():
        assert e.layer == kept[1][target].layer
        assert torch.equal(e.attribution, kept[1][target].attribution)
