"""Gradients through normalisations of one sample: torch's own are wrong for some strides, those used here are not."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded, settled
from pellucid.engine import Capture
from pellucid.engine.strides import plain
from pellucid.heatmaps import Saliency, get_method


class Stem(nn.Module):
    """A convolution and a normalisation whose answer is read as tokens: their gradient comes back channels fastest."""

    def __init__(self, norm):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 2, 2), norm)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(tokens).relu().mean(1))


class Function(nn.Module):
    """A normalisation that is no layer: the function itself, its statistics plain attributes."""

    def __init__(self, channels, batch):
        super().__init__()
        self.batch = batch
        self.register_buffer("mean", torch.linspace(-0.5, 0.5, channels))
        self.weight = nn.Parameter(torch.linspace(0.5, 2, channels))

    def forward(self, x):
        if self.batch:
            return nn.functional.batch_norm(x, self.mean, self.mean.square() + 1, self.weight)
        return nn.functional.instance_norm(x, weight=self.weight)


def stem(norm):
    return settled(seeded(lambda: Stem(norm(6))))


NORMS = {
    "batch": nn.BatchNorm2d,
    "instance": lambda c: nn.InstanceNorm2d(c, affine=True),
    "batch function": lambda c: Function(c, True),
    "instance function": lambda c: Function(c, False),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_one_sample_has_the_gradient_that_it_has_in_a_batch(norm):
    """In a batch of two the strides say all, so torch's own gradient is right there."""
    net, x = stem(norm), noise(2, 3, 8, 8)
    both = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(both)[:, 1].sum(), both)
    found = Saliency(absolute=False)
    torch.testing.assert_close(found.attribute(net, x[:1], 1), expected[:1])
    torch.testing.assert_close(found.attribute(net, x, 1), expected)
    with Capture(net, ["stem.0"]) as capture:
        output = capture.forward(x[:1])
        (one,) = capture.gradients([output[:, 1]])
    weight = net.stem[0].weight
    back = nn.functional.conv_transpose2d(one["stem.0"], weight, stride=2)
    torch.testing.assert_close(back, expected[:1])
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("method", ["deep-lift", "full-grad"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_methods_of_rules_account_for_all_of_the_score_there(norm, method):
    (found,) = get_method(method).explain(stem(norm), noise(1, 3, 8, 8), [0])
    assert max(found.facts["completeness_gap"]) < 1e-4


def test_only_a_gradient_of_open_order_is_copied():
    usual = noise(1, 6, 4, 4)
    last = usual.to(memory_format=torch.channels_last)
    tokens = usual.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).reshape(1, 6, 4, 4)
    assert plain(usual) is usual
    assert plain(last) is last
    assert tokens.stride(0) == 6
    assert plain(tokens).is_contiguous()
    assert torch.equal(plain(tokens), usual)
