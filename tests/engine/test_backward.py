"""The backward pass by rules: who is met, what is marked, what is said, and the rectifier's every spelling."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.nets import noise, seeded
from pellucid.engine.backward import Propagation, RuleTable
from pellucid.engine.rules.rectifiers import RECTIFIERS, Deconvolved, Guided, Rectified
from pellucid.engine.spelling import name_of
from pellucid.errors import MethodError

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
