"""DeepLIFT: captum where it is exact, completeness where it is not, closed forms of each rule."""

import copy

import pytest
import timm
import torch
from captum.attr import DeepLift as Captum
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded, settled
from pellucid.errors import MethodError
from pellucid.heatmaps import DeepLIFT, DeepLIFTSHAP, get_method
from pellucid.testing import check_method


@pytest.mark.parametrize("name", ["deep-lift", "deep-lift-shap"])
def test_the_contract(name):
    check_method(get_method(name))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pooled", [False, True])
def test_captum_agrees_where_it_is_exact(pooled):
    """Logits, batch 1, every `nn.ReLU` used once; windows that do not overlap, and no rectifier next to them."""
    body = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]
    head = [nn.Linear(400, 8), nn.ReLU(), nn.Linear(8, 3)]
    if pooled:
        body, head = [nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)], [nn.Linear(144, 3)]
    net = seeded(lambda: nn.Sequential(*body, nn.Flatten(), *head)).eval()
    x, reference = noise(1, 3, 14, 14), noise(1, 3, 14, 14, seed=1)
    expected = Captum(copy.deepcopy(net)).attribute(x.clone(), reference, target=1)
    found = DeepLIFT(baseline=reference).attribute(net, x, 1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


BENDS = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "relu6": lambda h: functional.relu6(3 * h),
    "hardswish": functional.hardswish,
    "sigmoid": torch.sigmoid,
    "exp of a square": lambda h: (-h.square()).exp(),
    "softmax": lambda h: h.softmax(-1),
    "softmax far apart": lambda h: (30 * h).softmax(-1),
    "layer norm": lambda h: functional.layer_norm(h, (8,)),
    "group norm": lambda h: functional.group_norm(h, 3),
    "rms norm": lambda h: functional.rms_norm(h, (8,)),
    "normalize": lambda h: functional.normalize(h, dim=-1),
    "product": lambda h: h * h.flip(-1),
    "gate": lambda h: h * h.mean(1, keepdim=True).sigmoid(),
    "glu": lambda h: functional.glu(torch.cat([h, h.flip(1)], -1)),
    "quotient": lambda h: h / (1 + h.exp()),
    "attention": lambda h: functional.scaled_dot_product_attention(h, h, h),
    "einsum": lambda h: torch.einsum("nij,nkj->nik", h, h) @ h,
    "overlapping maxima": lambda h: functional.max_pool1d(h, 3, 1, 1),
    "overlapping maxima in two dimensions": lambda h: functional.max_pool2d(h[:, None], 3, 1, 1)[:, 0],
    "the larger of two": lambda h: torch.maximum(h, h.flip(-1)),
    "the larger of two, in another shape": lambda h: torch.max(h, other=h.mean(1, keepdim=True)),
    "the lesser of two": lambda h: torch.fmin(h, h.flip(1)),
    "the largest of a stack": lambda h: torch.stack([h, h.flip(1), 0 * h]).max(0).values,
    "a rectifier by a stack": lambda h: torch.stack([torch.zeros_like(h), h]).max(dim=0)[0],
    "the least along an axis": lambda h: h.min(1, keepdim=True)[0].expand(-1, 6, -1),
    "the largest of all": lambda h: h * torch.stack([row.max() for row in h])[:, None, None],
    "the largest": lambda h: functional.adaptive_max_pool1d(h, 1).expand(-1, -1, 8),
}


class Bends(nn.Module):
    def __init__(self, bend):
        super().__init__()
        self.bend, self.first, self.last = bend, nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.bend(self.first(x))).mean(1)


@pytest.mark.parametrize("name", BENDS)
def test_it_is_complete_through_every_function(name):
    net, x, reference = seeded(lambda: Bends(BENDS[name])).eval(), noise(2, 6, 6), noise(2, 6, 6, seed=1)
    (found,) = DeepLIFT(baseline=reference).explain(net, x, [1])
    change = net(x)[:, 1] - net(reference)[:, 1]
    torch.testing.assert_close(found.values.flatten(1).sum(1), change, rtol=1e-3, atol=1e-5)
    assert found.notes == []


@pytest.mark.parametrize("rule", ["rescale", "reveal-cancel"])
def test_a_rectifier_by_a_stack_and_a_maximum_is_one_by_its_name(rule):
    spelled = {"by name": functional.relu, "by a maximum": lambda h: torch.max(h, torch.zeros(()))}
    if rule == "rescale":
        spelled["by a stack"] = lambda h: torch.stack([torch.zeros_like(h), h]).max(dim=0)[0]
    x, reference = noise(2, 6, 6), noise(2, 6, 6, seed=1)
    found = [
        DeepLIFT(baseline=reference, rule=rule).attribute(seeded(lambda b=b: Bends(b)).eval(), x, 1)
        for b in spelled.values()
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-3, atol=1e-6)


def test_secants_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False), nn.ReLU()).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 2.0]]))
    x, reference = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[-1.0, -1.0]]])
    # The pre-activation goes from -3 to 3, the answer from 0 to 3: the secant is one half.
    assert DeepLIFT(baseline=reference).attribute(net, x, 0).flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "test_efficientnet", "test_vit"])
