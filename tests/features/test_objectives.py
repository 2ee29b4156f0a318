"""Objectives against sums written out by hand on made-up activations."""

import math

import pytest
import torch
from torch import nn

from helpers.canvases import model_of
from helpers.nets import noise, pooled, random_net, seeded
from pellucid.errors import LayerError, TargetError
from pellucid.features import (
    Caricature,
    Channel,
    Contrast,
    Direction,
    Diversity,
    Inversion,
    Layer,
    Neuron,
    Score,
    Token,
    TotalVariation,
    activation,
    as_objective,
    parse_objective,
)
from pellucid.features.objectives import Seen, activation_part
from pellucid.models.layouts import Layout
from pellucid.models.targets import Class, TopClass, Unit
from pellucid.models.targets import Contrast as Rather

GRID = Layout("channels-first", (2, 3), 4)
A = noise(5, 4, 2, 3)
B = noise(5, 6, seed=1)
PICTURES = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(2))


def seen(**more):
    return Seen(B, {"a": A, "t": more.get("t", A)}, PICTURES, torch.arange(5))


a0 = Channel("a", 0, layout=GRID)
a1 = Neuron("a", 1, (1, 2), layout=GRID)
logit = Score(Class(2))


def test_the_terms_themselves():
    torch.testing.assert_close(a0.score(seen()), torch.stack([row[0].sum() / 6 for row in A]))
    torch.testing.assert_close(a1.score(seen()), torch.stack([row[1, 1, 2] for row in A]))
    torch.testing.assert_close(logit.score(seen()), B[:, 2])
    torch.testing.assert_close(
        Layer("a", layout=GRID).score(seen()), torch.stack([(row**2).sum() / row.numel() for row in A])
    )
    torch.testing.assert_close(Score(Rather(0, 1)).score(seen()), B[:, 0] - B[:, 1])


def test_linear_combinations_are_what_they_say():
    x, y, z = (o.score(seen()) for o in (a0, a1, logit))
    cases = {
        "a + b": (a0 + a1, x + y),
        "2a + 3b": (2 * a0 + 3 * a1, 2 * x + 3 * y),
        "(2a + b) 3": ((2 * a0 + a1) * 3, 6 * x + 3 * y),
        "-a": (-a0, -x),
        "a - 0.5 (b - c)": (a0 - 0.5 * (a1 - logit), x - 0.5 * y + 0.5 * z),
        "-(a - b) + a": (-(a0 - a1) + a0, y),
        "sum": (sum([a0, a1, logit]), x + y + z),
    }
    for name, (objective, expected) in cases.items():
        torch.testing.assert_close(objective.score(seen()), expected, msg=name)


def test_operands_are_never_changed():
    total = a0 + 0.5 * a1
    before = repr(total), repr(a0), total.score(seen())
    _ = (total * 4, -total, total - a0, a0 + total, sum([total, a0]))
    assert (repr(total), repr(a0)) == before[:2]
    assert torch.equal(total.score(seen()), before[2])
    with pytest.raises(AttributeError):
        a0.channel = 3
    for wrong in (a0, "2", math.nan, math.inf):
        with pytest.raises((TypeError, TargetError)):
            a1 * wrong
    with pytest.raises(TypeError):
        a0 + 1


def test_names_and_texts():
    assert str(a0 - 0.5 * a1 + 2 * TotalVariation()) == (
        "channel 0 of a - 0.5 x channel 1 of a at (1, 2) + 2 x total variation"
    )
    assert (-a0).name() == "-channel 0 of a"
    assert Score(Class(1)).name(("cat", "dog")) == "dog"
    for objective in (a0, a1, Neuron("a.b", 7), Token("x", 3, 0), Layer("blocks.3"), Score(Class("dog"))):
        assert parse_objective(objective.spec()) == objective or str(parse_objective(objective.spec())) == str(
            objective
        )
    assert (a0 + a1).spec() is None
    for text in ("neuron:a", "neuron:a:b", "token:a", "unit:a"):
        with pytest.raises(TargetError):
            parse_objective(text)


