"""Figures with their targets, as a table on the terminal, as JSON and as Markdown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.timing import Spread

_HOW = """\
Every figure comes with the target it was meant to reach, and says when it does not. Timings are ratios: what is
compared runs in turns in one process, round after round, each round starting with another contestant; the ratio is
taken within each round, and the table gives the median with the quartiles of all rounds in brackets. *Processor* is
the same ratio of processor time, of all threads together, which other work on the machine disturbs far less than the
wall clock; on a shared machine it is the fairer of the two, and it decides where both are given. Where the wall clock
would decide otherwise, the table says so. One thread is the default, because threads that wait for a busy core spin.
Garbage collection is off while the clock runs, and every contestant has run before it counts. Rivals are built and
called as their own documentation says, at the same layer, for the same classes, on the same batch and weights; they
keep their default batch sizes, unless a table says otherwise.

Run it again with

```console
pip install -e ".[dev,bench]"
python -m benchmarks heatmaps --markdown docs/benchmarks.md   # about twenty minutes
python -m benchmarks perturbation --markdown docs/benchmarks.md   # about an hour
python -m benchmarks perturbation cams samples --quick            # some sections, less work, fewer rounds
python -m benchmarks features --markdown docs/benchmarks.md         # about a quarter of an hour
python -m benchmarks video --markdown docs/benchmarks.md            # about ten minutes
python -m benchmarks interpretable --markdown docs/benchmarks.md    # about ten minutes
python -m benchmarks trust --rows rows.jsonl --markdown docs/benchmarks.md      # about an hour; goes on from the file
python -m benchmarks audit --markdown docs/benchmarks.md            # about ten minutes
python -m benchmarks batch --markdown docs/benchmarks.md            # about twenty minutes
python -m benchmarks runtime --markdown docs/benchmarks.md          # about an hour; PELLUCID_BEFORE as it says
python -m benchmarks earlier --markdown docs/benchmarks.md          # about an hour; PELLUCID_BEFORE as it says
python -m benchmarks studio --markdown docs/benchmarks.md           # about five minutes
python -m benchmarks tasks --quick --markdown docs/benchmarks.md    # about half an hour
python -m benchmarks medical --markdown docs/benchmarks.md          # about half an hour
```

`PELLUCID_DATA` names a folder of labelled pictures and weights; without one the pointing game is left out, and other
sections take random weights and crops of the samples.
"""


@dataclass(frozen=True)
class Limit:
    """What a figure should be."""

    value: float
    sense: str  # "at most" or "at least"

    def reached(self, measured: float) -> bool:
        """Whether `measured` is on the right side."""
        return measured <= self.value if self.sense == "at most" else measured >= self.value

    def text(self, unit: str) -> str:
        """In words."""
        return f"{self.sense} {_number(self.value)}{unit}"


def at_most(value: float) -> Limit:
    """An upper limit."""
    return Limit(value, "at most")


def at_least(value: float) -> Limit:
    """A lower limit."""
    return Limit(value, "at least")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: in a few words.
        spread: the median and its quartiles, of `repeats` measurements.
        unit: with its leading space, such as ` x` or ` s`.
        limit: its target, or None for the record.
        cpu: the same ratio in processor time.
        note: what the reader must know.
    """

    what: str
    spread: Spread
    unit: str = " x"
    limit: Limit | None = None
    cpu: Spread | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """None without a target; processor time decides where it was taken."""
        return None if self.limit is None else self.limit.reached((self.cpu or self.spread).median)

    @property
    def verdict(self) -> str:
        """`reached` in words, and whether the wall clock says otherwise."""
        if self.limit is None:
            return ""
        word = "yes" if self.reached else "NO"
        wall = self.limit.reached(self.spread.median)
        return word if wall == self.reached else f"{word} (wall: {'yes' if wall else 'NO'})"

    def cells(self) -> tuple[str, ...]:
        """Text of each column of the table."""
        return (
            self.what,
            _spread(self.spread, self.unit),
            _spread(self.cpu, self.unit) if self.cpu else "",
            self.limit.text(self.unit) if self.limit else "",
            self.verdict,
            self.note,
        )


