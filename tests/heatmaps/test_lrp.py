"""LRP, AttnLRP, CP-LRP, excitation backprop: captum, zennit, conservation on whole networks, closed forms."""

import copy

import pytest
import timm
import torch
import torchvision
from captum import attr as captum
from captum.testing.helpers.basic_models import SimpleLRPModel
from torch import nn
from torch.nn import functional

from helpers.nets import Biasless, noise, seeded, settled
from pellucid.errors import MethodError
from pellucid.heatmaps import CPLRP, LRP, AttnLRP, ExcitationBackprop, get_method
from pellucid.heatmaps.composites import COMPOSITES
from pellucid.testing import check_method
from pellucid.testing.networks import Sound


@pytest.mark.parametrize("name", ["lrp", "attn-lrp", "cp-lrp", "excitation-backprop"])
def test_the_contract(name):
    check_method(get_method(name))


def test_captums_exact_values():
    """`test_lrp_simple_attributions` and its gamma twin."""
    net, x = SimpleLRPModel(False).eval(), torch.tensor([[1.0, 2.0, 3.0]])[:, :, None]
    wrapped = nn.Sequential(nn.Flatten(), net)
    assert LRP(composite="epsilon", epsilon=1e-9).attribute(wrapped, x, 0).flatten().tolist() == [18, 36, 54]
    net.linear.weight.data[0][0] = -2
    found = LRP(composite="gamma", gamma=1.0, epsilon=1e-9).attribute(wrapped, x, 0).flatten()
    torch.testing.assert_close(found, torch.tensor([28 / 3, 104 / 3, 52.0]))


class Functional(Biasless):
    """What captum's hooks cannot see: functions, in place, a layer used twice, a gate, a skip; no bias."""

    def forward(self, x):
        x = torch.relu_(self.first(x))
        y = self.second(x)
        y += x
        x = functional.max_pool2d(functional.relu(y, inplace=True), 2)
        x = self.second(x).clamp_(min=0)
        return self.fc(x.mean((2, 3)))


def test_epsilon_is_gradient_times_input_without_biases():
    net, x = seeded(Functional).eval(), noise(2, 3, 12, 12)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(net(leaf)[:, 2].sum(), leaf)
    (found,) = LRP(composite="epsilon", epsilon=1e-9).explain(net, x, [2])
    torch.testing.assert_close(found.values, x * g, rtol=1e-3, atol=1e-5 * float((x * g).abs().max()))
    torch.testing.assert_close(found.values.flatten(1).sum(1), net(x)[:, 2], rtol=1e-4, atol=1e-5)
    assert found.facts["absorbed"][0] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("composite", [c for c in COMPOSITES if c not in ("w2", "flat")])
def test_every_composite_conserves_through_functions_in_place_calls_and_reused_layers(composite):
    net, x = seeded(Functional).eval(), noise(2, 3, 12, 12)
    (found,) = LRP(composite=composite).explain(net, x, [2])
    torch.testing.assert_close(found.values.flatten(1).sum(1), net(x)[:, 2], rtol=1e-3, atol=1e-5)
    assert max(found.facts["conservation_gap"]) < 1e-3
    assert found.notes == []


def lively(name, **options):
    return settled(seeded(lambda: timm.create_model(name, num_classes=7, **options)))