def test_it_is_complete_on_whole_networks(name):
    net = settled(seeded(lambda: timm.create_model(name, num_classes=7)))
    side = 160 if name == "test_vit" else 64
    x = noise(1, 3, side, side)
    (found,) = DeepLIFT(baseline="blur").explain(net, x, [3])
    assert found.facts["completeness_gap"][0] < 1e-3
    assert found.notes == []


def test_shap_is_the_mean_over_references():
    net, x, references = seeded(lambda: Bends(torch.tanh)).eval(), noise(2, 6, 6), noise(3, 6, 6, seed=1)
    expected = sum(DeepLIFT(baseline=r[None].expand_as(x)).attribute(net, x, 1) for r in references) / 3
    (found,) = DeepLIFTSHAP(baseline=references).explain(net, x, [1])
    torch.testing.assert_close(found.values, expected)
    assert max(found.facts["completeness_gap"]) < 1e-3
    assert (found.cost.forwards, found.cost.backwards) == (2 * (1 + 2 * 3), 2 * 3)


class Branches(nn.Module):
    def forward(self, x):
        return torch.tanh(x).flatten(1)[:, :2] if x.mean() > 0 else torch.sigmoid(x).flatten(1)[:, :2]


def test_a_network_that_takes_another_branch_for_the_reference_is_refused():
    with pytest.raises(MethodError, match="computes otherwise for the reference"):
        DeepLIFT(baseline=-torch.ones(1, 1, 4)).attribute(Branches(), torch.ones(1, 1, 4), 0)


def test_references_of_another_size_are_refused():
    with pytest.raises(MethodError, match="References are"):
        DeepLIFTSHAP(baseline=noise(3, 5, 5)).attribute(seeded(lambda: Bends(torch.tanh)), noise(1, 6, 6), 1)


class Least(nn.Module):
    """`min(a, b) = a - relu(a - b)` of two numbers: the paper's example of what rescale misses."""

    def __init__(self):
        super().__init__()
        self.away = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.away.weight.copy_(torch.tensor([[1.0, -1.0]]))

    def forward(self, x):
        x = x.flatten(1)
        return x[:, :1] - torch.relu(self.away(x))


@pytest.mark.parametrize(("a", "b"), [(6.0, 4.0), (2.0, 5.0), (3.0, 3.0)])
def test_reveal_cancel_gives_both_half_of_their_minimum(a, b):
    x = torch.tensor([a, b]).reshape(1, 1, 1, 2)
    found = get_method("deep-lift", rule="reveal-cancel").attribute(Least().eval(), x, 0)
    torch.testing.assert_close(found.flatten(), torch.full((2,), min(a, b) / 2))
    if a > b:
        rescaled = get_method("deep-lift").attribute(Least().eval(), x, 0)
        torch.testing.assert_close(rescaled.flatten(), torch.tensor([a - a, b]))


def test_reveal_cancel_sums_to_the_change_through_normalisations_and_without_a_layer_in_front():
    def build():
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.SiLU(),
            nn.ConvTranspose2d(6, 4, 2, 2), nn.Hardtanh(), nn.Flatten(), nn.Linear(256, 3), nn.Sigmoid(),
        )  # fmt: skip

    net = settled(seeded(build))
    (found,) = get_method("deep-lift", rule="reveal-cancel", baseline="mean").explain(net, noise(2, 3, 8, 8), [1])
    assert max(found.facts["completeness_gap"]) < 1e-4
    plain = get_method("deep-lift", baseline="mean").attribute(net, noise(2, 3, 8, 8), 1)
    assert not torch.allclose(found.values, plain, atol=1e-4)


def test_where_all_speaks_for_a_unit_the_two_rules_agree():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))).eval()
    for weight in net.parameters():
        weight.data.abs_()
    x = noise(1, 3, 8, 8).abs()
    one, other = (get_method("deep-lift", rule=rule).attribute(net, x, 0) for rule in ("rescale", "reveal-cancel"))
    torch.testing.assert_close(one, other)


def test_a_reference_from_which_differences_grow_beyond_all_numbers_is_refused_with_others():
    class Steep(nn.Module):
        def forward(self, x):
            for _ in range(40):  # at black each of these is 300 times as steep as at the input
                x = functional.layer_norm(x, x.shape[-1:])
            return x.flatten(1)[:, :3]

    net, x = Steep(), noise(1, 3, 4, 8)
    with pytest.raises(MethodError, match="baseline=uniform"):
        DeepLIFT().explain(net, x, [1])
    assert DeepLIFT(baseline="uniform").attribute(net, x, 1).isfinite().all()


def test_shares_that_cancel_are_said_beside_the_gap():
    """A change that is what is left of shares millions of times as large, which single precision cannot tell."""
    x, layer = noise(1, 3, 20, 20), nn.Linear(1200, 1, bias=False)
    flat = x.flatten(1).double()
    away = noise(1, 1200, seed=1).double()
    away = away - flat * (away * flat).sum() / flat.square().sum()  # at a right angle to the input
    with torch.no_grad():
        layer.weight.copy_(1e3 * (away + 1e-8 * flat))
    (found,) = DeepLIFT().explain(nn.Sequential(nn.Flatten(), layer), x, [0])
    assert found.facts["completeness_gap"][0] > 0.01
    assert "times the change and cancel" in found.notes[1]
    (sound,) = DeepLIFT().explain(nn.Sequential(nn.Flatten(), seeded(lambda: nn.Linear(1200, 1))), x, [0])
    assert sound.notes == []
