"""DeepLIFT: what makes the score differ from a reference's, led back function by function; exact on any network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.backward import PLAIN, SELECTING, Propagation, Rule, RuleTable
from pellucid.engine.baselines import make_baseline
from pellucid.engine.rules.differences import (
    BRANCHED,
    MAX_POOLS,
    Expanded,
    Halved,
    Largest,
    LogSoftmaxDifference,
    LogSumDifference,
    MaxPoolDifference,
    MostDifference,
    Noted,
    NotedNorm,
    Rescale,
    RevealCancel,
    SoftmaxDifference,
    Switched,
)
from pellucid.engine.rules.layers import CONVOLUTIONS, DENSE
from pellucid.engine.rules.pointwise import ACTIVATIONS, POINTWISE
from pellucid.engine.rules.products import PRODUCTS, SPREADS, Attention, Opened
from pellucid.engine.rules.rectifiers import RECTIFIERS
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.models.targets import Target
from pellucid.progress import task
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze

RULES = ("rescale", "reveal-cancel")
LARGEST = ("max", "min", "maximum", "minimum", "fmax", "fmin")
_BENDS = {*ACTIVATIONS, *RECTIFIERS}
_GROWN = 1e7  # of the change: where shares are so large, not one digit of their sum is right in single precision
_CANCELLED = 1e4  # times the change: beyond it shares in single precision cancel to a sum with a gap of its own
_MISSED = 0.01  # of the change of score: a gap above it is said


def difference_rules(rule: str = "rescale") -> RuleTable:
    """Secants for functions of one value, means for products; what else bends is written out in these."""
    rules: dict[str, Rule] = {
        **dict.fromkeys((*POINTWISE, *RECTIFIERS, "rsqrt", "reciprocal"), Rescale()),
        **dict.fromkeys(("where", "masked_fill"), Switched()),
        **dict.fromkeys(PRODUCTS, Halved()),
        **dict.fromkeys(MAX_POOLS, MaxPoolDifference()),
        **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize", "div"), Expanded()),
        **dict.fromkeys(SPREADS, Expanded()),
        **dict.fromkeys(("amax", "amin"), MostDifference()),
        **dict.fromkeys(LARGEST, Largest(Rescale())),
        "logsumexp": LogSumDifference(),
        **dict.fromkeys(("glu", "baddbmm", "addcmul"), Opened()),
        "softmax": SoftmaxDifference(),
        "log_softmax": LogSoftmaxDifference(),
        "scaled_dot_product_attention": Attention(),
    }
    if rule == "reveal-cancel":
        rules |= {name: RevealCancel() for name, rule in rules.items() if type(rule) is Rescale and name in _BENDS}
        rules |= dict.fromkeys(LARGEST, Largest(RevealCancel()))
        rules |= {**dict.fromkeys((*CONVOLUTIONS, *DENSE), Noted()), "batch_norm": NotedNorm()}
    linear = {*CONVOLUTIONS, *DENSE, "batch_norm"}
    return RuleTable(rules, plain=(PLAIN - SELECTING) | linear)


@dataclass(frozen=True, kw_only=True)
class DifferenceMethod(Method):
    """Base: contributions `(x - x') m` for each reference, averaged."""

    baseline: str | Tensor = "zero"
    strict: bool = False
    rule: str = "rescale"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise MethodError(f"The rule of {self.name} is {' or '.join(RULES)}, not {self.rule!r}.")

    def references(self, x: Tensor) -> Sequence[Tensor]:
        """References of the inputs' shape."""
        return [make_baseline(self.baseline, x, torch.Generator().manual_seed(0))]

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method on its own."""
        return [m.explain_job(job) for m in methods]

    def explain_job(self, job: Job) -> list[Attribution]:
        """Two forwards a reference, and a backward a target."""
        x, targets = job.inputs.detach(), freeze(job)  # the class on top is the untouched picture's
        cost = Cost(len(x))
        totals = [torch.zeros_like(x, dtype=torch.float32) for _ in targets]
        changes = torch.zeros(len(targets), len(x), dtype=torch.float64)
        references, notes = self.references(x), list[str]()
        with task(self.name, len(references)) as advance:
            for reference in references:
                found, moved, notes = self._led(job, targets, reference)
                for k, contribution in enumerate(found):
                    totals[k] += contribution / len(references)
                changes += moved / len(references)
                cost.forwards += 2 * len(x)
                cost.backwards += len(x) * len(targets)
                advance(1)
        return [self._attribution(values, change, notes, cost) for values, change in zip(totals, changes, strict=True)]

    def _led(self, job: Job, targets: Sequence[Target], reference: Tensor) -> tuple[list[Tensor], Tensor, list[str]]:
        """Contributions `(N, C, *space)` of each target to one reference, changes `(targets, N)`, and notes."""
        x, table = job.inputs.detach(), difference_rules(self.rule)
        with Capture(job.module, watch=job.watch, input_gradient=True) as capture:

            def score(output: Any, watched: Any) -> list[Tensor]:
                with run.paused():
                    return [t.score(output, watched) for t in targets]

            with Propagation(table, capture.module, self.strict) as run:
                _, before = capture.scored(reference, score)
            noted, old = run.inputs, [s.detach() for s in before]
            with Propagation(table, capture.module, self.strict) as run:
                run.reference = iter(noted)
                _, scores = capture.scored(x, score)
            if run.branched:
                raise MethodError(BRANCHED)
            slopes = [g["input"] for g in capture.gradients(scores)]
        away = (x - reference).float()
        changes = torch.stack([(s.detach() - o).double().cpu() for s, o in zip(scores, old, strict=True)])
        return [away * g.float() for g in slopes], changes, run.said()

    def _attribution(self, values: Tensor, change: Tensor, notes: list[str], cost: Cost) -> Attribution:
        sizes = values.double().abs().flatten(1).sum(1).cpu()
        if not bool((sizes <= _GROWN * change.abs().clamp(min=1.0)).all()):  # also where one is not a number
            raise MethodError(
                "Differences from this reference grow beyond all numbers: through normalisations, a reference without "
                "any spread (black) makes them steep. Use baseline=uniform or blur, or integrated-gradients."
            )
        missing = (values.double().flatten(1).sum(1).cpu() - change).abs()
        gap = missing / change.abs().clamp(min=1e-12)
        worst = float(gap.max())
        if worst > _MISSED and bool((missing > 1e-5).any()):
            notes = [*notes, f"The completeness gap is {worst:.1%}: that share of the change is in no pixel."]
            grown = float((sizes / change.abs().clamp(min=1e-12)).max())
            if grown > _CANCELLED:
                notes.append(
                    f"The shares of all pixels are {grown:,.0f} times the change and cancel, so their sum is known no "
                    "better: compare with baseline=uniform or blur, or with integrated-gradients."
                )
        return Attribution(values, notes=notes, facts={"completeness_gap": gap.tolist()}, cost=cost)


@method(
    "deep-lift",
    family="propagation",
    needs="gradients, functions",
    cost="3 forwards + 1 backward",
    paper="Shrikumar et al. 2017, arXiv:1704.02685, sec. 3.5",
)
@dataclass(frozen=True, kw_only=True)
class DeepLIFT(DifferenceMethod):
    """`(x - x') m`, with secants `dy / dx` from reference to input in place of slopes; sums to `f(x) - f(x')`.

    Exact beyond rectifiers: products are led back at the mean of their factors, softmax, normalisations and attention
    in their parts, and of a maximum the winner takes the difference, also where windows overlap.

    Args:
        baseline: `zero`, `mean`, `blur`, `uniform`, or a tensor that expands to the inputs.
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
        rule: of activations: `rescale`, or `reveal-cancel`, which leads what speaks for a unit and what speaks against
            it back apart, so that they do not cancel unseen.
    """


@method(
    "deep-lift-shap",
    family="propagation",
    needs="gradients, functions",
    cost="2 forwards + 1 backward a reference (8)",
    paper="Lundberg & Lee 2017, arXiv:1705.07874, sec. 4.2",
)
@dataclass(frozen=True, kw_only=True)
class DeepLIFTSHAP(DifferenceMethod):
    """DeepLIFT averaged over references: approximate Shapley values; sums to `f(x) - mean f(x')`.

    Args:
        baseline: `uniform` (random pictures), or a tensor `(K, C, *space)` of references.
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
        rule: of activations: `rescale`, or `reveal-cancel`, which leads what speaks for a unit and what speaks against
            it back apart, so that they do not cancel unseen.
        draws: how many random references; of a tensor, all are taken.
        seed: of the random references.
    """

    baseline: str | Tensor = "uniform"
    draws: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise MethodError("deep-lift-shap needs draws of at least 1.")

    def references(self, x: Tensor) -> Sequence[Tensor]:
        """The tensor's, or random ones."""
        if isinstance(self.baseline, Tensor) and self.baseline.ndim == x.ndim and len(self.baseline) > 1:
            if self.baseline.shape[1:] != x.shape[1:]:
                raise MethodError(
                    f"References are {tuple(self.baseline.shape[1:])} each, and inputs {tuple(x.shape[1:])}."
                )
            return [r[None].to(x).expand_as(x) for r in self.baseline]
        generator = torch.Generator().manual_seed(self.seed)
        count = self.draws if self.baseline == "uniform" else 1
        return [make_baseline(self.baseline, x, generator) for _ in range(count)]
