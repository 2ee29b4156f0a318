"""Whole processes: the command line beside a bare script that does the least possible."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Limit, Row, Section, at_most
from benchmarks.timing import Spread
from pellucid.media.samples import sample_path
from pellucid.models.embedded import checkpoint

_ENTRY = [sys.executable, "-c", "from pellucid.cli import run; run()"]  # what the `pellucid` script holds


def _command() -> list[str]:
    script = Path(sys.executable).parent / "pellucid"
    return [str(script)] if script.exists() else _ENTRY


def seconds(command: list[str], folder: str) -> tuple[float, float]:
    """Seconds on the wall, and of the processor."""
    start, used = time.perf_counter(), _children()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, _children() - used


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _row(what: str, values: Sequence[tuple[float, float]], unit: str, limit: Limit | None = None) -> Row:
    wall, cpu = zip(*values, strict=True)
    return Row(what, Spread.of(wall), unit, limit, Spread.of(cpu))


def processes(repeats: int) -> Section:
    """`pellucid --help`, and `pellucid explain` beside the bare script, in turns."""
    bare = [sys.executable, str(Path(__file__).with_name("bare_script.py")), str(checkpoint()), str(sample_path("cat"))]
    explain = [*_command(), "explain", "sample:cat", "--no-check"]
    with tempfile.TemporaryDirectory() as folder:
        for command in (bare, explain, [*_command(), "--help"]):
            seconds(command, folder)
        helped = [seconds([*_command(), "--help"], folder) for _ in range(repeats)]
        rounds = []
        for k in range(repeats):
            first, second = (bare, explain) if k % 2 == 0 else (explain, bare)
            a, b = seconds(first, folder), seconds(second, folder)
            rounds.append((a, b) if k % 2 == 0 else (b, a))
    theirs, ours = zip(*rounds, strict=True)
    ratios = [(o[0] / t[0], o[1] / t[1]) for t, o in rounds]
    rows = [
        _row("pellucid --help", helped, " s", at_most(0.3)),
        _row("pellucid explain sample:cat --no-check : bare script", ratios, " x", at_most(1.3)),
        _row("bare script", theirs, " s"),
        _row("pellucid explain sample:cat --no-check", ours, " s"),
    ]
    about = (
        "Whole processes, files already in the system's cache. The bare script imports torch, torchvision "
        "and timm, loads the same weights into the same network, prepares the picture, and runs one forward and one "
        "backward pass; it draws and writes nothing. `pellucid explain` also writes values, record and figure."
    )
    return Section("Whole processes", about, rows)
