"""The backward pass by rules: who is met, what is marked, what is said, and the rectifier's every spelling."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.nets import noise, seeded, settled
from pellucid.engine.backward import Propagation, RuleTable, carrier
from pellucid.engine.rules.rectifiers import RECTIFIERS, Deconvolved, Guided, Rectified
from pellucid.engine.spelling import name_of
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method

SPELLINGS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional": functional.relu,
    "functional in place": lambda x: functional.relu(x, inplace=True),
    "functional in place by position": lambda x: functional.relu(x, True),
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "method": Tensor.relu,
    "method in place": Tensor.relu_,
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clamp_(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clip": lambda x: torch.clip(x, 0),
    "clamp by a tensor": lambda x: torch.clamp(x, torch.zeros(())),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "maximum, the other way": lambda x: torch.maximum(torch.zeros(()), x),
    "max": lambda x: torch.max(x, torch.zeros(())),
    "fmax": lambda x: torch.fmax(x, torch.zeros(())),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "where, the other way": lambda x: torch.where(x <= 0, torch.zeros(()), x),
    "threshold": lambda x: functional.threshold(x, 0.0, 0.0),
    "hardtanh": lambda x: functional.hardtanh(x, 0.0, 1e9),
    "aten": torch.ops.aten.relu.default,
    "aten in place": torch.ops.aten.relu_.default,
}
X = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]])
G = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])


def led(function, rule, x=X, g=G):
    """What a rule leads back through a function of an intermediate value, and that value's answer."""
    leaf = x.clone().requires_grad_()
    run = Propagation(RuleTable(dict.fromkeys(RECTIFIERS, rule)), nn.Module())
    with run:
        y = function(leaf * 1.0)
    (found,) = torch.autograd.grad(y, leaf, g)
    return y.detach(), found, run


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [(Rectified(), [0, 0, 0, -1, 1]), (Guided(), [0, 0, 0, 0, 1]), (Deconvolved(), [1, 0, 1, 0, 1])],
    ids=["rectified", "guided", "deconvolved"],
)
def test_a_rectifier_is_one_in_every_spelling_at_zero_too(spelling, rule, expected):
    y, found, run = led(SPELLINGS[spelling], rule)
    assert torch.equal(y, X.relu())
    assert found.tolist() == [expected]
    assert sum(run.acted.values()) == 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (functional.relu6, [0, 0, 0, -1, 1]),
        (functional.hardtanh, [0, 0, 1, 0, 0]),
        (lambda x: x.clamp(-1.5, 1.5), [0, -1, 1, -1, 0]),
        (lambda x: x.clamp(max=1), [1, -1, 1, 0, 0]),
        (lambda x: torch.minimum(x, torch.ones(())), [1, -1, 1, 0, 0]),
    ],
)
def test_rectifiers_of_two_bounds_and_of_one_above(function, expected):
    y, found, _ = led(function, Rectified())
    assert torch.equal(y, function(X.clone()))
    assert found.tolist() == [expected]


@pytest.mark.parametrize(
    "function", [lambda x: x.max(1).values, lambda x: torch.where(x > 0, x, -x), lambda x: torch.maximum(x, -x)]
)
def test_what_only_looks_like_a_rectifier_is_left_as_it_is(function):
    leaf = X.clone().requires_grad_()
    y = function(leaf * 1.0)
    (expected,) = torch.autograd.grad(y.sum(), leaf)
    run = Propagation(RuleTable(dict.fromkeys(RECTIFIERS, Deconvolved())), nn.Module())
    with run:
        y = function(leaf * 1.0)
    assert torch.equal(torch.autograd.grad(y.sum(), leaf)[0], expected)
    assert not run.acted


def test_names_are_one_for_methods_operators_and_overloads():
    same = {
        "relu": [torch.relu, torch.relu_, Tensor.relu_, functional.relu, torch.ops.aten.relu_.default],
        "add": [torch.add, Tensor.add_, Tensor.__iadd__, Tensor.__radd__, torch.ops.aten.add.Tensor],
        "matmul": [torch.matmul, torch.mm, torch.bmm, Tensor.__matmul__, torch.ops.aten.mm.default],
    }
    for name, functions in same.items():
        assert {name_of(f)[0] for f in functions} == {name}
    assert name_of(torch.relu_)[1]
    assert name_of(Tensor.__iadd__)[1]
    assert not name_of(Tensor.__init__)[1]


