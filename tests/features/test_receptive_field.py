"""What a cell can see: against the closed form on plain convolutions, and against brute perturbation."""

import math

import pytest
import timm
import torch
from torch import nn

from helpers.nets import noise, random_net, seeded
from pellucid.features.receptive_field import receptive_field, whole_input
from pellucid.models.layers import Layer, describe
from pellucid.models.layouts import Layout


def layer_of(net, x, name):
    net.eval()
    with torch.no_grad():
        kept = {}
        handle = net.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.update(out=out))
        net(x)
        handle.remove()
    shape = kept["out"].shape
    return Layer(name, "", Layout("channels-first", tuple(shape[2:]), shape[1]), math.nan)


PLANS = {
    "one": [(3, 1, 1, 1)],
    "valid": [(5, 1, 0, 1), (3, 1, 0, 1)],
    "strided": [(3, 2, 1, 1), (3, 2, 1, 1), (3, 1, 1, 1)],
    "dilated": [(3, 1, 2, 2), (3, 2, 3, 3)],
    "even": [(4, 2, 1, 1), (2, 2, 0, 1)],
}


def plain_net(plan, dims=2):
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    parts, width = [], 3
    for kernel, stride, padding, dilation in plan:
        parts += [conv(width, 5, kernel, stride, padding, dilation), nn.Tanh()]
        width = 5
    return seeded(lambda: nn.Sequential(*parts))


def closed_form(plan):
    """(size, stride, start) of stacked convolutions (Araujo et al. 2019, Distill)."""
    size, stride, start = 1, 1, 0
    for kernel, step, padding, dilation in plan:
        size += (kernel - 1) * dilation * stride
        start -= padding * stride
        stride *= step
    return size, stride, start


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_plain_convolutions_agree_with_the_closed_form(plan):
    net = plain_net(plan)
    x = noise(2, 3, 48, 40)
    found = receptive_field(net, x, layer_of(net, x, str(2 * len(plan) - 1)))
    size, stride, start = closed_form(plan)
    assert found.size == (size, size)
    assert found.stride == (stride, stride)
    assert found.start == (start, start)
    assert not found.whole


def test_clips_have_a_field_on_every_axis():
    net = nn.Sequential(nn.Conv3d(3, 4, (1, 3, 5), (1, 2, 2), (0, 1, 2)), nn.Tanh())
    x = noise(1, 3, 6, 24, 32)
    found = receptive_field(net, x, layer_of(net, x, "1"))
    assert (found.size, found.stride, found.start) == ((1, 3, 5), (1, 2, 2), (0, -1, -2))
    assert found.box((4, 3, 2)) == ((4, 5), (5, 8), (2, 7))


def moved(net, x, name, cell):
    """Rows and columns of the input that move a cell, by changing one after the other."""

    def at(inputs):
        kept = {}
        handle = net.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.update(out=out))
        with torch.no_grad():
            net(inputs)
        handle.remove()
        return kept["out"][(slice(None), slice(None), *cell)]

    spans = []
    for axis in range(2, x.ndim):
        hits = []
        for i in range(x.shape[axis]):
            changed = x.clone()
            changed.narrow(axis, i, 1).add_(noise(*changed.narrow(axis, i, 1).shape, seed=i) * 5)
            if not torch.equal(at(changed), at(x)):
                hits.append(i)
        spans.append((min(hits), max(hits) + 1))
    return tuple(spans)


@pytest.mark.parametrize("cell", [(0, 0), (5, 6), (11, 11)])
def test_relu_and_max_pooling_agree_with_brute_perturbation(cell):
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.ReLU(),
        ).eval()
    )
    x = noise(4, 3, 48, 48)
    found = receptive_field(net, x, layer_of(net, x, "5"))
    assert found.box(cell) == moved(net, x, "5", cell)


def test_a_layer_that_sees_everything_says_so_and_crops_about_its_place():
    net = random_net("vit_tiny_patch16_224", img_size=64, depth=2)
    x = noise(1, 3, 64, 64)
    found = receptive_field(net, x, describe(net, x, "blocks.1"))
    assert found.whole
    assert found.box((0, 3)) == ((0, 64), (0, 64))
    for (start, stop), middle in zip(found.crop((0, 3)), (8, 56), strict=True):
        assert 0 <= start <= middle <= stop <= 64


def test_the_effective_field_is_smaller_and_holds_the_energy():
    """Of a triangle of weights, 95 % of the squared gradient lies in the middle."""
    net = nn.Sequential(nn.Conv2d(1, 1, 21, padding=10, bias=False))
    ramp = 11 - (torch.arange(21) - 10.0).abs()
    net[0].weight.data = (ramp[:, None] * ramp[None])[None, None].clone()
    x = noise(1, 1, 64, 64)
    found = receptive_field(net, x, layer_of(net, x, "0"))
    energy = ramp.square() / ramp.square().sum()
    within = next(r for r in range(11) if energy[10 - r : 11 + r].sum() >= 0.95)
    assert found.size == (21, 21)
    assert found.effective == (2 * within + 1, 2 * within + 1)
    assert found.crop((32, 32)) == ((32 - within, 33 + within),) * 2
    assert found.crop((0, 63)) == ((0, 2 * within + 1), (64 - 2 * within - 1, 64))  # moved inside, not cut
    assert found.crop((32, 32), least=40)[0] == (12.5, 52.5)


def test_no_gradient_to_the_input_means_the_whole_input():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x):
            with torch.no_grad():
                return self.conv(x)

    net = Cut()
    x = noise(1, 3, 8, 8)
    layer = layer_of(net, x, "conv")
    assert receptive_field(net, x, layer) == whole_input(layer, (8, 8))
    dead = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    dead[0].bias.data.fill_(-1e3)
    assert receptive_field(dead, x, layer_of(dead, x, "1")).whole


def test_timm_agrees(embedded_model):
    """The default model: strides of a MobileNet, and timm's own reductions."""
    x = noise(1, 3, 224, 224)
    net = timm.create_model("tf_efficientnet_lite0")
    reductions = {f["module"]: f["reduction"] for f in net.feature_info}
    for name in ("blocks.1", "blocks.2"):
        found = receptive_field(embedded_model.module, x, describe(embedded_model.module, x, name))
        assert found.stride == (reductions[name],) * 2
