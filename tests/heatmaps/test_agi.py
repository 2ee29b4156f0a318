"""Adversarial gradient integration: sums to what the score loses, by hand on a linear model."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method


def linear(classes=2):
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, classes))).eval()


X = noise(1, 3, 2, 2)


def test_a_linear_model_of_two_classes_by_hand():
    """Every step goes by the sign of the difference of the weights, until the answer turns."""
    net = linear()
    a, b = net[1].weight.detach()
    top = int(net(X).argmax())
    other = (b - a) if top == 0 else (a - b)
    reach = 0.01 * float(X.max() - X.min())
    here, count = X.clone(), 0
    while int(net(here).argmax()) == top:
        here, count = here + reach * other.sign().reshape(X.shape), count + 1
    (found,) = get_method("agi", step=0.01, steps=10_000).explain(net, X, [top])
    expected = -net[1].weight.detach()[top].reshape(X.shape) * (here - X)
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=1e-6)
    assert max(found.facts["completeness_gap"]) < 1e-3
    assert (found.cost.forwards, found.cost.backwards) == (1 + 1 + count, 2 * (1 + count))


def test_it_sums_to_the_mean_loss_of_the_score():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 2), nn.SiLU(), nn.Flatten(), nn.Linear(32, 6))).eval()
    x = noise(3, 3, 3, 3, seed=3)
    (found,) = get_method("agi", step=0.01, steps=40, classes=3).explain(net, x, [None])
    assert found.notes == []
    assert max(found.facts["completeness_gap"]) < 0.02
    again = get_method("agi", step=0.01, steps=40, classes=3).attribute(net, x, None)
    torch.testing.assert_close(again, found.values)


def test_models_of_one_class_are_refused():
    with pytest.raises(MethodError, match="model of several classes"):
        get_method("agi").attribute(linear(1), X, 0)
    with pytest.raises(MethodError, match="a step above 0"):
        get_method("agi", step=0.0)