NETS = {
    "resnet18": (lambda: lively("resnet18"), 64),
    "convnext": (lambda: lively("test_convnext"), 64),
    "efficientnet": (lambda: lively("test_efficientnet"), 64),
    "ViT": (lambda: lively("test_vit"), 160),
    "torchvision ViT": (
        lambda: settled(seeded(lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=7))),
        32,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_relevance_is_conserved_on_whole_networks(name):
    build, side = NETS[name]
    net, x = build(), noise(1, 3, side, side)
    if name == "torchvision ViT":
        nn.init.normal_(net.heads[0].weight)
    score = net(x)[0, 3].item()
    for m in (LRP(), LRP(composite="epsilon"), CPLRP(), AttnLRP(), AttnLRP(gamma=0.1)):
        (found,) = m.explain(net, x, [3])
        absorbed = found.facts["absorbed"][0] * score
        assert float(found.values.double().sum()) + absorbed == pytest.approx(score, rel=1e-3), m
        assert max(found.facts["conservation_gap"]) < 1e-3
        assert found.notes == []


def folded(net):
    """The network with each batch normalisation in the convolution that is registered in front of it."""
    twin, last = copy.deepcopy(net), None
    for name, part in list(twin.named_modules()):
        if isinstance(part, nn.BatchNorm2d):
            twin.set_submodule(last, nn.utils.fusion.fuse_conv_bn_eval(twin.get_submodule(last), part))
            twin.set_submodule(name, nn.Identity())
        elif isinstance(part, nn.Conv2d):
            last = name
    return twin


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("arch", [pytest.param("vgg11_bn", marks=pytest.mark.slow), "resnet18"])
def test_composites_are_zennits(arch):
    composites, rules = pytest.importorskip("zennit.composites"), pytest.importorskip("zennit.rules")
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    net = settled(seeded(lambda: getattr(torchvision.models, arch)(num_classes=5))).double()
    twin = folded(net)  # zennit's own merging moves the scores by 1e-5
    x = noise(1, 3, 32, 32).double()
    canon = [VGGCanonizer() if arch.startswith("vgg") else ResNetCanonizer()]
    small = {"epsilon": 1e-9, "stabilizer": 1e-9, "canonizers": canon}
    low, high = (f(x, (2, 3), keepdim=True).expand_as(x) for f in (torch.amin, torch.amax))
    flat = [(nn.Conv2d, rules.Flat(zero_params="bias", stabilizer=1e-9))]
    theirs = {
        "epsilon-plus": composites.EpsilonPlus(**small),
        "epsilon-plus-flat": composites.EpsilonPlusFlat(first_map=flat, **small),
        "alpha-beta": composites.EpsilonAlpha2Beta1(**small),
        "epsilon-gamma-box": composites.EpsilonGammaBox(low=low, high=high, **small),
    }
    one = torch.eye(5, dtype=torch.float64)[[3]]
    for name, composite in theirs.items():
        with Gradient(copy.deepcopy(twin), composite) as attributor:
            _, expected = attributor(x.clone().requires_grad_(), lambda out: out * one)
        found = LRP(composite=name, epsilon=1e-9).attribute(net, x, 3)
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5, name


@pytest.mark.slow
def test_folding_a_batch_norm_changes_nothing():
    net = settled(seeded(lambda: torchvision.models.vgg11_bn(num_classes=5))).double()
    twin = folded(net)
    x = noise(1, 3, 32, 32).double()
    for m in (LRP(composite="epsilon", epsilon=1e-3), LRP(), LRP(composite="epsilon-gamma-box")):
        a, b = m.attribute(net, x, 1), m.attribute(twin, x, 1)
        assert float((a - b).abs().max() / b.abs().max()) < 1e-4


class Modules(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU()
        )
        self.fc = nn.Linear(64, 3, bias=False)

    def forward(self, x):
        return self.fc(self.body(x).flatten(1))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_agrees_on_modules_it_knows():
    net = seeded(Modules).eval()
    x = noise(2, 3, 14, 14)
    expected = captum.LRP(copy.deepcopy(net)).attribute(x.clone(), 1)
    found = LRP(composite="epsilon", epsilon=1e-9).attribute(net, x, 1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-2, atol=1e-4 * float(expected.abs().max()))


def test_excitation_by_hand_and_its_contrast():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 2.0, -1.0], [-1.0, 1.0, 1.0]]))
        net[3].weight.copy_(torch.tensor([[1.0, 3.0], [-2.0, 1.0]]))
        net[1].bias.zero_(), net[3].bias.zero_()
    x = torch.tensor([[[1.0, 2.0, 3.0]]])  # hidden: 2, 4
    first = torch.tensor([1 / 5, 4 / 5, 0.0])  # winners of the first hidden unit: x w+ = 1, 4, 0
    second = torch.tensor([0.0, 2 / 5, 3 / 5])
    on = torch.tensor([2 / 14, 12 / 14])  # of the first class: 2 * 1, 4 * 3
    found = ExcitationBackprop().attribute(net, x, 0)
    torch.testing.assert_close(found.flatten(), on[0] * first + on[1] * second)
    assert float(found.sum()) == pytest.approx(1)
    dual = first  # of the second class, -w+ is (2, 0): all to the first unit
    on = second  # and w+ is (0, 1)
    contrast = ExcitationBackprop(contrastive=True).attribute(net, x, 1)
    torch.testing.assert_close(contrast.flatten(), on - dual)


