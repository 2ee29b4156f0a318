"""Methods that are a table of backward rules: one forward, one backward a target, whatever the network's functions are.

The relevance of an input value `x` is `x g`, with `g` the gradient that the rules lead back (`engine/backward.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.backward import Propagation, RuleTable
from pellucid.engine.capture import require_way_back
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method
from pellucid.scoring.job import Job


@dataclass
class Led:
    """What rules led back for each target.

    Attributes:
        gradients: at the input, `(N, C, *space)`, one a target.
        scores: `(N,)` each, detached.
        absorbed: relevance that the rules took out of the flow, one number a target, over the batch.
        run: the pass: which rules acted, and what had none.
    """

    gradients: list[Tensor]
    scores: list[Tensor]
    run: Propagation
    absorbed: list[Tensor] = field(default_factory=list)


def led_back(job: Job, rules: RuleTable, name: str, *, strict: bool = False, accounts: bool = False) -> Led:
    """One forward pass by rules, and a backward pass for each target.

    Raises:
        MethodError: none of the rules acted, or `strict` and a function has none.
    """
    with Capture(job.module, watch=job.watch, input_gradient=True) as capture:
        run = Propagation(rules, capture.module, strict, accounts)

        def score(output: Any, watched: Any) -> list[Tensor]:
            with run.paused():
                return [t.score(output, watched) for t in job.targets]

        with run:
            _, scores = capture.scored(job.inputs, score)
        require_way_back(scores)
        if not run.acted:
            capture.gradients(scores[:1], last=False)  # a score that is cut off from the input is refused as such
        require_action(run, name)
        led = Led([], [s.detach() for s in scores], run)
        for k, s in enumerate(scores):
            s.register_hook(lambda _g: run.begin())  # type: ignore[no-untyped-call]
            led.gradients += [g["input"].float() for g in capture.gradients([s], last=k == len(scores) - 1)]
            led.absorbed.append(run.absorbed)
    return led


def require_action(run: Propagation, name: str) -> None:
    """Refuse a pass in which no rule acted: it led back the plain gradient.

    Raises:
        MethodError: none of the rules of the method called `name` acted.
    """
    if run.table.rules and not run.acted:
        named = ", ".join(f"`{function}`" for function, _ in run.unknown.most_common())
        met = f" It calls {named}, for which there is no rule." if named else ""
        raise MethodError(
            f"None of the rules of {name} acted: the network calls none of the functions that they are for (or "
            "hides them, in a script or a trace), so the map would be the plain gradient. Use saliency, "
            f"input-x-gradient or integrated-gradients.{met}"
        )


@dataclass(frozen=True, kw_only=True)
class RuleMethod(Method):
    """Base: a subclass is its table, `rules`, and what it makes of input and gradient, `combine`.

    Args:
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
    """

    strict: bool = False
    accounts: ClassVar[bool] = False  # whether what the rules absorb is counted

    @abstractmethod
    def rules(self) -> RuleTable:
        """The table."""

    def combine(self, x: Tensor, g: Tensor, score: Tensor) -> Tensor:
        """The attribution `(N, C, *space)` from the input, what the rules led back, and the score `(N, 1, ...)`."""
        return g

    def facts(self, led: Led, k: int, values: Tensor) -> dict[str, list[float]]:
        """What is measured of the map of target `k`."""
        return {}

    def said(self, facts: dict[str, list[float]]) -> list[str]:
        """Notes on these figures."""
        return []

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """One forward for each method, and a backward for each target."""
        return [m.explain_job(job) for m in methods]

    def explain_job(self, job: Job) -> list[Attribution]:
        """One attribution per target."""
        led = led_back(job, self.rules(), self.name, strict=self.strict, accounts=self.accounts)
        x = job.inputs.detach().float()
        cost = Cost(len(job.inputs), len(job.inputs) * len(job.targets))
        found = []
        for k, g in enumerate(led.gradients):
            score = led.scores[k].float().reshape(-1, *[1] * (x.ndim - 1))
            values = self.combine(x, g, score)
            facts = self.facts(led, k, values)
            found.append(Attribution(values, notes=[*led.run.said(), *self.said(facts)], facts=facts, cost=cost))
        return found
