"""What a method says that it costs, in words, as numbers of passes: the most that it takes for one map."""

from __future__ import annotations

import re

from pellucid.heatmaps import Method

_FACTOR = re.compile(r"\ban? (?:[a-z]+ )?\((?:some \d+ to )?(\d+)\)")  # "a layer (3)", "a reference (8)"
_WORD = re.compile(r"[a-z_]+|\d+|,")
_NUMBERS = {"a": 1, "an": 1, "two": 2}
_CLAUSES = re.compile(r",|\s\+\sup\sto\s")
_UNCOUNTED = re.compile(r"and\s(the\sforwards\sof|two\ssmall|the\srecurrent)[^,]*|;.*")


def passes(method: type[Method]) -> tuple[int, int]:
    """`(forwards, backwards)` of one map, at the most; passes up to a layer or from it count as whole ones.

    Numbers in front of a pass are multiplied, a setting by its default; "forwards and backwards" share theirs, and what
    stands "a layer (3)" or "each" behind them counts that often. What the rules of a method run inside is not counted.
    """
    counts, number = {"forward": 0, "backward": 0}, 1
    words = _UNCOUNTED.sub("", method.cost).replace("as many", "as-many")
    for clause in _CLAUSES.split(words):
        times, said = counts["forward"] if clause.endswith(" each") else 1, clause
        for factor in _FACTOR.findall(clause):
            times *= int(factor)
        said = re.sub(r"[a-z_]+ \((\d+)\)", r"\1", _FACTOR.sub("", said))
        before, number, fresh = dict(counts), 1 if "as-many" not in clause else number, True
        for word in _WORD.findall(said):
            value = int(word) if word.isdigit() else _NUMBERS.get(word, _default(method, word))
            if value is not None:
                number, fresh = value if fresh else number * value, False
            elif word.rstrip("s") in counts:
                counts[word.rstrip("s")] += number
                fresh = True
        for kind, now in counts.items():
            counts[kind] = before[kind] + (now - before[kind]) * times
    return counts["forward"], counts["backward"]


def _default(method: type[Method], setting: str) -> int | None:
    found = getattr(method, setting, None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
