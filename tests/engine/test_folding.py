"""The quicker twin of a network, against the network itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers.nets import noise, settled
from pellucid.engine import Capture, folding
from pellucid.heatmaps import get_method


class Residual(nn.Module):
    """Three convolutions: one feeds its normalisation alone, one a skip as well, one has none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.nb = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8, affine=False)
        self.c, self.nc = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.na(self.a(x)).relu()
        skip = self.b(x)
        x = self.nc(self.c(self.nb(skip).relu())) + skip
        return self.head(x.mean((2, 3)))


def plainly(module, x):
    return module(x)


def test_only_convolutions_that_feed_nothing_else_are_folded():
    net, x = settled(Residual()), noise(1, 3, 16, 16)
    assert folding._pairs(net, plainly, x) == ([net.a, net.b, net.c], {net.a: net.na, net.c: net.nc})
    twin = folding.folded(net, plainly, x)
    others = noise(7, 3, 16, 16, seed=3)
    with torch.no_grad():
        assert torch.allclose(twin(others), net(others), atol=1e-5)
        assert not torch.equal(twin(others), net(others))  # it is not the network itself
    assert isinstance(twin.na, nn.Identity)
    assert twin.nb is net.nb
    assert twin.head is net.head
    assert isinstance(net.na, nn.BatchNorm2d)
    assert net.a.bias is None


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "tf_efficientnet_lite0", "densenet121"]
)
def test_known_networks_answer_the_same(name):
    import timm
    import torchvision

    torch.manual_seed(0)
    made = getattr(torchvision.models, name)() if hasattr(torchvision.models, name) else timm.create_model(name)
    net = settled(made)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = noise(1, 3, 64, 64)
    twin = folding.folded(net, plainly, x)
    if name == "densenet121":  # normalisation stands in front of its convolutions
        assert twin is None
    else:
        others = noise(3, 3, 64, 64, seed=1)
        with torch.no_grad():
            answer = net(others)
            assert (twin(others) - answer).abs().max() <= 1e-4 * answer.abs().max()
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


class Viewed(nn.Module):
    """Its view does not allow channels-last activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 14 * 14, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).view(len(x), -1))


class Fickle(Residual):
    """Multiplies by a number that its own convolution's weight decides: no pass shows that, the check does."""

    def forward(self, x):
        return super().forward(x) * self.a.weight.abs().sum()


@pytest.mark.parametrize("net", [Viewed(), Fickle()])
def test_a_twin_that_fails_or_answers_otherwise_is_not_used(net):
    assert folding.folded(settled(net), plainly, noise(1, 3, 16, 16)) is None


def test_weights_that_are_computed_are_left_alone():
    net = Residual()
    net.b = nn.utils.parametrizations.weight_norm(net.b)
    net, others = settled(net), noise(4, 3, 16, 16, seed=2)
    twin = folding.folded(net, plainly, noise(1, 3, 16, 16))
    assert twin is not None
    assert twin.b is net.b
    with torch.no_grad():
        assert torch.allclose(twin(others), net(others), atol=1e-5)


def pooling(*between):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), *between, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def test_a_network_that_pools_and_normalises_nothing_is_laid_out_anew():
    net, others = pooling(), noise(5, 3, 16, 16, seed=4)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with Capture(net) as capture, torch.no_grad():
        assert capture.quicken(noise(1, 3, 16, 16), 1000) == folding.PASSES
        twin = capture.network
        assert twin is not net
        assert all(twin[k].weight.is_contiguous(memory_format=torch.channels_last) for k in (0, 3))
        torch.testing.assert_close(capture.forward(others), net(others), rtol=1e-5, atol=1e-6)
    assert twin[-1] is net[-1]
    assert all(torch.equal(before[k], v) and v.is_contiguous() for k, v in net.state_dict().items())


def test_where_little_would_be_won_nothing_is_laid_out_anew():
    x = noise(1, 3, 16, 16)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 5)).eval()
    assert not folding.may_have_twin(plain, x)
    in_front = settled(pooling(nn.ReLU(), nn.BatchNorm2d(8)))  # the normalisation has no convolution in front of it
    assert folding.may_have_twin(in_front, x)
    assert folding.folded(in_front, plainly, x) is None
    assert not folding.may_have_twin(pooling(), x.double())


@pytest.mark.parametrize("layer", ["a", "na", "nc", "b", "nb", "head"])
def test_layers_that_are_read_give_what_they_gave(layer):
    net, x = settled(Residual()), noise(6, 3, 16, 16)
    with Capture(net, watch=[layer]) as capture:
        expected, read = capture.forward(x), capture.watched[layer].clone()
        assert capture.quicken(x[:1], 1000) == folding.PASSES
        assert (capture._twin is None) == (layer in ("a", "na", "nc"))  # a layer that is read is not folded
        assert torch.allclose(capture.forward(x), expected, atol=1e-5)
        assert torch.allclose(capture.watched[layer], read, atol=1e-5)
    with Capture(net, [layer], stop_early=True) as capture:
        capture.quicken(x[:1], 1000)
        capture.forward(x)
        assert torch.allclose(capture.activations[layer], read, atol=1e-5)
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize("method", ["rise", "lime", "occlusion"])
def test_maps_are_those_of_the_network_itself(method, monkeypatch):
    net, x = settled(Residual()), noise(2, 3, 32, 32)
    made = get_method(method, **({"window": 4, "stride": 4} if method == "occlusion" else {"samples": 128}))
    asked = []
    fold = Capture.fold
    monkeypatch.setattr(Capture, "fold", lambda self, x, n, **how: asked.append(fold(self, x, n, **how)) or asked[-1])
    quick = made.explain(net, x, [1, 2])[0]
    assert sum(asked) >= folding.PASSES
    monkeypatch.setattr(Capture, "fold", lambda *_given, **_how: 0)
    slow = made.explain(net, x, [1, 2])[0]
    assert torch.allclose(quick.values, slow.values, rtol=1e-4, atol=1e-6)  # of scores of about 1
    assert quick.cost.forwards == slow.cost.forwards + sum(asked)


def test_few_passes_and_other_models_are_run_as_they_are():
    net, x = settled(Residual()), noise(1, 3, 16, 16)
    for module, inputs, passes in ((net, x, 10), (net.double(), x.double(), 1000), (nn.Flatten(), x, 1000)):
        with Capture(module) as capture:
            assert capture.quicken(inputs, passes) == 0
