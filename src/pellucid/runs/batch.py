"""`batch`: what was asked of a folder or manifest, done once for each input, kept in a folder, continued at will."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pellucid._version import __version__
from pellucid.errors import MediaError, PellucidError, StorageError
from pellucid.keep.files import write_text_durably
from pellucid.keep.journal import Journal
from pellucid.keep.key import Keys, KeySet, number
from pellucid.keep.shards import arrow, read_columns, write_shard
from pellucid.language import counted
from pellucid.progress import duration
from pellucid.runs.cluster import Cluster
from pellucid.runs.local import Chunk, Pool
from pellucid.runs.manifest import TWICE, Item, Manifest
from pellucid.runs.work import WorkOrder
from pellucid.verbs.request import Request

FORMAT = "pellucid-batch/1"
FIXED = ("format", "model", "weights", "requests", "precision", "redact")  # of a batch that goes on
_CHUNK, _SOON = 16, 10.0  # inputs of the first shard, and seconds that a shard shall take
_LARGEST = 512
_AT_ONCE = 1024  # inputs that are looked up together
_ALL_FAIL = 32  # rows: where the first so many all fail, something is wrong with the request


@dataclass
class Progress:
    """How far a batch is.

    Attributes:
        total: inputs; None: not counted.
        done, failed, set_aside: rows.
        inputs: finished, in this run and before.
        passes: forward and backward.
        seconds: of this run; `fresh`: inputs finished in it.
        repeated: inputs that a manifest names again, left out.
        notes: what a reader must know.
        error: what one of the failed rows says.
        running: whether a driver is at work.
    """

    total: int | None = None
    done: int = 0
    failed: int = 0
    set_aside: int = 0
    inputs: int = 0
    passes: int = 0
    bytes: int = 0
    shards: int = 0
    seconds: float = 0.0
    fresh: int = 0
    repeated: int = 0
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    running: bool = False

    def count(self, line: Mapping[str, Any]) -> None:
        """Take in a finished shard."""
        self.shards += 1
        self.failed += line.get("failed", 0)
        self.set_aside += line.get("set_aside", 0)
        self.done += line["rows"] - line.get("failed", 0)
        self.inputs += line.get("inputs", 0)
        self.passes += line.get("passes", 0)
        self.bytes += line["bytes"]
        self.error = line.get("error") or self.error

    @property
    def rate(self) -> float:
        """Inputs a second, of this run."""
        return self.fresh / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds; None where that is not known."""
        if self.total is None or not self.fresh:
            return None
        return max(self.total - self.inputs - self.repeated, 0) / self.rate

    @property
    def complete(self) -> bool:
        """Whether every input has its rows."""
        return self.total is not None and self.inputs + self.repeated >= self.total

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "inputs_a_second": round(self.rate, 3), "seconds_left": self.remaining} | {
            "complete": self.complete
        }

    @property
    def line(self) -> str:
        """In a line."""
        inputs = counted(self.inputs, "input")
        if self.total is not None:
            inputs = f"{self.inputs} of 1 input" if self.total == 1 else f"{self.inputs} of {self.total} inputs"
        text = f"{inputs}, {counted(self.done, 'row')} done, {self.failed} failed"
        if self.set_aside:
            text += f" ({self.set_aside} set aside)"
        if self.fresh:
            text += f", {self.rate:.1f} inputs/s" if self.rate >= 0.1 else f", {60 * self.rate:.1f} inputs/min"
        if self.running and self.remaining is not None:
            text += f", {duration(self.remaining)} left"
        size = self.bytes / max(self.done + self.failed, 1) / 1000
        return text + f", {counted(self.passes, 'pass')}, {size:.1f} kB a row"


