"""Two workers beside one: pictures a second of both, on the clock and of the processors, once all of them work."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.folder import photographs
from benchmarks.kills import descendants
from benchmarks.report import Row, Section, at_least, single
from benchmarks.timing import Spread
from benchmarks.tiny import asked
from pellucid.runs.cluster import Cluster
from pellucid.runs.local import Pool
from pellucid.runs.manifest import Item
from pellucid.runs.work import WorkOrder

_SHARD = 16
_FROM, _TO = 0.3, 0.95  # of the pictures: all workers have loaded, and none has run out of work


@dataclass(frozen=True)
class Pace:
    """Pictures a second, on the clock and of the processor time of driver, workers and what runs beside them.

    Attributes:
        wall, processor: so.
        unhindered: on the clock, less what the workers' main threads stood ready and waited for a processor.
    """

    wall: float
    processor: float
    unhindered: float


def pace(files: list[str], folder: Path, workers: int, engine: str = "local") -> Pace:
    """Grad-CAM of the files, one thread a worker; the shards in `folder`."""
    seen: list[tuple[int, float, float, float]] = []

    def done(line: Mapping[str, Any]) -> None:
        before = seen[-1][0] if seen else 0
        seen.append((before + line["inputs"], time.perf_counter(), _spent(), _stood()))

    order = WorkOrder({"name": "efficientnet-lite0", "device": "cpu"}, (asked().as_dict(),))
    chunks = iter([[Item(f) for f in files[k : k + _SHARD]] for k in range(0, len(files), _SHARD)])
    nothing: Callable[[Any], None] = lambda given: None  # noqa: E731
    if engine == "ray":
        Cluster(order, folder, workers, 1, nothing, done, block=_SHARD).run(chunks)
    else:
        Pool(order, folder, workers, 1, nothing, done, nothing).run(chunks)
    part = [moment for moment in seen if _FROM * len(files) <= moment[0] <= _TO * len(files)]
    (first, begun, spent, stood), (last, ended, in_all, at_last) = part[0], part[-1]
    free = ended - begun - (at_last - stood) / workers
    return Pace(*((last - first) / seconds for seconds in (ended - begun, in_all - spent, free)))


def _spent() -> float:
    """Processor seconds of this process and of those below it that live."""
    ticks = 0
    for pid in descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(values[11]) + int(values[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _stood() -> float:
    """Seconds that the main threads below this process stood ready and waited for a processor."""
    waited = 0
    for pid in descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):
            waited += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    return waited / 1e9


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
            "the same, less the time that workers stood ready without a processor",
            Spread.of([two.unhindered / one.unhindered for one, two in found]),
            limit=at_least(1.85),
            note="what other work takes of the clock is left out, waiting of any other kind is not",
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
    about = (
        f"Grad-CAM of {pictures} pictures by the embedded EfficientNet-Lite0, one thread a worker. Linux shares a busy "
        "machine among sessions, so on the clock two workers of one session get no more of it than one."
    )
    return [Section("Batch: two workers beside one", about, rows)]
