import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import Saliency as CaptumSaliency
from torch import nn

from helpers.nets import Busy, OneConv, Sevens, noise, pooled, random_net, seeded
from pellucid.errors import ModelError, TargetError
from pellucid.heatmaps import InputXGradient, Saliency, explain_all
from pellucid.models.targets import Class, Contrast, PerSample, TopClass


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    assert b.abs().max() > 0
    assert (a - b).abs().max() <= tolerance * b.abs().max()


NETS = {
    "resnet18": lambda: random_net("resnet18"),  # in-place ReLUs
    "convnext_atto": lambda: random_net("convnext_atto"),
    "positions": lambda: seeded(lambda: Sevens(64)).eval(),
    "clip": lambda: pooled(3),
}


@pytest.mark.parametrize("name", NETS)
def test_equal_to_captum(name):
    net = NETS[name]()
    x = noise(2, 3, 8, 24, 24) if name == "clip" else noise(2, 3, 64, 64)
    target = torch.tensor([3, 1])
    leaf = x.clone().requires_grad_()
    close(Saliency().attribute(net, x, target), CaptumSaliency(net).attribute(leaf, target))
    close(Saliency(absolute=False).attribute(net, x, target), CaptumSaliency(net).attribute(leaf, target, abs=False))
    close(InputXGradient().attribute(net, x, target), CaptumInputXGradient(net).attribute(leaf, target).detach())


def test_a_linear_model_has_the_gradient_of_its_weights():
    weights = noise(4, 3, 5, 7)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 7, 4, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(weights.flatten(1))
    x = noise(2, 3, 5, 7, seed=1)
    assert torch.equal(Saliency(absolute=False).attribute(net, x, 2), weights[2].expand(2, -1, -1, -1))
    assert torch.equal(Saliency().attribute(net, x, PerSample((0, 3))), weights[[0, 3]].abs())
    close(Saliency(absolute=False).attribute(net, x, Contrast(1, 3)), (weights[1] - weights[3]).expand(2, -1, -1, -1))
    products = InputXGradient().attribute(net, x, 1)
    assert torch.equal(products, x * weights[1])
    close(products.flatten(1).sum(1), net(x).detach()[:, 1])


def test_a_quadratic_model_by_hand():
    class Quadratic(nn.Module):
        def forward(self, x):
            return torch.stack([(x**2).sum((1, 2, 3)), (3 * x).sum((1, 2, 3))], 1)

    x = noise(2, 1, 4, 4)
    assert torch.equal(Saliency(absolute=False).attribute(Quadratic(), x, 0), 2 * x)
    assert torch.equal(InputXGradient().attribute(Quadratic(), x, 0), 2 * x**2)
    assert torch.equal(InputXGradient().attribute(Quadratic(), x, 1), 3 * x)


def test_the_gradient_by_hand_of_captums_net():
    # y = (4 + 31 + 40) + 0 - (6 + 15): cells 1, 2, 3 of channel 0 count once, cells 2, 3 of channel 1 are taken off,
    # so only the patch of cell 1, columns 1 to 3 of rows 0 to 2, is left
    expected = torch.zeros(1, 1, 4, 4)
    expected[..., 0:3, 1:4] = 1
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    for inplace in (False, True):
        assert torch.equal(Saliency(absolute=False).attribute(OneConv(inplace), x, 0), expected)


class Scribbler(nn.Module):
    """Takes the exponential of its input in place, then weighs it."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        x.exp_()
        return (x[:, None] * self.weights).sum((2, 3, 4))


def test_a_model_that_writes_to_its_input():
    net, x = Scribbler(noise(3, 2, 4, 4)), noise(2, 2, 4, 4, seed=1)
    before = x.clone()
    close(InputXGradient().attribute(net, x, 2), x * (x.exp() * net.weights[2]).detach())
    close(Saliency().attribute(net, x, 2), (x.exp() * net.weights[2]).detach().abs())
    assert torch.equal(x, before)
    busy, image = seeded(Busy).eval(), noise(1, 3, 16, 16)
    kept = image.clone()
    Saliency().attribute(busy, image, 1)
    assert torch.equal(image, kept)


def test_the_gradient_agrees_with_finite_differences():
    net, x = seeded(Sevens).double().eval(), noise(1, 3, 32, 32).double()
    gradient = Saliency(absolute=False).attribute(net, x, 4)
    for seed in range(5):
        step = noise(1, 3, 32, 32, seed=10 + seed).double() * 1e-5
        with torch.no_grad():
            measured = float((net(x + step) - net(x - step))[0, 4])
        assert float((gradient * 2 * step).sum()) == pytest.approx(measured, rel=1e-4)


def test_methods_and_targets_share_one_forward_and_equal_each_alone():
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    calls = []
    hook = net.register_forward_hook(lambda *_: calls.append(1))
    methods = [Saliency(), InputXGradient(), Saliency(absolute=False)]
    targets = [Class(0), PerSample((1, 4)), TopClass(1), Contrast(2, 3)]
    together = explain_all(methods, net, x, targets)
    assert len(calls) == 1
    hook.remove()
    for m, found in zip(methods, together, strict=True):
        assert len(found) == len(targets)
        for t, attribution in zip(targets, found, strict=True):
            close(attribution.values, m.attribute(net, x, t), 1e-6)
            assert (attribution.cost.forwards, attribution.cost.backwards) == (2, 8)


def test_samples_do_not_mix():
    net, x = random_net("resnet18"), noise(3, 3, 64, 64)
    net.train()  # batch statistics would mix them
    close(Saliency().attribute(net, x, 1), torch.cat([Saliency().attribute(net, one[None], 1) for one in x]))


@pytest.mark.parametrize("cut", ["no_grad", "detach", "round"])
def test_a_model_that_cuts_its_graph_gets_an_error_and_no_map_of_zeros(cut):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            with torch.set_grad_enabled(cut != "no_grad"):
                f = x.mean((2, 3))
            return self.fc(f.detach() if cut == "detach" else f.round().detach() if cut == "round" else f)

    with pytest.raises(TargetError, match="No gradient leads from the score back to the input"):
        Saliency().attribute(Cut(), noise(1, 3, 8, 8), 0)


@pytest.mark.parametrize(
    "bad",
    [
        torch.full((1, 3, 8, 8), float("nan")),
        torch.zeros(3, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.long),
        torch.zeros(0, 3, 8, 8),
    ],
    ids=["NaN", "no batch", "integers", "empty"],
)
def test_inputs_that_make_no_sense_are_refused(bad):
    with pytest.raises(ModelError):
        Saliency().attribute(pooled(), bad, 0)
