"""What a method says that it costs, in words, read as numbers of passes: what is planned, and the most for one map.

A sentence is a list of clauses (`8 forwards + tail backwards, and 2 forwards`). Numbers in front of a pass are
multiplied, a setting by its value. What stands behind it counts that often: `a reference (8)` all that its clause says,
`a channel` the pass in front of it, `each` the forwards so far. What the rules of a method run inside is not counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.heatmaps import Method

TAIL = 0.25  # of a pass: from the layer that is explained to the answer, or back
_COUNT = re.compile(r"(?:up\sto\s|some\s)?(\d+)\b")
_UNIT = re.compile(r"\ban? (channel|cell|window|segment|sample|order)\b")
_FACTOR = re.compile(r"\ban? ([a-z]+) \((\d+)\)")
_SETTING = re.compile(r"([a-z_]+) \((\d+)\)")
_BOTH = re.compile(r"(\d+) forwards? and (\d+) backwards?")
_CLAUSES = re.compile(r",\sand\s|,\s|\sand\sup\sto\s")
_UNCOUNTED = re.compile(r",?\sand\s(the\sforwards\sof|two\ssmall|the\srecurrent)[^,]*|;.*")


@dataclass(frozen=True)
class PlannedPasses:
    """How many passes are planned for one input and target: means and upper ends, no promise."""

    forwards: float
    backwards: float


def planned(method: Method, costs: Mapping[str, str], sizes: Mapping[str, int]) -> PlannedPasses:
    """The passes of a method as it is set.

    Args:
        method: with its settings.
        costs: of all methods by name, since some cost what another does.
        sizes: how many there are of what is gone through one by one: `channel`, `cell`, `window`, `segment`.
    """
    return _Reader(method, costs, sizes).read(method.cost)


def passes(method: type[Method]) -> tuple[int, int]:
    """`(forwards, backwards)` of one map, at the most; passes up to a layer or from it count as whole ones."""
    from pellucid.heatmaps import METHODS

    found = _Reader(method, {name: m.cost for name, m in METHODS.items()}, {}, tail=1.0, most=True).read(method.cost)
    return math.ceil(found.forwards), math.ceil(found.backwards)


@dataclass(frozen=True)
class _Reader:
    """Reads sentences for a method, whose settings stand in them by name."""

    method: Method | type[Method]
    costs: Mapping[str, str]
    sizes: Mapping[str, int]
    tail: float = TAIL
    most: bool = False

    def read(self, cost: str) -> PlannedPasses:
        """All passes of a sentence."""
        other = next((n for n in self.costs if re.match(rf"(as )?{n}\b".replace("-", " "), cost)), None)
        if other is not None:
            same, times = self.read(self.costs[other]), max(1, cost.count(" from "))
            return PlannedPasses(times * same.forwards, times * same.backwards)
        if "2^K" in cost:
            return PlannedPasses(float(self._setting("max_evaluations") or 2**12), 0.0)
        total = re.search(r"\b(\d+) for \d", cost)  # "2112 for 32 rows of 8 x 8 cells"
        if total:
            return PlannedPasses(float(total[1]), 0.0)
        usual = re.search(r"some (\d+) to (\d+)", cost.partition(";")[0] if self.most else cost)
        if usual:
            low, high = map(int, usual.groups())
            each = _COUNT.match(cost)
            return PlannedPasses((int(each[1]) if each else 1) * (high if self.most else (low + high) / 2), 0.0)
        forwards, backwards, before = 0.0, 0.0, 1.0
        for clause in _CLAUSES.split(_UNCOUNTED.sub("", cost)):
            behind = _FACTOR.findall(clause)
            times = math.prod(self._setting(word) or self._setting(f"{word}s") or int(n) for word, n in behind)
            each_forward = forwards if clause.endswith(" each") else 1.0
            for term in _FACTOR.sub("", clause).split(" + "):
                before = self._count(term, before)
                count, way = before * times * each_forward, self.tail if "tail" in term else 1.0
                both = _BOTH.search(term)
                if "backward" in term:
                    backwards += count * way * (int(both[2]) / int(both[1]) if both else 1)
                if "forward" in term or "backward" not in term:
                    forwards += count * (1.0 if "forward" in term else way)
        return PlannedPasses(forwards, backwards)

    def _count(self, term: str, before: float) -> float:
        """How often a term says: all its numbers multiplied; as often as the last thing where it has none."""
        first, unit = _COUNT.match(term), _UNIT.search(term)
        rest = _UNIT.sub("", term)
        found = [self._setting(word) or int(n) for word, n in _SETTING.findall(rest)]
        if first:
            found.append(int(first[1]))
        if unit:
            found.append(self.sizes.get(unit[1]) or self._setting(f"{unit[1]}s") or 1)
        if not re.search(r"\(\d+\)", rest):
            found += [self._setting(word) or 1 for word in re.findall(r"[a-z_]+", rest)]
        told = first or re.search(r"\(\d+\)|\b(forward|backward)\b", rest) or math.prod(found) > 1
        return float(math.prod(found)) if told else before

    def _setting(self, name: str) -> int:
        """A whole number that the method is set to, or 0."""
        return whole(getattr(self.method, name, None))


def whole(value: Any) -> int:
    """A whole number, or 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
