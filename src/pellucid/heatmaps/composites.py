"""Composites: which LRP rule for which kind of function. Data with a name; a new one is an entry of `COMPOSITES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pellucid.engine.backward import Rule, RuleTable
from pellucid.engine.rules.layers import (
    CONVOLUTIONS,
    DENSE,
    AffineRule,
    AlphaBeta,
    BatchNormalised,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZBox,
    ZPlus,
)
from pellucid.engine.rules.pointwise import GATES, POINTWISE, Pass
from pellucid.engine.rules.products import (
    NORMS,
    PADS,
    PRODUCTS,
    SPREADS,
    SUMS,
    Attention,
    Denominator,
    Expansion,
    Gate,
    Normalised,
    Offset,
    Opened,
    Padded,
    Shared,
    Spread,
    Stop,
)
from pellucid.engine.rules.rectifiers import RECTIFIERS, Rectified
from pellucid.registry import Registry


@dataclass(frozen=True)
class Strengths:
    """The numbers that composites are made with.

    Attributes:
        epsilon: what sums are moved away from 0 by.
        gamma: of the gamma rule.
    """

    epsilon: float = 1e-6
    gamma: float = 0.25


def everything_else() -> dict[str, Rule]:
    """What all composites say of functions without weights: gates, norms and attention weights take nothing."""
    return {
        **dict.fromkeys(POINTWISE, Pass()),
        **dict.fromkeys(GATES, Gate()),
        **dict.fromkeys(("rsqrt", "reciprocal"), Gate()),
        **dict.fromkeys(RECTIFIERS, Rectified()),
        **dict.fromkeys(PRODUCTS, Shared()),
        **dict.fromkeys(SUMS, Offset()),
        **dict.fromkeys(PADS, Padded()),
        **dict.fromkeys(NORMS, Normalised()),
        **dict.fromkeys(("glu", "baddbmm", "addcmul", "normalize"), Opened()),
        "div": Denominator(),
        "batch_norm": BatchNormalised(),
        "softmax": Stop(),
        **dict.fromkeys(("log_softmax", "logsumexp"), Expansion()),
        **dict.fromkeys(SPREADS, Spread()),
        "scaled_dot_product_attention": Attention(),
    }


def table(convolution: AffineRule, dense: AffineRule, first: AffineRule | None = None) -> RuleTable:
    """A composite by the rules of its layers with weights; the first of them may have one of its own."""
    layers = {**dict.fromkeys(CONVOLUTIONS, convolution), **dict.fromkeys(DENSE, dense)}
    return RuleTable({**everything_else(), **layers}, first)


def _blind(rule: AffineRule) -> RuleTable:
    """The same rule everywhere, one that gives relevance to inputs of 0 too: rectifiers pass it on."""
    found = table(rule, rule)
    return RuleTable({**found.rules, "relu": Pass(), "relu6": Pass()}, None)


Composite = Callable[[Strengths], RuleTable]

COMPOSITES: Registry[Composite] = Registry(
    "composite",
    {
        "epsilon": lambda s: table(Epsilon(s.epsilon), Epsilon(s.epsilon)),
        "epsilon-plus": lambda s: table(ZPlus(epsilon=s.epsilon), Epsilon(s.epsilon)),
        "epsilon-plus-flat": lambda s: table(ZPlus(epsilon=s.epsilon), Epsilon(s.epsilon), Flat()),
        "epsilon-gamma-box": lambda s: table(Gamma(s.gamma, s.epsilon), Epsilon(s.epsilon), ZBox(s.epsilon)),
        "gamma": lambda s: table(Gamma(s.gamma, s.epsilon), Gamma(s.gamma, s.epsilon)),
        "alpha-beta": lambda s: table(AlphaBeta(epsilon=s.epsilon), Epsilon(s.epsilon)),
        "alpha-beta-flat": lambda s: table(AlphaBeta(epsilon=s.epsilon), Epsilon(s.epsilon), Flat()),
        "w2": lambda _s: _blind(WSquare()),
        "flat": lambda _s: _blind(Flat()),
    },
)
"""Name -> (strengths) -> table."""