def test_what_names_an_objective():
    assert as_objective(Unit("a", 1)) == Channel("a", 1)
    assert as_objective(Unit("a", 1, (0, 2))) == Neuron("a", 1, (0, 2))
    assert as_objective("espresso").target == Class("espresso")
    assert as_objective(a0) is a0
    for wrong in (None, TopClass(), [1, 2], "top"):
        with pytest.raises(TargetError):
            as_objective(wrong)


def test_direction_is_dot_times_cosine_of_each_cell():
    v = torch.tensor([3.0, 0, -4, 0])
    for power, floor in ((0.0, 0.1), (1.0, 0.1), (2.0, 0.3)):
        expected = []
        for row in A:
            total = 0.0
            for y in range(2):
                for x in range(3):
                    a = row[:, y, x]
                    dot = float(a @ v) / 5
                    cosine = dot / float(a.norm())
                    total += dot * max(floor, cosine) ** power if power else dot
            expected.append(total / 6)
        direction = Direction("a", v / 5, power, floor, layout=GRID)
        torch.testing.assert_close(direction.score(seen()), torch.tensor(expected))
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval()
    bound = Direction("0", 10 * v).bind(model_of(net, (3, 16, 16)), torch.zeros(1, 3, 16, 16))
    torch.testing.assert_close(bound.vector, v / 5)
    for wrong in (torch.zeros(4), torch.ones(3), torch.tensor([1.0, math.nan, 0, 0])):
        with pytest.raises(TargetError, match="4 finite numbers"):
            Direction("0", wrong).bind(model_of(net, (3, 16, 16)), torch.zeros(1, 3, 16, 16))


def test_rows_do_not_couple():
    """A row's score and gradient are the same alone as among others (peers sum dot products over the batch)."""
    objective = Direction("a", torch.tensor([1.0, 2, 0, -1]), layout=GRID) + 0.3 * a0 - Layer("a", layout=GRID)
    leaf = A.clone().requires_grad_()
    together = objective.score(Seen(B, {"a": leaf}, PICTURES, torch.arange(5)))
    (slope,) = torch.autograd.grad(together.sum(), leaf)
    for i in range(5):
        one = A[i : i + 1].clone().requires_grad_()
        alone = objective.score(Seen(B[i : i + 1], {"a": one}, PICTURES[i : i + 1], torch.arange(1)))
        torch.testing.assert_close(alone[0], together[i])
        torch.testing.assert_close(torch.autograd.grad(alone.sum(), one)[0][0], slope[i])


def test_caricature_and_inversion():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.Conv2d(4, 5, 3)).eval())
    model, x, reference = model_of(net, (3, 15, 15)), noise(3, 3, 15, 15), noise(3, 15, 15, seed=4)
    with torch.no_grad():
        a, r = net(x).flatten(1), net(reference[None]).flatten()
    dot = a @ r / r.norm()
    cosine = torch.nn.functional.cosine_similarity(a, r[None], dim=1)
    found = activation(model, x, [Caricature("2", reference, power=2.0), Inversion("2", reference)])
    torch.testing.assert_close(found[0], dot * cosine.clamp(min=0.1) ** 2)
    torch.testing.assert_close(found[1], -(a - r).square().sum(1) / r.square().sum())
    torch.testing.assert_close(activation(model, reference[None], [Inversion("2", reference)]), torch.zeros(1, 1))
    with pytest.raises(TargetError, match="preprocessing"):
        activation(model, x, [Inversion("2", noise(3, 9, 9))])


