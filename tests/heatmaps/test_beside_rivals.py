"""LRP and DeepLIFT beside packages that have them too: what captum's sums come to, equality with autolrp."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from helpers.nets import Biasless, noise, seeded, settled
from pellucid.heatmaps import LRP, DeepLIFT


def resnet():
    return settled(seeded(lambda: torchvision.models.resnet18(num_classes=7)))


class Functional(Biasless):
    """Rectifiers as functions, one of them in place, and a sum in place; no bias, so that nothing is absorbed."""

    def forward(self, x):
        x = functional.relu_(self.first(x))
        y = self.second(x)
        y += x
        return self.fc(functional.max_pool2d(functional.relu(y), 2).mean((2, 3)))


NETWORKS = {"resnet18": (resnet, 48), "functions": (lambda: seeded(Functional).eval(), 12)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_conserved_where_captums_is_not(name):
    captum = pytest.importorskip("captum.attr")
    build, side = NETWORKS[name]
    net, x = build(), noise(1, 3, side, side)
    score = net(x)[0, 3].item()
    (found,) = LRP(composite="epsilon").explain(net, x, [3])
    absorbed = found.facts["absorbed"][0] * score  # by biases, as captum's epsilon rule lets them
    assert float(found.values.double().sum()) + absorbed == pytest.approx(score, rel=1e-3)
    assert found.facts["conservation_gap"][0] < 1e-3
    theirs = captum.LRP(copy.deepcopy(net)).attribute(x.clone(), 3)
    assert abs(float(theirs.double().sum()) + absorbed - score) > 0.1 * abs(score)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_deep_lift_is_complete_where_captums_refuses_or_is_not(name):
    captum = pytest.importorskip("captum.attr")
    build, side = NETWORKS[name]
    net, x, start = build(), noise(1, 3, side, side), noise(1, 3, side, side, seed=1)
    change = (net(x) - net(start))[0, 3].item()
    (found,) = DeepLIFT(baseline=start).explain(net, x, [3])
    assert float(found.values.double().sum()) == pytest.approx(change, rel=1e-3)
    rival = captum.DeepLift(copy.deepcopy(net))
    if name == "resnet18":  # each block's rectifier is used twice
        with pytest.raises(RuntimeError, match="used more than once"):
            rival.attribute(x.clone(), start, target=3)
    else:
        theirs = float(rival.attribute(x.clone(), start, target=3).sum())
        assert abs(theirs - change) > 0.1 * abs(change)


class Plain(nn.Module):
    """Rectified convolutions; autolrp gives a bias a share by its size, ours by its value, so there is none."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.fc = nn.Linear(8 * 25, 4, bias=False)

    def forward(self, x):
        x = functional.relu(self.second(functional.relu(self.first(x))))
        return self.fc(functional.max_pool2d(x, 2).flatten(1))


_GAMMA = ("gamma", {"gamma": 0.25})
RULES = {  # of convolutions, and of linear layers
    "epsilon": ("epsilon", "epsilon"),
    "epsilon-plus": ("zplus", "epsilon"),
    "gamma": (_GAMMA, _GAMMA),
    "alpha-beta": (("alpha_beta", {"alpha": 2.0, "beta": 1.0}), "epsilon"),
}


@pytest.mark.parametrize("composite", RULES)
def test_composites_are_autolrps(composite):
    autolrp = pytest.importorskip("autolrp")
    net, x = seeded(Plain).double(), noise(1, 3, 12, 12).double()
    of_convolutions, of_linear = RULES[composite]
    dense = dict.fromkeys(("AddmmBackward", "MmBackward"), of_linear)
    rules = {**autolrp.BASE, "ConvolutionBackward": of_convolutions, **dense}
    wrapped = autolrp.tensor(x.clone())
    scores = net(wrapped)
    scores[0, 1].lrp(config=autolrp.LRPConfig(rule=rules, eps=1e-11))
    expected = wrapped.relevance.detach().as_subclass(torch.Tensor) * net(x)[0, 1].item()  # of a score of 1
    found = LRP(composite=composite, epsilon=1e-11).attribute(net, x, 1)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_gamma_is_zennits_with_biases_and_inputs_of_both_signs():
    composites, rules = pytest.importorskip("zennit.composites"), pytest.importorskip("zennit.rules")
    from zennit.attribution import Gradient

    def build():
        body = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        return nn.Sequential(*body, nn.Flatten(), nn.Linear(512, 4))

    net, x = seeded(build).double().eval(), noise(1, 3, 12, 12).double()
    composite = composites.LayerMapComposite([((nn.Conv2d, nn.Linear), rules.Gamma(0.25, stabilizer=1e-11))])
    with Gradient(copy.deepcopy(net), composite) as attributor:
        _, expected = attributor(x.clone().requires_grad_(), lambda y: y * torch.eye(4, dtype=y.dtype)[[1]])
    found = LRP(composite="gamma", gamma=0.25, epsilon=1e-11).attribute(net, x, 1)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
