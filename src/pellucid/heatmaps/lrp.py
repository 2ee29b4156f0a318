"""Layer-wise relevance propagation: the score itself is led back, and what a layer is given it hands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pellucid.engine.backward import Rule, RuleTable, carrier
from pellucid.engine.rules.layers import Affine, AffineRule, BatchNormalised, Epsilon, Gamma, Transposed, ZPlus
from pellucid.engine.rules.pointwise import Pass
from pellucid.engine.rules.products import NORMS, Expansion
from pellucid.engine.rules.winners import MEANS, Excited, Winners
from pellucid.errors import MethodError
from pellucid.heatmaps.base import method
from pellucid.heatmaps.composites import COMPOSITES, Strengths, table
from pellucid.heatmaps.propagation import Led, RuleMethod

_LOST = 0.01  # of the score: a gap above it is said
_FLOODED = 100.0  # times the score: biases that take more are said
_ONE = "1 forward + 1 backward"


class RelevanceMethod(RuleMethod):
    """Base: relevance is `x g`, and the fact `conservation_gap` says how much of the score it and the biases miss."""

    accounts: ClassVar[bool] = True

    def combine(self, x: Tensor, g: Tensor, score: Tensor) -> Tensor:
        """What the inputs carry."""
        return carrier(x) * g

    def facts(self, led: Led, k: int, values: Tensor) -> dict[str, list[float]]:
        """`|sum of relevance + what biases and stabilisers took - score| / |score|`, of the batch together."""
        scores = led.scores[k].double().cpu()
        missing = values.double().sum().cpu() + led.absorbed[k] - scores.sum()
        count = len(scores)
        gap = float(missing.abs() / scores.abs().sum().clamp(min=1e-12))
        taken = float(led.absorbed[k] / scores.sum()) if float(scores.sum()) else 0.0
        return {"conservation_gap": [gap] * count, "absorbed": [taken] * count}

    def said(self, facts: dict[str, list[float]]) -> list[str]:
        """That relevance got lost, if it did, or that biases took many times the score."""
        gap, taken = max(facts["conservation_gap"]), abs(facts["absorbed"][0])
        lost = f"Relevance is not conserved: {gap:.1%} of the score is found neither in the map nor in biases."
        flooded = (
            f"Biases and stabilisers take {taken:,.0f} times the score, and the pixels hold as much with the other "
            "sign: most of this map is what cancels. Compare it with integrated-gradients, or with another composite "
            "of lrp (gamma, epsilon-plus-flat)."
        )
        return [lost] * (gap > _LOST) + [flooded] * (taken > _FLOODED)


@method(
    "lrp",
    family="propagation",
    needs="gradients, functions",
    cost="up to 2 forwards and 2 backwards by composite (depth-wise layers: more); by epsilon 1 forward + 1 backward",
    paper="Bach et al. 2015, doi:10.1371/journal.pone.0130140; Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10",
)
@dataclass(frozen=True, kw_only=True)
class LRP(RelevanceMethod):
    """`R_j = sum_k (share of j in z_k) R_k`, layer by layer from the score to the input, signed.

    Every function has a rule: layers with weights by the composite, activations pass on, sums share in proportion, of
    gate and signal the signal takes all, and attention weights and the spreads of normalisations are constants.

    Args:
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
        composite: `epsilon-plus-flat`, `epsilon`, `epsilon-plus`, `epsilon-gamma-box`, `gamma`, `alpha-beta`,
            `alpha-beta-flat`, `w2`, `flat`: which rule for which layers.
        epsilon: what sums are moved away from 0 by: larger keeps small ones from blowing up, and loses relevance.
        gamma: of the gamma rule: how much more what speaks for a unit counts.
    """

    composite: str = "epsilon-plus-flat"
    epsilon: float = 1e-6
    gamma: float = 0.25

    def __post_init__(self) -> None:
        COMPOSITES.find(self.composite)
        if not self.epsilon > 0 or not self.gamma >= 0:
            raise MethodError("The epsilon of lrp is a small positive number, such as 1e-6, and its gamma at least 0.")

    def rules(self) -> RuleTable:
        """The composite."""
        return COMPOSITES.find(self.composite)(Strengths(self.epsilon, self.gamma))


@method(
    "attn-lrp",
    family="propagation",
    needs="gradients, functions",
    cost=_ONE,
    paper="Achtibat et al. 2024, arXiv:2402.05602, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class AttnLRP(RelevanceMethod):
    """LRP through attention itself: softmax by its expansion `x (R - s sum R)`, each factor of a product takes half.

    Args:
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
        epsilon: of the epsilon rule.
        gamma: above 0, layers with weights follow the gamma rule, which is calmer on vision transformers.
    """

    epsilon: float = 1e-6
    gamma: float = 0.0

    def rules(self) -> RuleTable:
        """The table of the epsilon (or gamma) composite, with softmax led back by its gradient."""
        rule = Gamma(self.gamma, self.epsilon) if self.gamma else Epsilon(self.epsilon)
        return table(rule, rule).with_rules(softmax=Expansion())


@method(
    "cp-lrp",
    family="propagation",
    needs="gradients, functions",
    cost=_ONE,
    paper="Ali et al. 2022, arXiv:2202.07304, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class CPLRP(RelevanceMethod):
    """LRP with attention weights and the spread of normalisations held fixed: the values take all, and it conserves.

    Args:
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
        epsilon: of the epsilon rule.
    """

    epsilon: float = 1e-6

    def rules(self) -> RuleTable:
        """The epsilon composite."""
        return table(Epsilon(self.epsilon), Epsilon(self.epsilon))


@dataclass(frozen=True)
class Excitation(ZPlus):
    """`P_j = sum_k P_k x_j w_jk+ / sum_i x_i w_ik+`; at the top, less that with `-w` (Zhang et al. 2016)."""

    contrastive: bool = False

    def shared(
        self, layer: Affine, weight: Tensor, bias: Tensor | None, y: Tensor, R: Tensor, transposed: Transposed
    ) -> Tensor:
        """The winners without any bias; in the first layer led back through, those of the dual unit taken off."""
        found = AffineRule.shared(self, layer, weight, None, y, R, transposed)  # `y` holds the bias: term by term
        run = layer.call.run
        if self.contrastive and not run.layers_back:
            found = found - AffineRule.shared(self, layer, -weight, None, y, R, transposed)
        run.layers_back += 1
        return found


@method(
    "excitation-backprop",
    family="propagation",
    needs="gradients, functions",
    cost="up to 3 forwards and 2 backwards",
    paper="Zhang et al. 2016, arXiv:1608.00507, eq. 7, 10",
)
@dataclass(frozen=True, kw_only=True)
class ExcitationBackprop(RelevanceMethod):
    """`P_j = sum_k P_k x_j w_jk+ / sum_i x_i w_ik+`: the chance that a winner's winner's ... winner is this value.

    Starts with 1 at the target. Biases and what normalisations shift win nothing. So the chances of one target sum to
    1, less those that end at constants, such as a class token: the fact `absorbed`.

    Args:
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
        contrastive: the probabilities of "not the target" are taken off (the weights of the last layer, negated).
    """

    contrastive: bool = False

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """Only the contrast has two signs."""
        return self.contrastive

    def rules(self) -> RuleTable:
        """Winners at every layer with weights and every sum; what a normalisation shifts wins nothing."""
        layers = table(Excitation(contrastive=self.contrastive), Excitation(contrastive=self.contrastive))
        others: dict[str, Rule] = dict.fromkeys(NORMS, Pass())
        others |= {**dict.fromkeys(("add", "sub", "rsub"), Winners()), **dict.fromkeys((*MEANS, "matmul"), Excited())}
        return layers.with_rules(batch_norm=BatchNormalised(Pass()), **others)

    def combine(self, x: Tensor, g: Tensor, score: Tensor) -> Tensor:
        """Relevance led back from a score is that score times the probability."""
        return carrier(x) * g / carrier(score)

    def facts(self, led: Led, k: int, values: Tensor) -> dict[str, list[float]]:
        """How far the chances in the map and those that end elsewhere, `absorbed`, are from 1 together."""
        return super().facts(led, k, values * led.scores[k].to(values).reshape(-1, *[1] * (values.ndim - 1)))

    def said(self, facts: dict[str, list[float]]) -> list[str]:
        """That chances are lost, or end elsewhere, if so; those of the contrast do by intent."""
        ended = facts["absorbed"][0]
        if self.contrastive or ended <= _LOST:
            return super().said(facts)
        return [
            *super().said(facts),
            f"{ended:.1%} of the chances end outside of the picture: at constants such as a class token, or at units "
            "that nothing excites.",
        ]
