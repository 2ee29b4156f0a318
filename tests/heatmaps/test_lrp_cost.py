"""How often rules run a layer with weights: counted, as the methods say it."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.nets import noise
from pellucid.heatmaps import METHODS, get_method
from pellucid.verbs.costs import passes

LAYERS = 4


class Runs(TorchDispatchMode):
    """Counts convolutions, forwards and backwards."""

    def __init__(self):
        super().__init__()
        self.counted = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counted[func.name().split("::")[1].split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def net(rectified, groups=1):
    """Convolutions whose units read 36 inputs or, depth-wise, 9, behind rectifiers or behind what has both signs."""
    torch.manual_seed(0)
    bend = nn.ReLU if rectified else nn.Tanh
    layers = [m for _ in range(LAYERS) for m in (nn.Conv2d(4, 4, 3, padding=1, groups=groups), bend())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 64, 3)).eval().requires_grad_(False)


def counted(name, settings, rectified, groups=1):
    x = noise(1, 4, 8, 8)
    with Runs() as runs:
        get_method(name, **settings).explain(net(rectified, groups), x.abs() if rectified else x, [0])
    return runs.counted["convolution"] / LAYERS, runs.counted["convolution_backward"] / LAYERS


@pytest.mark.parametrize(
    ("composite", "behind_rectifiers", "of_both_signs"),
    [
        ("epsilon", (1, 1), (1, 1)),
        ("epsilon-plus", (2, 1), (2, 2)),
        ("gamma", (2, 1), (2, 2)),
        ("alpha-beta", (2, 2), (2, 2)),
        ("w2", (2, 1), (2, 1)),
        ("flat", (2, 1), (2, 1)),
    ],
)
def test_lrp_runs_each_layer_as_often_as_it_says(composite, behind_rectifiers, of_both_signs):
    assert counted("lrp", {"composite": composite}, True) == behind_rectifiers
    assert counted("lrp", {"composite": composite}, False) == of_both_signs
    assert passes(METHODS["lrp"]) == (2, 2)  # what it says at the most


@pytest.mark.parametrize(("composite", "runs"), [("epsilon-plus", (3, 2)), ("alpha-beta", (5, 4)), ("gamma", (2, 2))])
def test_depth_wise_layers_of_both_signs_run_term_by_term(composite, runs):
    assert counted("lrp", {"composite": composite}, False, groups=4) == runs


@pytest.mark.parametrize("name", ["attn-lrp", "cp-lrp"])
def test_lrp_of_attention_runs_each_layer_once(name):
    assert counted(name, {}, False) == (1, 1) == passes(METHODS[name])


def test_excitation_takes_its_further_runs_where_inputs_have_both_signs():
    assert counted("excitation-backprop", {}, True) == (2, 1)
    assert counted("excitation-backprop", {}, False) == (3, 2) == passes(METHODS["excitation-backprop"])
