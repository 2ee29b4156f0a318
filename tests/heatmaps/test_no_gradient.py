"""Networks that lead no gradient back, or only one of zero: each is told as what it is, and what works instead."""

import warnings

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.errors import LayerError, ModelError, TargetError
from pellucid.heatmaps import Occlusion, get_method


class Rounded(nn.Module):
    """What a convolution finds, in steps."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.head((self.conv(x).relu() * 100).round().mean((2, 3)))


class Cut(Rounded):
    """The head alone has a graph."""

    def forward(self, x):
        with torch.no_grad():
            found = self.conv(x).relu().mean((2, 3))
        return self.head(found)


@pytest.mark.parametrize("name", ["saliency", "input-x-gradient", "smooth-grad", "guided-backprop", "blur-ig", "idgi"])
def test_a_map_of_zeros_says_that_the_score_has_no_slope(name):
    (found,) = get_method(name).explain(seeded(Rounded).eval(), noise(1, 3, 16, 16), [1])
    assert not found.values.any()
    assert any("occlusion" in note for note in found.notes)


def test_integrated_gradients_tells_a_score_without_a_slope_from_one_that_never_moves():
    net, x = seeded(Rounded).eval(), noise(1, 3, 16, 16)
    (found,) = get_method("integrated-gradients").explain(net, x, [1])
    assert ["no slope" in note for note in found.notes] == [True]
    (still,) = get_method("integrated-gradients", baseline=x.clone()).explain(net, x, [1])
    assert ["baseline equals the input" in note for note in still.notes] == [True]


def test_a_map_with_values_says_nothing_of_the_kind():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1176, 3))).eval()
    (found,) = get_method("saliency").explain(net, noise(1, 3, 16, 16), [1])
    assert found.notes == []


@pytest.mark.parametrize("name", ["lrp", "deep-lift", "guided-backprop", "saliency"])
def test_a_network_that_is_cut_off_is_refused_as_that_and_not_for_its_functions(name):
    net, x = seeded(Cut).eval(), noise(1, 3, 16, 16)
    with pytest.raises(TargetError, match=r"No gradient leads .* use a method that needs only outputs, such as occl"):
        get_method(name).explain(net, x, [1])
    assert Occlusion(window=4).attribute(net, x, 1).any()


def quantised(where):
    """A small network whose linear layers compute in integers, by torch's own quantisation while it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch gives its module up for torchao
        if torch.backends.quantized.engine == "none":
            torch.backends.quantized.engine = "qnnpack"
        return torch.ao.quantization.quantize_dynamic(where, {nn.Linear})


@pytest.mark.parametrize("name", ["saliency", "lrp", "integrated-gradients", "smooth-grad"])
def test_a_layer_of_which_torch_knows_no_gradient_is_named(name):
    net, x = quantised(seeded(Rounded).eval()), noise(1, 3, 16, 16)
    with pytest.raises(ModelError, match=r"The quantised layer 'head' passes no gradient on.*occlusion"):
        get_method(name).explain(net, x, [1])
    assert Occlusion(window=4).attribute(net, x, 1).any()


def test_a_cam_in_front_of_such_a_layer_names_what_works():
    net = quantised(
        nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    )
    with pytest.raises(LayerError, match=r"use occlusion|such as occlusion"):
        get_method("grad-cam").explain(net.eval(), noise(1, 3, 16, 16), [1])