class Attends(nn.Module):
    """One attention whose parts are known."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.fc = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        x = x.mT
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.fc(functional.scaled_dot_product_attention(q, k, v)).mean(1)


def test_attention_by_hand():
    """CP-LRP: the weights are constants. AttnLRP: half goes to the values, half to the softmax."""
    net, x = seeded(Attends).eval(), noise(1, 4, 5)
    t = x.mT.clone().requires_grad_()
    weights = (net.q(t) @ net.k(t).mT / 2).softmax(-1)

    def gradient(a, v):
        return torch.autograd.grad(net.fc(a @ v).mean(1)[0, 1], t, retain_graph=True)[0]

    values = t * gradient(weights.detach(), net.v(t))
    through = t * gradient(weights, net.v(t).detach())
    found = CPLRP(epsilon=1e-12).attribute(net, x, 1)
    torch.testing.assert_close(found, values.mT.detach(), rtol=1e-3, atol=1e-5)
    found = AttnLRP(epsilon=1e-12).attribute(net, x, 1)
    # Half of the product each; queries and keys then share the softmax's half, q k' being a product too.
    expected = values / 2 + through / 4
    torch.testing.assert_close(found, expected.mT.detach(), rtol=1e-3, atol=1e-5)


def test_wrong_settings_and_unknown_functions():
    with pytest.raises(MethodError, match=r"There is no composite 'epsilon-plos'.*did you mean"):
        LRP(composite="epsilon-plos")
    with pytest.raises(MethodError, match="small positive number"):
        LRP(epsilon=0)

    class Odd(Sound):
        def forward(self, x):
            return self.fc(torch.special.erfcx(self.body(x)).flatten(2).mean(2))

    x = noise(1, 3, 16, 16)
    (found,) = LRP().explain(Odd(), x, [1])
    assert "no rule for `special_erfcx` (1x)" in found.notes[0] or "not on the way" in found.notes[0]
    with pytest.raises(MethodError, match="calls `special_erfcx`"):
        LRP(strict=True).attribute(Odd(), x, 1)


def test_how_many_passes_it_takes():
    net = seeded(Functional).eval()
    calls = [0]
    net.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    LRP().explain(net, noise(2, 3, 12, 12), [0, 1, 2])
    assert calls == [1]


class LinearAttention(nn.Module):
    """Keys by a softmax over tokens, branches by a softmax over branches: weights, along other axes than the last."""

    def __init__(self):
        super().__init__()
        self.qkv, self.branch, self.fc = nn.Conv2d(3, 24, 4, 4), nn.Linear(8, 16), nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, 2)
        y = q @ (k.softmax(dim=1).transpose(1, 2) @ v)
        two = torch.stack([y, v.relu()], 1)
        weights = self.branch(two.sum(1).mean(1)).reshape(-1, 2, 8).softmax(dim=1)
        return self.fc((two * weights[:, :, None]).sum(1).mean(1)).log_softmax(1)


@pytest.mark.parametrize("name", ["lrp", "attn-lrp", "cp-lrp", "libra-gradients", "full-grad", "deep-lift"])
def test_weights_by_a_softmax_over_any_axis_are_accounted_for(name):
    (found,) = get_method(name).explain(seeded(LinearAttention).eval(), noise(2, 3, 16, 16), [1])
    gaps = found.facts["conservation_gap" if name.endswith("lrp") else "completeness_gap"]
    assert max(gaps) < 1e-4
    assert found.notes == []


@pytest.mark.parametrize(("size", "said"), [(0.0, False), (8.0, False), (500.0, True)])
def test_biases_that_take_many_times_the_score_are_said(size, said):
    """A score of 1 out of `(1 + size) mean - size` of ones."""
    layer, x = nn.Linear(36, 1), torch.ones(1, 4, 3, 3)
    with torch.no_grad():
        layer.weight.fill_((1 + size) / 36)
        layer.bias.fill_(-size)
    (found,) = LRP(composite="epsilon", epsilon=1e-9).explain(nn.Sequential(nn.Flatten(), layer), x, [0])
    assert found.facts["conservation_gap"][0] < 1e-4  # nothing is lost
    assert found.facts["absorbed"][0] == pytest.approx(-size, rel=1e-3)
    assert float(found.values.sum()) == pytest.approx(1 + size, rel=1e-3)
    assert [n for n in found.notes if "500 times the score" in n] == (found.notes if said else [])
    assert bool(found.notes) == said
