"""The public check of rules: what keeps the contract passes, and each broken promise is named."""

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from pellucid.engine.backward import Rule
from pellucid.engine.rules.layers import Epsilon, ZPlus
from pellucid.engine.rules.pointwise import Pass
from pellucid.engine.rules.rectifiers import Guided
from pellucid.testing import check_rule
from pellucid.testing.networks import noise

WEIGHT = noise(5, 6)


def linear(x):
    return functional.linear(x, WEIGHT)


def test_rules_of_the_house_keep_it():
    check_rule(Pass(), "gelu", functional.gelu, conserves=True)
    check_rule(Epsilon(), "linear", linear, conserves=True)
    check_rule(ZPlus(), "linear", linear, conserves=True)
    check_rule(Guided(), "relu", torch.relu_)


@dataclass(frozen=True)
class Broken(Rule):
    """Breaks one promise."""

    how: str

    def __call__(self, call):
        with torch.no_grad():
            value = call.answer()
        value = value + 1 if self.how == "values" else value
        return call.rerouted(value, [0], lambda g: (self.back(g),))

    def back(self, g):
        if self.how == "random":
            return g * torch.rand(())
        return g / 0 if self.how == "infinite" else g * len(g)


@pytest.mark.parametrize(
    ("how", "said"),
    [("values", "changes the function's values"), ("infinite", "NaN"), ("random", "differently"), ("batch", "alone")],
)
def test_each_broken_promise_is_named(how, said):
    with torch.random.fork_rng(), pytest.raises(AssertionError, match=said):
        check_rule(Broken(how), "tanh", torch.tanh)


def test_a_rule_that_is_never_met_and_one_that_loses_relevance_are_named():
    with pytest.raises(AssertionError, match="never acted"):
        check_rule(Pass(), "gelu", torch.tanh)

    @dataclass(frozen=True)
    class Losing(Rule):
        def __call__(self, call):
            _, y = call.local([0])
            run, g = call.run, y.detach()
            answer = call.rerouted(g, [0], lambda g: (g / 2,))
            run.absorb = lambda _relevance: None  # says nothing of it
            return answer

    with pytest.raises(AssertionError, match="not conserved"):
        check_rule(Losing(), "tanh", torch.tanh, conserves=True)
