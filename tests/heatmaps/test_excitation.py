"""Excitation backprop where signals have two signs: sums, means, normalisations; chances stay chances."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded, settled
from pellucid.heatmaps import ExcitationBackprop


class Layer(nn.Module):
    """`function` in front of a layer that adds up what it reads."""

    def __init__(self, function, inputs):
        super().__init__()
        self.function, self.fc = function, nn.Linear(inputs, 1, bias=False)
        nn.init.ones_(self.fc.weight)

    def forward(self, x):
        return self.fc(self.function(x.flatten(1)))


BY_HAND = {
    # units 8 and 10: of the first -1 and 4 are added, of the second 5 and 0; the constants win nothing
    "sum": (lambda v: v[:, :2] + v[:, 2:] + 5, 2, [-1.0, 5.0, 4.0, 0.0], [0, 10 / 18, 8 / 18, 0]),
    "difference": (lambda v: v[:, :1] - v[:, 1:] + 5, 1, [3.0, -1.0], [3 / 4, 1 / 4]),
    "nothing excites": (lambda v: v[:, :1] + v[:, 1:] + 9, 1, [-1.0, -3.0], [1 / 4, 3 / 4]),
    "mean": (lambda v: v.mean(1, keepdim=True), 1, [-1.0, 3.0, 1.0], [0, 3 / 4, 1 / 4]),
    "pooled": (lambda v: functional.avg_pool1d(v, 2), 2, [-1.0, 3.0, 4.0, 4.0], [0, 1 / 5, 2 / 5, 2 / 5]),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_shares_by_hand(case):
    function, inputs, x, expected = BY_HAND[case]
    found = ExcitationBackprop().attribute(Layer(function, inputs), torch.tensor([[x]]), 0)
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5)


class Mixed(nn.Module):
    """A dense block, a residual, means of a convolution's answer, attention and a class token of zeros."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.norm, self.last = nn.BatchNorm2d(8), nn.LayerNorm(6)
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.q, self.v, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.a(x)
        x = torch.cat([x, x + self.b(functional.relu(x))], 1)
        x = functional.avg_pool2d(self.c(functional.relu(self.norm(x))), 2).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        q = self.q(self.last(x))
        x = x + functional.scaled_dot_product_attention(q, q, self.v(x))
        return self.fc(x[:, 0])


def test_chances_are_chances_whatever_the_signs():
    net, x = settled(seeded(Mixed)), noise(2, 3, 8, 8)
    found = ExcitationBackprop().explain(net, x, [0, 3])
    for each in found:
        assert float(each.values.min()) >= 0
        assert max(each.facts["conservation_gap"]) < 1e-5
        lost = each.facts["absorbed"][0]
        assert 0 < lost < 1, "the class token takes a part"
        assert any("of the chances end outside of the picture" in note for note in each.notes)
    (contrast,) = ExcitationBackprop(contrastive=True).explain(net, x, [0])
    assert max(contrast.facts["conservation_gap"]) < 1e-5
    assert float(contrast.values.min()) < 0 < float(contrast.values.max())


class Behind(nn.Module):
    """A score that is no layer's own answer."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.fc(torch.relu(self.a(x)).mean((2, 3))).mul(2).log_softmax(1).exp()


def test_the_contrast_acts_at_the_last_layer_with_weights_whatever_stands_behind():
    net, x = seeded(Behind).eval(), noise(1, 3, 6, 6)
    found = ExcitationBackprop(contrastive=True).attribute(net, x, 1)
    assert float(found.min()) < 0 < float(found.max())
    assert abs(float(found.sum())) < 1e-4
