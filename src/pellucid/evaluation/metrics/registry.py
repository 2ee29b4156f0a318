"""A metric: a number for each sample, read from what a bank has answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pellucid.errors import MethodError
from pellucid.evaluation.banks.base import AnswerBank
from pellucid.registry import Registry

CATEGORIES = ("faithfulness", "localisation", "robustness", "randomisation", "axioms", "complexity")

Category = Literal["faithfulness", "localisation", "robustness", "randomisation", "axioms", "complexity"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class MetricFacts:
    """What a reader of values needs to know of a metric.

    Attributes:
        name: on the command line and in tables.
        category: what kind of virtue it speaks of.
        better: which direction is good.
        paper: where it is defined.
        about: the definition in a line.
        traps: what to know before believing it; empty where nothing is known.
    """

    name: str
    category: Category
    better: Better
    paper: str
    about: str = ""
    traps: str = ""


@dataclass(frozen=True, kw_only=True)
class Metric(MetricFacts):
    """What is measured of a map on one sample.

    Attributes:
        bank: what it reads its value from.
        measure: from the bank's answer to the value; NaN where it is not defined there.
        usual: whether it is measured where nothing else is asked for.
        clips: whether it is of clips alone.
    """

    bank: AnswerBank
    measure: Callable[[Any], float]
    usual: bool = False
    clips: bool = False

    @property
    def facts(self) -> MetricFacts:
        """Without the means to measure it."""
        return MetricFacts(self.name, self.category, self.better, self.paper, self.about, self.traps)

    def on(self, baseline: str) -> Metric:
        """This metric on a baseline, where it leaves that open."""
        return self if self.bank.baseline else replace(self, bank=replace(self.bank, baseline=baseline))


METRICS: Registry[Metric] = Registry("metric", listing=True)
"""Metrics by name, in the order of their categories."""


def metric(
    name: str,
    category: Category,
    better: Better,
    bank: AnswerBank,
    *,
    paper: str,
    traps: str = "",
    usual: bool = False,
    clips: bool = False,
) -> Callable[[Callable[[Any], float]], Callable[[Any], float]]:
    """Enter a function of a bank's answer as a metric; the first line of its docstring is its definition."""

    def enter(measure: Callable[[Any], float]) -> Callable[[Any], float]:
        about = (measure.__doc__ or "").strip().splitlines()[0] if measure.__doc__ else ""
        how: dict[str, Any] = {"bank": bank, "measure": measure, "usual": usual, "clips": clips}
        METRICS[name] = Metric(name, category, better, paper, about, traps, **how)
        return measure

    return enter


def as_metrics(
    given: str | Metric | Iterable[str | Metric],
    *,
    masks: bool = False,
    clips: bool = False,
    oracle: bool = False,
    parts: bool = False,
) -> list[Metric]:
    """Metrics by name or category, `default`, `all`, as objects, or a mixture; each once.

    Args:
        given: texts may hold several, with commas.
        masks: whether the truth is known, so that `default` and `all` mean localisation too.
        clips: whether inputs are clips, so that groups hold what is of clips alone too.
        oracle: whether the oracle of a suite is among the methods, so that groups hold what compares maps with it.
        parts: whether it is the oracle of scenes, so that groups hold what is read from parts.

    Raises:
        MethodError: there is no such metric.
    """
    items: Sequence[str | Metric] = [given] if isinstance(given, str | Metric) else list(given)
    found: dict[str, Metric] = {}
    for item in items:
        if isinstance(item, Metric):
            found[item.name] = item
            continue
        for word in (w.strip() for w in item.split(",")):
            found |= {m.name: m for m in _named(word, masks, clips, oracle, parts)}
    if not found:
        raise MethodError("There is no metric: name one, such as srg.")
    return sorted(found.values(), key=lambda m: CATEGORIES.index(m.category))


def _named(word: str, masks: bool, clips: bool, oracle: bool, parts: bool) -> list[Metric]:
    able = [m for m in METRICS.values() if (clips or not m.clips) and (oracle or not m.bank.oracle)]
    able = [m for m in able if parts or not m.bank.parts]
    if word == "default":
        return [m for m in able if m.usual and (masks or m.category != "localisation")]
    if word == "all":
        return [m for m in able if masks or m.category != "localisation"]
    if word in CATEGORIES:
        return [m for m in able if m.category == word]
    return [METRICS.find(word)]
