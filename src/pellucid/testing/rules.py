"""What every rule of the backward pass promises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.engine.backward import Propagation, Rule, RuleTable, carrier
from pellucid.testing.networks import noise

_CLOSE = 1e-4  # of the largest value


def check_rule(
    rule: Rule,
    name: str,
    function: Callable[[Tensor], Tensor],
    *,
    inputs: Tensor | None = None,
    conserves: bool = False,
) -> None:
    """Hold a rule of the backward pass to the contract of all rules.

    It acts where its function is called and leaves the function's values as they are; what it leads back is finite,
    the same each time, and in a batch what it is for each sample alone; with `conserves`, all relevance is found again
    in the inputs and in what is counted as absorbed.

    Args:
        rule: with the settings to try.
        name: of the function that it is for, as tables call it.
        function: calls it, `(N, ...) -> (N, ...)`.
        inputs: a batch of two at least; default: noise.
        conserves: whether the rule promises that.

    Raises:
        AssertionError: which promise is broken.
    """
    x = noise(3, 4, 6) if inputs is None else inputs
    plain = function(x.clone()).detach()
    y, g, run = _led(rule, name, function, x)
    assert run.acted[name], f"The rule never acted: the function calls no `{name}` that it fits."
    assert torch.equal(y, plain), "The rule changes the function's values."
    assert bool(g.isfinite().all()), "What is led back holds NaN or infinity."
    assert torch.equal(_led(rule, name, function, x)[1], g), "The same call was led back differently."
    for k in range(len(x)):
        alone = _led(rule, name, function, x[k : k + 1])[1]
        apart = float((alone - g[k : k + 1]).abs().max()) / max(float(g.abs().max()), 1e-12)
        assert apart <= _CLOSE, f"Sample {k} alone is led back otherwise than in its batch: {apart:.1e} apart."
    if conserves:
        given, found = carrier(plain).double().sum(), (carrier(x).double() * g).sum() + run.absorbed
        missing = float((given - found).abs()) / float(carrier(plain).abs().sum())
        assert missing <= _CLOSE, f"Relevance is not conserved: {missing:.1e} of it is lost or made up."


def _led(rule: Rule, name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Propagation]:
    leaf = x.detach().clone().requires_grad_()
    run = Propagation(RuleTable({name: rule}), nn.Module(), accounts=True)
    with run:
        y = function(leaf.clone())
    (g,) = torch.autograd.grad(y.sum(), leaf)
    return y.detach(), g, run
