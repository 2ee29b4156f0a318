"""A method on a network that it is not for: one sentence that says why and names what works instead."""

import sys

import pytest

from helpers.cases import save, tree

NETS = """
import pellucid as pl
import torch
from torch import nn

def seen(net):
    return pl.wrap(net.eval(), transform=pl.Preprocess(input_size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3))

class Net(nn.Module):
    def __init__(self, bend):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.bend = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 3), bend

    def forward(self, x):
        return self.fc(self.bend(self.conv(x)).mean((2, 3)))

def plain():
    return seen(Net(torch.relu))

def own_function():
    return seen(Net(torch.special.erfcx))

def rounded():
    return seen(Net(lambda x: (8 * x).round() / 8))

class Cut(Net):
    def forward(self, x):
        return super().forward(x).detach()

def cut():
    return seen(Cut(torch.relu))

def rows():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(192), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

def placeless():
    return seen(rows())

def quantised():
    return seen(torch.ao.quantization.quantize_dynamic(rows(), {nn.Linear}, dtype=torch.qint8))
"""


@pytest.fixture
def explain(run, tmp_path, monkeypatch):
    """`pellucid explain` of a small picture with one of these networks."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unsuited", raising=False)
    (tmp_path / "unsuited.py").write_text(NETS)
    picture = save(tmp_path / "good.png")
    return lambda net, *options: run(
        "explain", picture, "--no-check", "--model", f"unsuited:{net}", "--out", tmp_path / "out", *options
    )


@pytest.mark.parametrize(
    ("net", "method", "why", "cure"),
    [
        ("plain", "attention-rollout", "no attention that can be read", "use grad-cam or occlusion"),
        ("plain", "generic-attention", "no attention that can be read", "use grad-cam or occlusion"),
        ("placeless", "grad-cam", "No layer of this model reads as a picture", "integrated-gradients"),
        ("cut", "saliency", "No gradient leads from the score back", "occlusion"),
        ("cut", "lrp", "No gradient leads from the score back", "occlusion"),
        ("quantised", "saliency", "passes no gradient on", "occlusion"),
        ("quantised", "lrp", "passes no gradient on", "a float copy of the model"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_one_sentence_says_why_and_what_works(explain, tmp_path, net, method, why, cure):
    ran = explain(net, "--method", method)
    assert ran.code == 1
    assert ran.err.startswith("pellucid: ")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    assert why in ran.err
    assert cure in ran.err
    assert not (tmp_path / "out").exists() or tree(tmp_path / "out") == {}


def test_a_function_without_a_rule_is_refused_on_request_and_else_said(explain):
    ran = explain("own_function", "--method", "lrp", "--set", "strict=true")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "`special_erfcx`, for which there is no rule: leave strict out" in ran.err
    ran = explain("own_function", "--method", "lrp")
    assert ran.code == 0
    assert "There is no rule for `special_erfcx` (1x)" in ran.out


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients"])
def test_a_score_without_a_slope_is_said(explain, method):
    ran = explain("rounded", "--method", method)
    assert ran.code == 0
    assert "The map is zero everywhere" in ran.out
    assert "occlusion" in ran.out
