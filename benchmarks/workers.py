"""Two workers beside one: pictures a second of both, on the clock and of the processors, once all of them work."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.folder import photographs
from benchmarks.report import Row, Section, at_least, single
from benchmarks.timing import Spread
from benchmarks.tiny import asked
from pellucid.runs.local import Pool
from pellucid.runs.manifest import Item
from pellucid.runs.work import WorkOrder

_SHARD = 16
_FROM, _TO = 0.3, 0.95  # of the pictures: all workers have loaded, and none has run out of work


@dataclass(frozen=True)
class Pace:
    """Pictures a second, on the clock and of the workers' processor time."""

    wall: float
    processor: float


def pace(files: list[str], folder: Path, workers: int) -> Pace:
    """Grad-CAM of the files, one thread a worker."""
    seen: list[tuple[int, float, float]] = []

    def done(line: Mapping[str, Any]) -> None:
        before = seen[-1][0] if seen else 0
        seen.append((before + line["inputs"], time.perf_counter(), _spent()))

    order = WorkOrder({"name": "efficientnet-lite0", "device": "cpu"}, (asked().as_dict(),))
    chunks = iter([[Item(f) for f in files[k : k + _SHARD]] for k in range(0, len(files), _SHARD)])
    nothing: Callable[[Any], None] = lambda given: None  # noqa: E731
    Pool(order, folder, workers, 1, nothing, done, nothing).run(chunks)
    part = [moment for moment in seen if _FROM * len(files) <= moment[0] <= _TO * len(files)]
    (first, begun, spent), (last, ended, in_all) = part[0], part[-1]
    return Pace((last - first) / (ended - begun), (last - first) / (in_all - spent))


def _spent() -> float:
    """Processor seconds of this process's children that live."""
    ticks = 0
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        values = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def scaling(pictures: int, rounds: int) -> list[Section]:
    """One worker and two, in turns."""
    with tempfile.TemporaryDirectory() as home:
        files = [str(f) for f in sorted(Path(photographs(pictures, home)).glob("*.jpg"))]
        found = [(pace(files, Path(home, f"{k}a"), 1), pace(files, Path(home, f"{k}b"), 2)) for k in range(rounds)]
    load = os.getloadavg()[0]
    rows = [
        Row(
            "2 workers : 1 worker, pictures a second on the clock",
            Spread.of([two.wall / one.wall for one, two in found]),
            limit=at_least(1.85),
            note=f"with a load of {load:.1f} on {os.cpu_count()} cores, which other work shares",
        ),
        Row(
            "projected: each with a core to itself",
            Spread.of([2 * two.processor / one.processor for one, two in found]),
            note="twice the pictures a second of processor time; supposes that no worker waits",
        ),
        single(
            "1 worker",
            statistics.median(one.processor for one, _ in found),
            unit=" a second",
            note="of processor time",
        ),
    ]
    about = f"Grad-CAM of {pictures} pictures by the embedded EfficientNet-Lite0, one thread a worker."
    return [Section("Batch: two workers beside one", about, rows)]