@dataclass(frozen=True)
class BatchJob:
    """What is asked of which inputs, and where its rows are kept.

    Attributes:
        folder: where.
        manifest: of which inputs.
        plan: which model, which requests.
    """

    folder: Path
    manifest: Manifest
    plan: WorkOrder

    @classmethod
    def of(cls, folder: str | Path, requests: Sequence[Request], manifest: Manifest, **model: Any) -> BatchJob:
        """From requests.

        Args:
            folder, manifest: where, and of which inputs.
            requests: of each input.
            model: what `load` takes, or `entry` and `path` (see `WorkOrder`); `precision` and `redact`.

        Raises:
            StorageError: a request holds what is no data.
        """
        precision, redact = model.pop("precision", "float16"), model.pop("redact", None)
        asked = tuple(request.as_dict() for request in requests)
        said = {k: v for k, v in model.items() if v is not None}
        return cls(Path(folder), manifest, WorkOrder(said, asked, precision, redact))

    @classmethod
    def opened(cls, folder: str | Path) -> BatchJob:
        """The batch of a folder.

        Raises:
            StorageError: there is none.
        """
        about = Journal(folder).about()
        if about.get("format") != FORMAT:
            raise StorageError(f"{folder} holds no batch of this format ({FORMAT}).")
        plan = WorkOrder(about["model"], tuple(about["requests"]), about["precision"], about.get("redact"))
        return cls(Path(folder), _manifest(about), plan)

    def about(self, weights: str) -> dict[str, Any]:
        """What `batch.json` holds."""
        return {
            "format": FORMAT,
            "model": dict(self.plan.model),
            "weights": weights,
            "requests": [dict(r) for r in self.plan.requests],
            "precision": self.plan.precision,
            "redact": self.plan.redact,
            "inputs": list(self.manifest.given),
            "limit": self.manifest.limit,
            "root": self.manifest.root,
            "manifest": self.manifest.digest(),
            "version": __version__,
        }

    def run(
        self,
        workers: int = 1,
        tell: Callable[[Progress], None] = lambda progress: None,
        engine: str = "local",
        **cluster: Any,
    ) -> Progress:
        """Explain what has no row yet.

        Args:
            workers: processes.
            tell: is told now and then how far it is.
            engine: `local`, or `ray`: a cluster whose nodes share the folder.
            cluster: settings of `cluster.Cluster`.

        Returns:
            How far it came; not `complete` if it was stopped with Ctrl-C.

        Raises:
            PellucidError: another driver is at work, the folder is another request's, the model can't be loaded, the
                rows can't be written, or the first inputs all fail.
        """
        journal = Journal(self.folder)
        with journal.driving():
            journal.clean()
            run = _Run(self, journal, tell)
            if engine == "local" and not run.progress.shards:
                self.manifest.first_found()
            common: dict[str, Any] = {
                "count": workers,
                "threads": max(1, (os.cpu_count() or 1) // workers),
                "begun": run.begun,
                "done": run.done,
            }
            run.progress.running = True
            try:
                if engine == "ray":
                    Cluster(self.plan, journal.shards, **common, **cluster).run(run.chunks(), run.tick)
                else:
                    Pool(self.plan, journal.shards, **common, died=run.died, tries=run.tries).run(
                        run.chunks(), run.tick
                    )
            finally:
                run.progress.running = False
                run.tell(now=True)
            return run.progress


class _Run:
    """One run of a batch: what the driver knows."""

    def __init__(self, batch: BatchJob, journal: Journal, tell: Callable[[Progress], None]) -> None:
        self.batch, self.journal, self._tell = batch, journal, tell
        self.progress, self.known, self.tries = Progress(), Keys(), dict[int, int]()
        for line in journal.lines():
            if line.get("forgiven"):
                self.tries.clear()
            for key in line.get("died", ()):
                self.tries[int(key)] = self.tries.get(int(key), 0) + 1
        for line in journal.finished():
            self.progress.count(line)
        for table in read_columns(journal.paths(), ["key", "stamp"]):
            self.known.add(table.column("key").to_numpy(), table.column("stamp").to_numpy())
        self.progress.total = batch.manifest.count()
        self._size, self._begun, self._told, self._failing = _CHUNK, time.monotonic(), 0.0, 0
        self._given: dict[int, float] = {}

    def begun(self, weights: str) -> None:
        """The model is loaded: note what is asked, or refuse."""
        changed = self.journal.begin(self.batch.about(weights), fixed=FIXED)
        self.progress.notes += [f"Since the last run {sentence}." for sentence in changed]
        self._begun = time.monotonic()

    def chunks(self) -> Iterator[Chunk]:
        """Inputs without rows, a shard's worth at a time; each input once, however often it is named."""
        seen, ids, piece = KeySet(), KeySet(), list[Item]()
        items = iter(self.batch.manifest)
        while part := list(islice(items, _AT_ONCE)):
            keys = [item.key for item in part]
            first = set(np.unique(np.asarray(keys), return_index=True)[1].tolist())
            before = seen.holds(keys)
            seen.add(keys)
            fresh = [item for k, item in enumerate(part) if k in first and not before[k]]
            self.progress.repeated += len(part) - len(fresh)
            named = [number(item.given_id) for item in fresh if item.given_id is not None]
            if len(set(named)) < len(named) or ids.holds(named).any():
                raise MediaError(TWICE.format(", ".join(self.batch.manifest.given)))
            ids.add(named)
            stamped = [item.stamped() for item in fresh]
            known, stamps = self.known.find([item.key for item in stamped])
            stale = [i.key for i, k, s in zip(stamped, known, stamps, strict=True) if k and i.stamp and s != i.stamp]
            if stale:
                drop_rows(self.journal, stale)
                self.progress.inputs -= len(stale)
                self.progress.notes.append(f"{len(stale)} inputs have changed since their rows were made.")
            for item, k, s in zip(stamped, known, stamps, strict=True):
                if k and (s == item.stamp or not item.stamp):  # a file that is gone, or out of reach, keeps its rows
                    continue
                if item.key in self.tries:  # at which a worker died before: by itself, so that it takes nobody along
                    yield [item]
                    continue
                piece.append(item)
                if len(piece) >= self._size:
                    yield piece
                    piece = []
        if piece:
            yield piece

    def done(self, line: Mapping[str, Any]) -> None:
        """A shard lies safely on disk."""
        self.journal.append(line)
        self.progress.count(line)
        self.progress.fresh += line["inputs"]
        self._adapt()
        rows = self.progress.done + self.progress.failed
        if self._failing is not None and line["failed"] == line["rows"]:
            self._failing += line["rows"]
            if self._failing >= _ALL_FAIL and self._failing == rows:
                raise PellucidError(
                    f"The first {rows} rows all failed, so the rest is not tried. The last one says: {line['error']}"
                )
        self.tell()

    def died(self, keys: list[int]) -> None:
        """A worker died at one of these."""
        self.journal.append({"died": [str(key) for key in keys]})

    def tick(self) -> None:
        """Time passes."""
        self.tell()

    def tell(self, now: bool = False) -> None:
        """Say how far it is, every second; and keep it for `status`."""
        moment = time.monotonic()
        self.progress.seconds = moment - self._begun
        if now or moment - self._told > 1:
            self._told = moment
            if self.journal.exists:
                write_text_durably(self.journal.folder / "progress.json", json.dumps(self.progress.as_dict()))
            self._tell(self.progress)

    def _adapt(self) -> None:
        """Shards grow until one takes some seconds."""
        if self.progress.fresh and self.progress.rate:
            self._size = int(min(max(self.progress.rate * _SOON, _CHUNK), 2 * self._size, _LARGEST))


def _manifest(about: Mapping[str, Any]) -> Manifest:
    return Manifest(tuple(about["inputs"]), about["limit"], about.get("root"))


def status(folder: str | Path) -> Progress:
    """How far the batch of a folder is.

    Raises:
        StorageError: there is none.
    """
    journal = Journal(folder)
    about = journal.about()
    found = Progress()
    for line in journal.finished():
        found.count(line)
    try:
        last = json.loads((journal.folder / "progress.json").read_bytes())
    except (OSError, ValueError):
        last = {}
    found.running = journal.driven
    for name in ("total", "seconds", "fresh", "repeated", "notes"):
        setattr(found, name, last.get(name, getattr(found, name)))
    if found.total is None:
        found.total = _manifest(about).count()
    return found


def drop_rows(journal: Journal, keys: Sequence[int] | None = None) -> int:
    """Take back the rows of some inputs, or of all that failed, in one step for each shard that holds some.

    Returns:
        How many inputs.
    """
    pa, dropped = arrow(), set[int]()
    wanted = None if keys is None else pa.array(sorted(keys), pa.int64())
    for line, path in zip(journal.finished(), journal.paths(), strict=True):
        if keys is None and not line.get("failed"):
            continue
        table = pa.parquet.read_table(path)
        if wanted is None:
            bad = pa.compute.unique(table.filter(pa.compute.not_equal(table.column("status"), "done")).column("key"))
        else:
            bad = wanted
        mask = pa.compute.is_in(table.column("key"), value_set=bad)
        lost = table.filter(mask)
        if not lost.num_rows:
            continue
        dropped |= set(lost.column("key").to_pylist())
        rest = table.filter(pa.compute.invert(mask))
        _replace(journal, [path.name], rest)
    return len(dropped)


def merge(folder: str | Path, rows: int = 100_000) -> int:
    """Put small shards together into larger ones; how many files are left. What is read meanwhile is whole at any time.

    Raises:
        StorageError: another driver is at work, or a shard is damaged.
    """
    journal, pa = Journal(folder), arrow()
    journal.about()
    with journal.driving():
        journal.clean()
        group: list[Path] = []
        count = 0
        lines = journal.finished()
        for line, path in [*zip(lines, journal.paths(), strict=True), (None, None)]:
            if group and (line is None or count + line["rows"] > rows):
                if len(group) > 1:
                    tables = [pa.parquet.read_table(p) for p in group]
                    together = pa.concat_tables(tables, promote_options="default")  # of several versions
                    _replace(journal, [p.name for p in group], together)
                group, count = [], 0
            if line is not None and path is not None:
                group.append(path)
                count += line["rows"]
        journal.clean()
        return len(journal.finished())


def _replace(journal: Journal, names: list[str], table: Any) -> None:
    """Let a table stand for some shards; a crash leaves either them or it."""
    if not table.num_rows:
        journal.append({"drops": names})
        return
    status = table.column("status").to_pylist()
    line = write_shard(journal.shards, f"merged-{os.urandom(8).hex()}.parquet", table)
    passes = sum(v or 0 for name in ("forwards", "backwards") for v in table.column(name).to_pylist())
    failed, aside = sum(s != "done" for s in status), sum(s == "quarantined" for s in status)
    inputs = arrow().compute.count_distinct(table.column("key")).as_py()
    errors = [error for error in table.column("error").to_pylist() if error]
    journal.append(
        line
        | {"drops": names, "failed": failed, "set_aside": aside, "passes": round(passes), "inputs": inputs}
        | {"error": errors[0] if errors else None}
    )


def retry_failed(folder: str | Path) -> int:
    """Take back the rows that failed, so that the next run makes them again; how many inputs.

    Raises:
        StorageError: another driver is at work.
    """
    journal = Journal(folder)
    journal.about()
    with journal.driving():
        journal.clean()
        count = drop_rows(journal)
        journal.append({"forgiven": True})
        return count