def test_diversity_is_less_where_pictures_are_more_alike():
    views = noise(6, 4, 2, 3)  # 3 pictures of 2 views
    objective = Diversity("a", 3, layout=GRID)
    found = objective.score(Seen(None, {"a": views}, PICTURES[:3], torch.tensor([0, 0, 1, 1, 2, 2])))
    grams = [f.flatten(1) @ f.flatten(1).T for f in views]
    grams = [g / g.norm() for g in grams]
    expected = [
        -sum(float((grams[2 * p + v] * grams[2 * q + v]).sum()) for q in range(3) if q != p) / 2
        for p in range(3)
        for v in range(2)
    ]
    torch.testing.assert_close(found, torch.tensor(expected))
    same = views[:2].repeat(3, 1, 1, 1)
    alike = objective.score(Seen(None, {"a": same}, PICTURES[:3], torch.tensor([0, 0, 1, 1, 2, 2])))
    torch.testing.assert_close(alike, -torch.ones(6))
    with pytest.raises(TargetError, match="at least 2"):
        Diversity("0", 1).bind(model_of(pooled(), (3, 32, 32)), torch.zeros(1, 3, 32, 32))


def test_regularisers_by_hand():
    p = PICTURES.double()
    dx = (p[..., 1:] - p[..., :-1]).abs().mean((1, 2, 3))
    dy = (p[..., 1:, :] - p[..., :-1, :]).abs().mean((1, 2, 3))
    torch.testing.assert_close(TotalVariation().score(seen()).double(), dx + dy)
    torch.testing.assert_close(Contrast().score(seen()).double(), ((p - 0.5) ** 2).mean((1, 2, 3)))
    torch.testing.assert_close(Contrast(1, 0).score(seen()).double(), p.mean((1, 2, 3)))
    clip = torch.zeros(1, 1, 3, 2, 2)
    clip[:, :, 1] = 1  # changes in time only
    assert float(TotalVariation(temporal=0.25).measure(clip)) == pytest.approx(0.25)
    only = activation_part(2 * a0 - TotalVariation() + 3 * Diversity("a", 2, layout=GRID))
    torch.testing.assert_close(only.score(seen()), 2 * a0.score(seen()))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_units_of_any_layout(name):
    """Channel c of a layer by its plain definition, in CNNs, token models and channels-last ones."""
    size = 224 if "vit" in name else 64
    net, x = random_net(name), noise(2, 3, size, size)
    layer = {"resnet18": "layer2", "vit_tiny_patch16_224": "blocks.2", "convnext_atto": "stages.1"}[name]
    kept = {}
    net.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.update(A=out.detach()))
    with torch.no_grad():
        net(x)
    A = kept["A"]
    cells = A[:, 1:].mT.reshape(2, -1, 14, 14) if "vit" in name else A
    found = activation(
        model_of(net, (3, size, size)), x, [Channel(layer, 3), Neuron(layer, 5), Neuron(layer, 5, (1, 2))]
    )
    middle = cells.shape[2] // 2
    expected = [cells[:, 3].mean((1, 2)), cells[:, 5, middle, middle], cells[:, 5, 1, 2]]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    if "vit" in name:
        token = activation(model_of(net, (3, size, size)), x, [Token(layer, 7)])
        torch.testing.assert_close(token[0], A[:, 0, 7], rtol=1e-4, atol=1e-5)


def test_units_that_are_not_there():
    model, x = model_of(pooled(), (3, 32, 32), ("a", "b", "c", "d", "e")), torch.zeros(1, 3, 32, 32)
    for objective, error, text in (
        (Channel("3", 6), TargetError, "0 to 5; there is no 6"),
        (Channel("3", -1), TargetError, "0 to 5"),
        (Neuron("3", 0, (9, 0)), TargetError, r"no position \(9, 0\)"),
        (Neuron("3", 0, (1,)), TargetError, "no position"),
        (Token("3", 0), TargetError, "0 tokens"),
        (Channel("33", 0), LayerError, "did you mean"),
        (as_objective("f"), TargetError, "no class 'f'"),
        (as_objective(5), TargetError, "out of range"),
    ):
        with pytest.raises(error, match=text):
            objective.bind(model, x)
    assert float(activation(model, x, [Channel("6", 4)])) == pytest.approx(
        float(model.module(x)[0, 4].detach()), rel=1e-5
    )
