"""Rule lists: the first rule that fits gives the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import DataError
from pellucid.interpretable.base import Readable, Reason, log_probabilities, number
from pellucid.interpretable.numerics import Array

_CUTS, _COLUMNS, _BEAM = 8, 64, 6  # thresholds a column, columns looked at, rules kept while one grows
_TRUST = 2.0  # prior rows in a rule's estimate


@dataclass(frozen=True)
class Condition:
    """A column at most, or above, a threshold."""

    feature: int
    above: bool
    threshold: float

    def holds(self, X: Array) -> NDArray[np.bool_]:
        """`(N,)`."""
        found: NDArray[np.bool_] = (X[:, self.feature] > self.threshold) == self.above
        return found


class Rules(Readable):
    """An ordered list of rules, grown one after the other on the rows that no rule before it takes.

    A rule is a few conditions on single columns. It grows by beam search (CN2, Clark & Niblett 1989) towards the
    largest FOIL gain, `n_k (log p_k(rule) - log p_k(left))`: many rows, purer than those that are left (RIPPER, Cohen
    1995). Thresholds are quantiles. Of more than 64 columns, those that separate the classes best are looked at.

    Args:
        most: rules before the last one, which takes the rest.
        conditions: most conditions of a rule.
        smallest: fewest training rows that a rule takes.
    """

    kind: ClassVar[str] = "rules"
    unit: ClassVar[str] = "conditions"

    def __init__(self, most: int = 10, conditions: int = 3, smallest: int = 5) -> None:
        self.most = most
        self.conditions = conditions
        self.smallest = smallest

    def _learn(self, X: Array, answers: Array) -> None:
        if self.most < 1 or self.conditions < 1:
            raise DataError("A list needs at least one rule, and a rule one condition: give 1 or more.")
        literals = _literals(X, answers)
        holds = np.stack([c.holds(X) for c in literals]) if literals else np.zeros((0, len(X)), bool)
        left = np.ones(len(X), bool)
        self.rules_: list[list[Condition]] = []
        values, shares = [], []
        while len(self.rules_) < self.most:
            rule = self._grow(holds, left, answers)
            if not rule:
                break
            taken = left & holds[rule].all(0)
            self.rules_.append([literals[i] for i in rule])
            values.append(_estimate(answers[taken], answers[left].mean(0)))
            shares.append(taken.mean())
            left &= ~taken
            if not left.any():
                break
        rest = answers[left] if left.any() else answers
        self.value_ = np.array([*values, _estimate(rest, answers.mean(0))])
        self.share_ = np.array([*shares, left.mean()])

    def _grow(self, holds: NDArray[np.bool_], left: NDArray[np.bool_], answers: Array) -> list[int]:
        """The literals of the next rule; none if nothing gains."""
        live, prior = answers[left], answers[left].mean(0)
        true = holds[:, left]
        beam: list[tuple[float, list[int]]] = [(0.0, [])]
        best: tuple[float, list[int]] = (1e-9, [])
        for _ in range(self.conditions):
            grown: dict[frozenset[int], float] = {}
            for _, rule in beam:
                inside = true[rule].all(0) if rule else np.ones(true.shape[1], bool)
                covered = true[:, inside].astype(np.float64)
                counts = covered @ live[inside]
                total = covered.sum(1)
                p = (counts + _TRUST * prior) / (total[:, None] + _TRUST)
                gain = (counts * (np.log(np.maximum(p, 1e-12)) - np.log(np.maximum(prior, 1e-12)))).max(1)
                gain[(total < self.smallest) | (total == inside.sum())] = -np.inf
                for i in np.argsort(-gain, kind="stable")[:_BEAM]:
                    if gain[i] > 0:
                        grown.setdefault(frozenset([*rule, int(i)]), float(gain[i]))
            ranked = sorted(((g, sorted(r)) for r, g in grown.items()), key=lambda f: (-f[0], f[1]))
            beam = ranked[:_BEAM]
            if not beam:
                break
            if beam[0][0] > best[0] * 1.02:  # a further condition must earn its reading
                best = beam[0]
        return best[1]

    def simpler(self, X: Array, answers: Array) -> list[Self]:
        """The list cut after 1, 2, 3, 5, 8 ... rules."""
        models: dict[int, Self] = {}
        for most in sorted({m for m in (1, 2, 3, 5, 8, 13, 21, 34) if m < self.most} | {self.most}):
            model = type(self)(most, self.conditions, self.smallest).learned(X, answers, self)
            models.setdefault(model.complexity_, model)
        return list(models.values())

    def fired(self, X: Array) -> NDArray[np.int64]:
        """The rule `(N,)` that takes each row; the last number is that of the rest."""
        at = np.full(len(X), len(self.rules_), np.int64)
        for number_, rule in reversed(list(enumerate(self.rules_))):
            at[np.logical_and.reduce([c.holds(X) for c in rule])] = number_
        return at

    def _scores(self, X: Array) -> Array:
        return log_probabilities(self.value_[self.fired(X)], 1e-6)

    @property
    def complexity_(self) -> int:
        """Conditions of all rules."""
        return sum(map(len, self.rules_))

    def text(self, rule: int) -> str:
        """A rule's conditions."""
        if rule == len(self.rules_):
            return "anything else"
        return " and ".join(self._said(c) for c in self.rules_[rule])

    def _said(self, c: Condition) -> str:
        return f"{self.names_[c.feature]} {'>' if c.above else '≤'} {number(c.threshold)}"

    def reasons(self, x: ArrayLike, label: Any = None) -> list[Reason]:
        """The conditions of the rule that takes the row; none if it is left to the last."""
        row = self.row(x)
        fired = int(self.fired(row)[0])
        if fired == len(self.rules_):
            return []
        return [Reason(self._said(c), c.feature, float(row[0, c.feature])) for c in self.rules_[fired]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Conditions as columns, with the rule each belongs to."""
        flat = [(r, c.feature, c.above, c.threshold) for r, rule in enumerate(self.rules_) for c in rule]
        return {
            "conditions": np.array(flat, np.float64).reshape(-1, 4),
            "value": self.value_,
            "share": self.share_,
        }

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.value_, self.share_ = arrays["value"], arrays["share"]
        self.rules_ = [[] for _ in range(len(self.value_) - 1)]
        for rule, feature, above, threshold in arrays["conditions"]:
            self.rules_[int(rule)].append(Condition(int(feature), bool(above), float(threshold)))

    def __str__(self) -> str:
        lines = []
        for rule, value in enumerate(self.value_):
            k = int(value.argmax())
            word = "if" if rule == 0 else "else if"
            head = "else" if rule == len(self.rules_) else f"{word} {self.text(rule)}"
            lines.append(f"{head}: {self.classes_[k]} ({value[k]:.0%}; {self.share_[rule]:.0%} of rows)")
        return "\n".join(lines)


def _estimate(rows: Array, prior: Array) -> Array:
    """Mean answer of rows, with a little of the prior."""
    mean: Array = (rows.sum(0) + _TRUST * prior) / (len(rows) + _TRUST)
    return mean


def _literals(X: Array, answers: Array) -> list[Condition]:
    """Both sides of each threshold of the columns looked at."""
    between = ((answers.T @ (X - X.mean(0))) / np.maximum(answers.sum(0), 1e-9)[:, None]) ** 2
    spread = (answers.mean(0) @ between) / np.maximum(X.var(0), 1e-12)
    found = []
    for j in np.sort(np.argsort(-spread, kind="stable")[:_COLUMNS]):
        values = np.unique(X[:, j])
        if len(values) < 2:
            continue
        middles = (values[:-1] + values[1:]) / 2
        if len(middles) > _CUTS:
            levels = np.quantile(X[:, j], np.arange(1, _CUTS + 1) / (_CUTS + 1))
            middles = middles[np.unique(np.clip(np.searchsorted(middles, levels), 0, len(middles) - 1))]
        found += [Condition(int(j), above, float(t)) for t in middles for above in (True, False)]
    return found