def single(what: str, value: float, unit: str = " x", limit: Limit | None = None, note: str = "") -> Row:
    """A row of one measurement."""
    return Row(what, Spread(value, value, value, 1), unit, limit, note=note)


@dataclass
class Section:
    """Rows under a title; `about` says what was measured, `skipped` why nothing was."""

    title: str
    about: str
    rows: list[Row] = field(default_factory=list)
    skipped: str = ""


COLUMNS = ("", "measured, wall", "processor", "target", "reached", "note")


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _spread(s: Spread, unit: str) -> str:
    if not math.isfinite(s.median):
        return "none"
    text = f"{_number(s.median)}{unit}"
    return text if s.repeats == 1 else f"{text} [{_number(s.low)}-{_number(s.high)}, n={s.repeats}]"


def show(section: Section) -> None:
    """One section on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 200)
    table = Table(*COLUMNS, title=section.title, title_justify="left", title_style="bold")
    for row in section.rows:
        table.add_row(*row.cells(), style="red" if row.reached is False else None)
    console.print(table if section.rows else f"{section.title}: left out, {section.skipped}")


def to_json(facts: dict[str, str], sections: Sequence[Section]) -> str:
    """Everything, for machines."""
    data: dict[str, Any] = {"format": "pellucid-benchmarks/1", "machine": facts}
    data["sections"] = [asdict(s) for s in sections]
    for section, plain in zip(sections, data["sections"], strict=True):
        for row, entry in zip(section.rows, plain["rows"], strict=True):
            entry["reached"], entry["verdict"] = row.reached, row.verdict
    return json.dumps(data, indent=2) + "\n"


def to_markdown(page: str, suite: str, title: str, facts: dict[str, str], sections: Sequence[Section], how: str) -> str:
    """A page with a suite's tables in place of those it had; what was not measured this time stays.

    Args:
        page: the text so far; empty for a new page.
        suite: its name, which marks its part of the page.
        title: heading of that part.
        facts: about the machine.
        sections: measured now.
        how: the command.
    """
    page = page or f"# Benchmarks\n\nWhat Pellucid costs, and what it costs beside others.\n\n{_HOW}"
    begin, end = f"<!-- {suite} -->\n", f"<!-- end of {suite} -->\n"
    before, _, rest = page.partition(begin)
    old, _, after = rest.partition(end)
    tables = dict(_SECTION.findall(old)) | {s.title: _table(s) for s in sections}
    tables.pop(_MACHINE, None)
    body = "".join(f"### {name}\n\n{text.strip()}\n\n" for name, text in tables.items())
    verdicts = _VERDICT.findall(body)
    reached = sum(word == "yes" for *_, word in verdicts)
    lines = [
        f"## {title}",
        "",
        f"**{reached} of {len(verdicts)} targets are reached**" + ":."[reached == len(verdicts)],
    ]
    lines += [""] * (reached < len(verdicts))
    lines += [f"- missed: {what}: {cpu or wall}, target {to}" for what, wall, cpu, to, word in verdicts if word == "NO"]
    lines += ["", f"### {_MACHINE}", "", *[f"- {name}: {value}" for name, value in facts.items()]]
    lines += [f"- command: `{how}`" + " (the other tables: earlier runs)" * (len(tables) > len(sections)), "", ""]
    return before.rstrip() + "\n\n" + begin + "\n".join(lines) + body.rstrip() + "\n\n" + end + after


_MACHINE = "The machine"
_SECTION = re.compile(r"^### ([^\n]+)\n(.*?)(?=^### |\Z)", re.M | re.S)
_VERDICT = re.compile(r"^\| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (yes|NO)\b", re.M)


def _table(section: Section) -> str:
    """What a section measured, or why it did not."""
    if not section.rows:
        return f"Left out: {section.skipped}"
    return "\n".join(
        [section.about, "", _line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, map(Row.cells, section.rows))]
    )


def update(path: str, suite: str, title: str, facts: dict[str, str], sections: Sequence[Section], command: str) -> None:
    """Put tables into a page on disk."""
    file = Path(path)
    page = file.read_text(encoding="utf-8") if file.is_file() else ""
    write(path, to_markdown(page, suite, title, facts, sections, command))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def write(path: str, text: str) -> None:
    """Write a report, making its folder."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
