"""`kill -9` at random moments of a batch: its workers, its driver, or both; then what is left is counted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pellucid as pl
from benchmarks.report import Section, at_most, single
from benchmarks.tiny import asked
from pellucid.keep.journal import Journal
from pellucid.runs.batch import BatchJob, retry_failed
from pellucid.runs.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent
PICTURES = (400, 1100)
"""Of a batch, in turn; the driver looks inputs up 1,024 at a time, so that the longer one takes two looks."""
_WHILE_LOADING = 0.3  # of the kills


def job(out: Path, folder: Path, pictures: int | None = None) -> BatchJob:
    """Grad-CAM of a folder, or of so many of its pictures."""
    manifest = Manifest.of([folder], pictures)
    return BatchJob.of(out, [asked()], manifest, entry="benchmarks.tiny:slow", path=str(ROOT))


@dataclass
class Tally:
    """What was killed, and what is wrong after it: all but the first should be empty.

    Attributes:
        killed: by whom: `worker`, `driver`, `both`; `loading`: of these, before the first row of that run.
        lost, twice: inputs without a row, or with several.
        changed: shards that were finished, and are gone or have other bytes.
        left: files of no finished shard after the resume.
        aside: inputs that were set aside, since a worker was killed at them twice; `retry-failed` made their rows.
        pictures: that have a row, of each batch.
    """

    killed: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    twice: int = 0
    changed: int = 0
    left: int = 0
    aside: int = 0
    batches: int = 0
    pictures: list[int] = field(default_factory=list)


def killed(home: Path, folder: Path, count: int, seed: int = 0, engine: str = "local") -> Tally:
    """Kill so often; each batch that its driver could finish is examined, and another begun.

    Args:
        home: where the batches are.
        folder: of as many pictures as the longest batch has.
        count: how often.
        seed: of the moments and the victims.
        engine: `local` or `ray`.
    """
    loading = 2.0 if engine == "local" else 20.0  # seconds, at the most, after which a kill falls early
    draw, found = random.Random(seed), Tally()
    with _drivers() as start:
        while sum(found.killed[v] for v in ("worker", "driver", "both")) < count:
            out, pictures = home / str(found.batches), PICTURES[found.batches % len(PICTURES)]
            whole: dict[str, str] = {}
            driver = None
            done = False
            while not done and sum(found.killed[v] for v in ("worker", "driver", "both")) < count:
                driver = (
                    driver if driver and _lives(driver) else start(out, folder, pictures, draw.choice([1, 2]), engine)
                )
                early = draw.random() < _WHILE_LOADING
                done = not _awaits(driver, out, 0 if early else len(_lines(out)) + 1)
                time.sleep(draw.random() * (loading if early else 0.8))
                if done or not _lives(driver):
                    done = _finished(out, pictures)
                    continue
                victim = draw.choice(["worker", "driver", "both"])
                workers = _workers(driver, engine)
                for pid in draw.sample(workers, min(1, len(workers))) if victim == "worker" else workers:
                    if victim != "driver":
                        _kill(pid)
                if victim != "worker":
                    _kill(driver)
                    _gone([driver, *workers])
                found.killed[victim] += 1
                found.killed["loading"] += early
                now = _digests(out)
                found.changed += sum(now.get(name) != digest for name, digest in whole.items())
                whole = now
            if driver and _lives(driver):
                _kill(driver)
                _gone([driver, *_workers(driver, engine)])
            _examine(job(out, folder, pictures), whole, found)
            found.batches += 1
    return found


def section(found: Tally, title: str) -> Section:
    """The table of it."""
    count = sum(found.killed[v] for v in ("worker", "driver", "both"))
    sizes = ", ".join(f"{n:,}" for n in found.pictures)
    who = ", ".join(f"{found.killed[v]} of {v}" for v in ("worker", "driver", "both"))
    rows = [
        single("kills", count, unit="", note=f"{who}; {found.killed['loading']} before a run's first row"),
        single("batches", found.batches, unit="", note=f"of {sizes} pictures, killed, resumed to the end"),
        single("inputs without a row", found.lost, unit="", limit=at_most(0)),
        single("rows that are there twice", found.twice, unit="", limit=at_most(0)),
        single("finished shards that are gone or have other bytes", found.changed, unit="", limit=at_most(0)),
        single("files that are no finished shard", found.left, unit="", limit=at_most(0)),
        single(
            "inputs set aside, of a worker killed twice at them", found.aside, unit="", note="`retry-failed` made them"
        ),
    ]
    about = "`kill -9` of one worker, of the driver, or of all at random moments, while they load and while they work."
    return Section(title, about, rows)


def _examine(batch: BatchJob, whole: dict[str, str], found: Tally) -> None:
    """Resume to the end, and count what is wrong."""
    out, made = batch.folder, batch.run()
    assert made.complete, made.line
    now = _digests(out)
    found.changed += sum(now.get(name) != digest for name, digest in whole.items())
    if made.set_aside:
        found.aside += retry_failed(out)
        made = batch.run()
    rows = pl.results(out).table(["id", "input", "status"]).to_pylist()
    times = Counter(row["input"] for row in rows if row["status"] == "done")
    found.lost += batch.manifest.count() - len(times)
    found.pictures.append(len(times))
    found.twice += len(rows) - len({row["id"] for row in rows}) + sum(n - 1 for n in times.values())
    journal = Journal(out)
    found.left += len({p.name for p in journal.shards.iterdir()} ^ {p.name for p in journal.paths()})


def _lines(out: Path) -> list[dict[str, object]]:
    return Journal(out).lines()


def _finished(out: Path, pictures: int) -> bool:
    return sum(int(str(line.get("inputs", 0))) for line in _lines(out)) >= pictures


def _digests(out: Path) -> dict[str, str]:
    """The bytes of each finished shard, by a hash."""
    journal = Journal(out)
    return {
        str(line["shard"]): hashlib.sha256((journal.shards / str(line["shard"])).read_bytes()).hexdigest()
        for line in journal.finished()
    }


def _awaits(driver: int, out: Path, lines: int) -> bool:
    """Wait until the journal has so many lines; False: the driver has ended before."""
    while len(_lines(out)) < lines:
        if not _lives(driver):
            return False
        time.sleep(0.02)
    return True


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _gone(pids: list[int]) -> None:
    """Wait until they have ended: a worker notices at its next word that its driver is gone."""
    while any(map(_lives, pids)):
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _workers(driver: int, engine: str) -> list[int]:
    """The workers of a driver, and what helps them; of Ray those that hold a model."""
    if engine == "local":
        return children(driver)
    return [pid for pid in descendants(driver) if "Explainer" in _called(pid)]


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def _called(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    """Of a process, by the system's own list of them."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found += [int(child) for child in thread.read_text().split()]
    return found


@contextmanager
def _drivers() -> Iterator[object]:
    """What starts drivers: forks of one process that has loaded everything, so that a start costs little."""
    command = [sys.executable, "-m", "benchmarks.kills"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None

        def start(out: Path, folder: Path, pictures: int, workers: int, engine: str) -> int:
            print(json.dumps([str(out), str(folder), pictures, workers, engine]), file=nursery.stdin, flush=True)
            return int(nursery.stdout.readline())

        try:
            yield start
        finally:
            nursery.stdin.close()


def _nursery() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        out, folder, pictures, workers, engine = json.loads(line)
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(2, 1)  # what it prints is no answer of the nursery
            try:
                extra = {"block": 16} if engine == "ray" else {}
                job(Path(out), Path(folder), pictures).run(workers, engine=engine, **extra)
            finally:
                os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    _nursery()
