"""Zeros that a network pads on in a call of its own are worth what those are that a convolution pads by itself."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded
from pellucid.heatmaps import LRP


class Net(nn.Module):
    def __init__(self, pad):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.pad = pad

    def forward(self, x):
        for layer in (self.a, self.b):
            if self.pad == "own":
                x = functional.conv2d(x, layer.weight, layer.bias, padding=1)
            elif self.pad == "aten":
                x = layer(torch.ops.aten.constant_pad_nd(x, [1, 1, 1, 1]))
            elif self.pad == "cat":
                zeros = x.new_zeros(*x.shape[:3], 1)
                x = functional.conv2d(torch.cat([zeros, x, zeros], 3), layer.weight, layer.bias, padding=(1, 0))
            else:
                x = layer(functional.pad(x, (1, 1, 1, 1), mode=self.pad))
            x = functional.relu(x)
        return self.fc(x.mean((2, 3)))


COMPOSITES = ["epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "alpha-beta", "w2", "flat"]


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("pad", ["constant", "aten", "cat", "reflect"])
def test_relevance_of_padded_cells(pad, composite):
    net, x, method = seeded(lambda: Net(pad)).eval(), noise(1, 3, 6, 6), LRP(composite=composite)
    (found,) = method.explain(net, x, [1])
    assert max(found.facts["conservation_gap"]) < 1e-5
    if pad in ("constant", "aten"):
        expected = method.attribute(seeded(lambda: Net("own")).eval(), x, 1)
        torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
