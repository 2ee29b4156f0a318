"""Path methods at a layer against captum's, and sums that are the change of the score."""

import pytest
import torch
from captum.attr import InternalInfluence as CaptumInfluence
from captum.attr import LayerConductance as CaptumConductance
from captum.attr import LayerIntegratedGradients as CaptumLayerIG
from torch import nn

from helpers.nets import noise, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method


def net():
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Conv2d(5, 4, 3), nn.Tanh(),
            nn.Flatten(), nn.Linear(16, 3),
        )
    ).eval()  # fmt: skip


X = noise(2, 3, 8, 8, seed=1)
NAMES = {
    "layer-integrated-gradients": CaptumLayerIG,
    "conductance": CaptumConductance,
    "internal-influence": CaptumInfluence,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_they_are_captums_on_a_fine_path(name, layer):
    model = net()
    theirs = NAMES[name](model, model.get_submodule(layer))
    steps = 200
    expected = theirs.attribute(X, baselines=torch.zeros_like(X), target=1, n_steps=steps).sum(1)
    found = get_method(name, layer=layer, steps=steps).attribute(model, X, 1)
    torch.testing.assert_close(found, expected.detach(), rtol=2e-2, atol=1e-2 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("name", ["layer-integrated-gradients", "conductance"])
def test_cells_sum_to_the_change_of_the_score(name):
    model, start = net(), noise(1, 3, 8, 8, seed=5)
    (found,) = get_method(name, layer="2", baseline=start, steps=100).explain(model, X, [2])
    with torch.no_grad():
        change = model(X)[:, 2] - model(start)[:, 2]
    torch.testing.assert_close(found.values.flatten(1).sum(1), change, rtol=5e-3, atol=1e-3)
    assert max(found.facts["completeness_gap"]) < 5e-3


def test_a_coarse_path_says_its_gap():
    (found,) = get_method("conductance", layer="0", steps=1).explain(net(), 4 * X, [0])
    (fine,) = get_method("conductance", layer="0", steps=100).explain(net(), 4 * X, [0])
    assert max(found.facts["completeness_gap"]) > 0.05
    assert "raise steps" in found.notes[-1]
    assert not any("raise steps" in note for note in fine.notes)


def test_a_linear_tail_by_hand():
    """Behind the layer all is linear: its gradient is constant, and the three differ by what they multiply."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(8, 1)).eval()
    x = noise(1, 1, 2, 2)
    with torch.no_grad():
        moved = model[:2](x) - model[:2](torch.zeros_like(x))
        weight = model[3].weight.reshape(1, 2, 2, 2)
    for name, expected in {
        "layer-integrated-gradients": (weight * moved).sum(1),
        "conductance": (weight * moved).sum(1),
        "internal-influence": weight.sum(1),
    }.items():
        found = get_method(name, layer="1", steps=3).attribute(model, x, 0)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_no_steps_are_refused(name):
    with pytest.raises(MethodError, match=f"{name} needs at least 1 step"):
        get_method(name, steps=0)
