"""The suite that holds this build beside an earlier one: the calls of the suites for heat maps and perturbation.

Two processes stay open, one for each build, and run each call in turns; processor time decides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import Row, Section, at_most
from benchmarks.runtime import BEFORE, COMMIT, earlier_source
from benchmarks.timing import Spread

GROUPS = (
    "cams ResNet-50", "cams ViT-B/16", "paths", "verbs", "samples", "tails", "overhead ResNet-50",
    "overhead ViT-B/16", "tokens", "windows",
)  # fmt: skip
_LIMIT = 1.03
_LEAST, _MOST = 3, 25  # pairs of a call


@dataclass(frozen=True)
class Size:
    """Seconds of the processor for each call, both builds together."""

    seconds: float


FULL, QUICK = Size(60.0), Size(3.0)


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


def _row(builds: tuple[_Build, _Build], group: str, call: str, seconds: float) -> Row:
    first = sum(build.ask(group=group, call=call, warmup=1)["cpu"] for build in builds)
    pairs = []
    for k in range(max(_LEAST, min(_MOST, int(seconds / first)))):
        order = builds if k % 2 else builds[::-1]
        taken = [build.ask(group=group, call=call, warmup=0) for build in order]
        pairs.append(taken if k % 2 else taken[::-1])
    wall, cpu = (Spread.of([now[clock] / before[clock] for before, now in pairs]) for clock in ("wall", "cpu"))
    least = [min(each[i]["cpu"] for each in pairs) for i in (0, 1)]
    note = f"least: {least[1]:.3g} s beside {least[0]:.3g} s, {least[1] / least[0]:.3g} x"
    return Row(f"{call} : before", wall, limit=at_most(_LIMIT), cpu=cpu, note=note)


def _group(group: str, size: Size, _device: str) -> Iterator[Section]:
    trees = earlier_source().parent, Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        builds = _Build(trees[0], one), _Build(trees[1], other)
        try:
            calls, now = (build.ask(group=group, call=None) for build in builds)
            rows = [_row(builds, group, call, size.seconds) for call in calls if call in now]
        finally:
            for build in builds:
                build.close()
    about = (
        f"This build beside that of commit {COMMIT} ({BEFORE} names its worktree), processor time, pairs in turns. The "
        "least of each is told beside: of calls of a fraction of a second, what the allocator does with a heap of "
        "another size changes more than three in a hundred."
    )
    yield Section(f"Beside the earlier build: {group}", about, rows)


TITLE = "Beside an earlier build"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    group.replace(" ", "-").replace("/", "-").lower(): partial(_group, group) for group in GROUPS
}
