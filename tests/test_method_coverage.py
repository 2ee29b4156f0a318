"""The table of methods and networks: what it says of small networks whose answer is known."""

import pytest
import torch
from torch import nn

pytest.importorskip("torch")

from benchmarks.method_coverage import METHODS, NETWORKS, judged, network, said, score

from pellucid.heatmaps import METHODS as REGISTERED

PROVEN = {"lrp", "attn-lrp", "cp-lrp", "deep-lift", "full-grad", "libra-gradients"}
SMALL = ["plain CNN, functional and in place", "ViT (torchvision, fused attention)"]


def test_every_method_of_the_table_is_one_there_is():
    assert set(METHODS) <= set(REGISTERED)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.special.erfcx(self.body(x)).mean((2, 3)))


def test_a_function_without_a_rule_is_named_and_a_refusal_says_why():
    torch.manual_seed(0)
    net, x = Odd().eval(), torch.randn(1, 3, 32, 32)
    found = [judged(m, net, x) for m in ("lrp", "saliency", "legrad", "grad-cam")]
    assert [v.state for v in found] == ["plain", "equal", "refused", "runs"]
    assert found[0].why == "`special_erfcx` (1x)"
    assert "refused: legrad (The model runs no attention that can be read)" in said(found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_on_every_network_the_accounts_close(name):
    pytest.importorskip("transformers" if "transformers" in name else "timm" if "timm" in name else "torchvision")
    net, x = network(name)
    assert score(net(x)).shape == (1,)
    for method in sorted(PROVEN):
        verdict = judged(method, net, x)
        assert verdict.state == "proven", f"{method}: {verdict.state} {verdict.why}"