class Apart(nn.Module):
    """Activations on the way from the input, and on the way of a weight alone."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(noise(4, 3))

    def forward(self, x):
        return functional.relu(functional.linear(x, torch.erfinv(self.weight.tanh() / 2)))


def test_only_what_depends_on_the_input_counts():
    net, x = Apart(), noise(2, 3).requires_grad_()
    run = Propagation(RuleTable(dict.fromkeys(RECTIFIERS, Guided())), net)
    with run:
        net(x)
    assert run.acted == {"relu": 1}
    assert run.unknown == {"linear": 1}  # the functions of the weight are none of its business
    assert "`linear` (1x)" in run.said()[0]
    refused = pytest.raises(MethodError, match=r"calls `linear`, for which there is no rule: leave strict out")
    with refused, Propagation(run.table, net, strict=True):
        net(x)


def test_what_multi_head_attention_is_made_of_is_met_and_answers_the_same():
    net = seeded(lambda: nn.MultiheadAttention(8, 2, batch_first=True)).eval()
    x = noise(2, 5, 8).requires_grad_()
    for more in ({}, {"need_weights": False}, {"average_attn_weights": False}):
        run = Propagation(RuleTable({}), net)
        plain, _ = net(x, x, x, **more)
        with run:
            found, _ = net(x, x, x, **more)
        torch.testing.assert_close(found, plain)
        assert run.unknown["linear"] >= 2
        assert {"softmax", "scaled_dot_product_attention"} & set(run.unknown)
        assert "multi_head_attention_forward" not in run.unknown


def test_a_paused_table_hears_nothing():
    x = X.clone().requires_grad_()
    with Propagation(RuleTable(dict.fromkeys(RECTIFIERS, Guided())), nn.Module()) as run, run.paused():
        x.relu()
    assert not run.acted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_what_carries_relevance_in_the_place_of_zeros(dtype):
    tiny = 1e-4 if dtype == torch.float16 else 1e-12
    for signs in ("both", "one", "none is 0"):
        y = noise(1, 3, 40, 40).to(dtype)
        y[0, 0, :3] = 0.0 if signs != "none is 0" else 1.0
        y[0, 1, 0, 0], y[0, 1, 0, 1] = (tiny / 2, -tiny / 2) if signs == "both" else (1.0, 1.0)
        y = y.abs() if signs == "one" else y
        expected = torch.where(y.abs() <= tiny, torch.tensor(tiny, dtype=dtype), y)
        assert torch.equal(carrier(y), expected)


class WritesAgain(nn.Module):
    """What rules have kept is written to by the model, more than once, and read in between."""

    def __init__(self, inplace):
        super().__init__()
        self.conv, self.bn, self.inplace = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), inplace

    def forward(self, x):
        z = self.bn(self.conv(x))
        first = z * 0.5
        y = functional.silu(z, inplace=self.inplace)
        second = y * 0.5
        y = functional.relu(y, inplace=self.inplace)
        third = y.mean((2, 3))
        y = y.mul_(2.0) if self.inplace else y * 2.0
        y = functional.hardtanh(y, 0.0, 1.0, inplace=self.inplace)
        return third + (first + second).mean((2, 3)) + y.sum((2, 3))


@pytest.mark.parametrize(
    "name", ["lrp", "attn-lrp", "full-grad", "libra-gradients", "deep-lift", "excitation-backprop"]
)
def test_writing_to_what_a_rule_has_kept_changes_nothing(name):
    x = noise(1, 3, 12, 12)
    maps = []
    for inplace in (False, True):
        net = settled(seeded(lambda inplace=inplace: WritesAgain(inplace)))
        (found,) = get_method(name).explain(net, x, [1])
        maps.append(found.values)
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-4, atol=1e-6 * float(maps[0].abs().max()))
