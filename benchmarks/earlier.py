"""The suite that holds this build beside an earlier one: the calls of the suites for heat maps and perturbation.

Two processes are open, one for each build, and run each call in turns; processor time decides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import Row, Section, at_most
from benchmarks.runtime import BEFORE, COMMIT, earlier_source
from benchmarks.timing import Spread

GROUPS = (
    "cams ResNet-50", "cams ViT-B/16", "paths", "verbs", "samples", "tails", "overhead ResNet-50",
    "overhead ViT-B/16", "overhead narrow ViT", "tokens", "windows",
)  # fmt: skip
_LIMIT = 1.03
_LEAST, _MOST = 3, 25  # pairs of a call in a pair of processes
_SHORT = 1.0  # seconds of a call that is timed in several processes


@dataclass(frozen=True)
class Size:
    """Seconds of the processor for each call, both builds together, in all its pairs of processes."""

    seconds: float
    openings: int


FULL, QUICK = Size(60.0, 4), Size(6.0, 2)


class _Build:
    """A process of one build."""

    def __init__(self, tree: Path, cache: str) -> None:
        script = Path(__file__).with_name("earlier_job.py")
        path = os.pathsep.join([str(tree / "src"), str(tree)])
        self._process = subprocess.Popen(  # `-P`: the folder of the script is not searched for modules
            [sys.executable, "-P", str(script)],
            env=os.environ | {"PYTHONPATH": path, "PELLUCID_CACHE": cache},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        """The answer to a line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


Builds = tuple[_Build, _Build]
Pairs = list[list[dict[str, float]]]


def _pairs(builds: Builds, group: str, call: str, seconds: float) -> Pairs:
    """What a call takes before and now, in turns."""
    first = sum(build.ask(group=group, call=call, warmup=1)["cpu"] for build in builds)
    pairs = []
    for k in range(max(_LEAST, min(_MOST, int(seconds / first)))):
        order = builds if k % 2 else builds[::-1]
        taken = [build.ask(group=group, call=call, warmup=0) for build in order]
        pairs.append(taken if k % 2 else taken[::-1])
    return pairs


def _row(call: str, openings: Sequence[Pairs]) -> Row:
    pairs = [pair for opening in openings for pair in opening]
    wall, cpu = (Spread.of([now[clock] / before[clock] for before, now in pairs]) for clock in ("wall", "cpu"))
    least = [[min(pair[i]["cpu"] for pair in opening) for opening in openings] for i in (0, 1)]
    before, now = map(min, least)
    note = f"least: {now:.3g} s beside {before:.3g} s, {now / before:.3g} x"
    if len(openings) > 1:
        told = [f"{a:.3g} to {b:.3g} s" for a, b in ((min(each), max(each)) for each in least)]
        note += f"; of {len(openings)} processes {told[1]} beside {told[0]}"
    return Row(f"{call} : before", wall, limit=at_most(_LIMIT), cpu=cpu, note=note)


@contextmanager
def _opened() -> Iterator[Builds]:
    """A process of the earlier build and one of this, each with a cache of its own."""
    trees = earlier_source().parent, Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        builds = _Build(trees[0], one), _Build(trees[1], other)
        try:
            yield builds
        finally:
            for build in builds:
                build.close()


def _group(group: str, size: Size, _device: str) -> Iterator[Section]:
    taken: dict[str, list[Pairs]] = {}
    about = (
        f"This build beside that of commit {COMMIT} ({BEFORE} names its worktree), processor time, pairs in turns. A "
        "process finds its memory where it happens to lie, which alone changes a call by more than three in a hundred: "
        f"calls of less than {_SHORT:.0f} s are timed in {size.openings} processes of each build. The least of each is "
        "told beside."
    )
    for opening in range(size.openings):
        with _opened() as builds:
            calls, now = (build.ask(group=group, call=None) for build in builds)
            for call in calls:
                if call in now and (opening == 0 or taken[call][0][0][0]["cpu"] < _SHORT):
                    taken.setdefault(call, []).append(_pairs(builds, group, call, size.seconds / size.openings))
        yield Section(f"Beside the earlier build: {group}", about, [_row(call, pairs) for call, pairs in taken.items()])


TITLE = "Beside an earlier build"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    group.replace(" ", "-").replace("/", "-").lower(): partial(_group, group) for group in GROUPS
}
