"""DeconvNet, guided back-propagation, Guided Grad-CAM: captum on the network taken apart is the truth."""

import copy

import pytest
import torch
import torchvision
from captum.attr import Deconvolution, GuidedGradCam
from captum.attr import GuidedBackprop as Theirs
from torch import nn
from torchvision.models.resnet import BasicBlock

from helpers.nets import OneConv, noise, seeded, settled
from pellucid.errors import MethodError
from pellucid.heatmaps import DeconvNet, GuidedBackprop, GuidedGradCAM, get_method
from pellucid.testing import check_method
from pellucid.testing.networks import Sound

RAMP = torch.arange(16.0).reshape(1, 1, 4, 4)


class Rectified(Sound):
    """`Sound` with rectifiers, one of them in place."""

    def __init__(self):
        super().__init__()
        self.body[1], self.body[3] = nn.ReLU(), nn.ReLU(inplace=True)


@pytest.mark.parametrize("name", ["deconvnet", "guided-backprop", "guided-grad-cam"])
def test_the_contract(name):
    check_method(get_method(name), network=Rectified)


@pytest.mark.parametrize("inplace", [False, True])
def test_captums_exact_values(inplace):
    """`test_simple_input_conv_gb` of captum."""
    found = GuidedBackprop().attribute(OneConv(inplace), RAMP, 0)
    assert found[0, 0].tolist() == [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]


class Block(nn.Module):
    """A basic block of torchvision whose rectifiers are modules of their own, used once, not in place."""

    def __init__(self, block):
        super().__init__()
        self.block, self.inner, self.outer = block, nn.ReLU(), nn.ReLU()

    def forward(self, x):
        b = self.block
        y = b.bn2(b.conv2(self.inner(b.bn1(b.conv1(x)))))
        return self.outer(y + (x if b.downsample is None else b.downsample(x)))


def resnet():
    return settled(seeded(lambda: torchvision.models.resnet18(num_classes=7)))


def taken_apart(net):
    net = copy.deepcopy(net)
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        for k in range(len(stage)):
            stage[k] = Block(stage[k])
    net.relu = nn.ReLU()
    for part in net.modules():
        if isinstance(part, BasicBlock):
            part.relu = None
    return net.eval()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_resnet_is_captums_on_the_network_taken_apart():
    net, x = resnet(), noise(2, 3, 48, 48)
    apart = taken_apart(net)
    for ours, theirs in ((GuidedBackprop(), Theirs(apart)), (DeconvNet(), Deconvolution(apart))):
        expected = theirs.attribute(x.clone(), 3)
        found = ours.attribute(net, x, 3)
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    expected = GuidedGradCam(apart, apart.layer2).attribute(x.clone(), 3, interpolate_mode="bilinear")
    found = GuidedGradCAM(layer="layer2").attribute(net, x, 3)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max() > 0


class Spelled(nn.Module):
    def __init__(self, rectifier):
        super().__init__()
        self.conv, self.fc, self.rectifier = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 2), rectifier

    def forward(self, x):
        return self.fc(self.rectifier(self.conv(x)).mean((2, 3)))


def test_a_black_picture_has_the_same_map_however_the_rectifier_is_spelled():
    black = torch.zeros(1, 3, 8, 8)
    maps = [
        DeconvNet().attribute(seeded(lambda r=r: Spelled(r)).eval(), black, 1)
        for r in (torch.relu, lambda x: torch.maximum(x, torch.zeros(())), lambda x: x.clamp(0), nn.ReLU(True))
    ]
    assert maps[0].any()
    assert all(torch.equal(m, maps[0]) for m in maps)


def test_a_network_without_rectifiers_is_refused_and_other_activations_are_named():
    with pytest.raises(MethodError, match=r"None of the rules of guided-backprop acted.*integrated-gradients.*`silu`"):
        GuidedBackprop().attribute(Sound(), noise(1, 3, 16, 16), 1)
    net = Sound()
    net.body[1] = nn.ReLU()
    (found,) = GuidedBackprop().explain(net, noise(1, 3, 16, 16), [1])
    assert found.notes == [
        "There is no rule for `silu` (1x): what leads through is the plain gradient (strict=True refuses that)."
    ]
    with pytest.raises(MethodError, match="calls `silu`"):
        GuidedBackprop(strict=True).attribute(net, noise(1, 3, 16, 16), 1)


def test_one_forward_and_one_backward_a_target():
    net = Rectified()
    calls = [0]
    net.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    (found, _) = GuidedBackprop().explain(net, noise(2, 3, 16, 16), [1, 2])
    assert calls == [1]
    assert (found.cost.forwards, found.cost.backwards) == (2, 4)
