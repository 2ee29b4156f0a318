"""A quantised layer that passes no gradient on is refused where a graph is recorded, and nowhere else."""

import pytest
import torch
from torch import nn

from helpers.nets import noise
from pellucid.errors import ModelError
from pellucid.heatmaps import Occlusion, Saliency


class Packed(nn.Parameter):
    """Weights of a kind of their own."""


class Integers(nn.Linear):
    """Computes on numbers that autograd does not follow; its answer's graph leads to its weights alone."""

    def __init__(self, cut):
        super().__init__(6, 6)
        self.weight, self.cut = Packed(self.weight.detach()), cut

    def forward(self, x):
        return nn.functional.linear(x.detach() if self.cut else x, self.weight, self.bias)


class Residual(nn.Module):
    """Goes round the layer as well as through it."""

    def __init__(self, cut):
        super().__init__()
        self.conv, self.inner, self.head = nn.Conv2d(3, 6, 3), Integers(cut), nn.Linear(6, 4)

    def forward(self, x):
        y = self.conv(x).relu().movedim(1, -1)
        return self.head((y + self.inner(y)).mean((1, 2)))


def test_a_gradient_that_goes_round_a_layer_is_refused_and_outputs_are_not():
    x = noise(1, 3, 12, 12)
    with pytest.raises(ModelError, match=r"quantised layer 'inner' passes no gradient on.*occlusion"):
        Saliency().attribute(Residual(True).eval(), x, 1)
    assert Occlusion(window=4).attribute(Residual(True).eval(), x, 1).any()


def test_a_quantised_layer_with_a_way_back_is_explained():
    net, x = Residual(False).eval(), noise(1, 3, 12, 12).requires_grad_()
    (expected,) = torch.autograd.grad(net(x)[0, 1], x)
    assert expected.any()
    torch.testing.assert_close(Saliency(absolute=False).attribute(net, x, 1), expected)
