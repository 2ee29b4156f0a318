"""The engine of one machine: a driver that hands out inputs, and processes that explain them and write shards.

A worker tells the driver which inputs the model is about to see. When it dies, those are tried again one by one, and
one at which a worker dies twice is set aside with a row that says so. The driver alone writes the journal; a worker
whose driver is gone ends at its next word.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from pellucid.engine.heap import keep_freed_memory
from pellucid.errors import ModelError, PellucidError, StorageError
from pellucid.keep.shards import table_of, write_shard
from pellucid.results.rows import COLUMNS
from pellucid.runs.manifest import Item
from pellucid.runs.work import FAILED, QUARANTINED, Row, Work, WorkOrder

TRIES = 2  # how often a worker may die at an input
_QUIET = 0.25  # seconds without news after which the driver looks about

Chunk = list[Item]


def work_forever(pipe: Connection, plan: WorkOrder, folder: Path, threads: int) -> None:
    """A worker's life: load the model, then rows for each chunk that comes, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides
    import torch

    keep_freed_memory()
    torch.set_num_threads(threads)
    try:
        work = Work(plan)
    except Exception as error:
        pipe.send(("broken", _said(error)))
        return
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(("ready", work.weights))
        while (given := pipe.recv()) is not None:
            kind, chunk = given
            if kind == "set aside":
                rows = work.failed(chunk[0], _DIED.format(TRIES), QUARANTINED)
            else:
                rows = work.rows(chunk, lambda items: pipe.send(("at", [i.key for i in items])), pipe.poll)
            try:
                line = written(folder, rows) if rows else None
            except PellucidError as error:
                pipe.send(("unwritable", str(error)))
                return
            pipe.send(("done", line))


_DIED = "The process that explained it died {} times at this input; the others went on without it."


def written(folder: Path, rows: list[Row]) -> dict[str, Any]:
    """Write rows as a shard; its line for the journal, with counts."""
    line = write_shard(folder, f"part-{secrets.token_hex(8)}.parquet", table_of(rows, COLUMNS))
    failed = [row for row in rows if row["status"] != "done"]
    passes = sum((row.get("forwards") or 0) + (row.get("backwards") or 0) for row in rows)
    inputs = len({row["key"] for row in rows})
    return line | {
        "inputs": inputs,
        "failed": len(failed),
        "set_aside": sum(row["status"] == QUARANTINED for row in rows),
        "passes": round(passes),
        "keys": [str(row["key"]) for row in failed[:1]],
        "error": failed[0]["error"] if failed else None,
    }


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, PellucidError) else f"unexpected {type(error).__name__}: {error}"


@dataclass
class Worker:
    """A process as the driver sees it."""

    process: Any
    pipe: Connection
    weights: str | None = None
    chunk: Chunk | None = None
    at: frozenset[int] = frozenset()

    @property
    def loading(self) -> bool:
        """Whether it has not yet told its model's fingerprint."""
        return self.weights is None


@dataclass
class Pool:
    """Processes, and what is to be done by them.

    Attributes:
        plan, folder, count, threads: see `work_forever`.
        begun: is told the model's fingerprint before the first work is given out.
        done: is told the line of each finished shard.
        died: is told the keys of inputs at which a worker died.
        tries: how often one died at an input before, in earlier runs too.
    """

    plan: WorkOrder
    folder: Path
    count: int
    threads: int
    begun: Callable[[str], None]
    done: Callable[[Mapping[str, Any]], None]
    died: Callable[[list[int]], None]
    tries: dict[int, int] = field(default_factory=dict)
    _workers: list[Worker] = field(default_factory=list)
    _again: deque[tuple[str, Chunk]] = field(default_factory=deque)
    _begun: bool = False
    _lost: int = 0
    _stops: int = 0

    def run(self, chunks: Iterator[Chunk], tick: Callable[[], None] = lambda: None) -> bool:
        """Explain all chunks; False: it was stopped, and what was finished is kept.

        Raises:
            PellucidError: the model can't be loaded, or the rows can't be written.
        """
        given = self._given(chunks)
        waiting = next(given, None)
        with self._interruptible():
            try:
                while not self._begun or waiting is not None or any(w.chunk for w in self._workers):
                    if self._stops == 0 and (waiting is not None or not self._begun):
                        while len(self._workers) < (1 if waiting is None else self.count):
                            self._workers.append(self._started())
                        for worker in self._workers:
                            if waiting is not None and self._begun and not worker.loading and worker.chunk is None:
                                self._give(worker, waiting)
                                waiting = next(given, None)
                    elif self._stops and not any(w.chunk for w in self._workers):
                        return False
                    self._listen()
                    tick()
                    if waiting is None and self._stops == 0:
                        waiting = next(given, None)  # what a dead worker left behind
                return self._stops == 0
            finally:
                self._end()

    def _given(self, chunks: Iterator[Chunk]) -> Iterator[tuple[str, Chunk]]:
        """What is to be done next; what has to be done again comes first. May be asked again after it ran out."""
        return _Next(self._again, chunks)

    def _started(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=work_forever, args=(there, self.plan, self.folder, self.threads), daemon=True, name="pellucid-batch"
        )
        with _threads(self.threads):
            process.start()
        there.close()
        return Worker(process, here)

    def _give(self, worker: Worker, work: tuple[str, Chunk]) -> None:
        worker.chunk, worker.at = work[1], frozenset()
        with suppress(OSError):  # it has just died, which is noticed next
            worker.pipe.send(work)

    def _listen(self) -> None:
        """Take in the news of all workers, and notice those that are gone."""
        watched = [w.pipe for w in self._workers]
        for pipe in wait(watched, timeout=_QUIET) if watched else []:
            worker = next(w for w in self._workers if w.pipe is pipe)
            try:
                kind, news = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            self._hear(worker, kind, news)

    def _hear(self, worker: Worker, kind: str, news: Any) -> None:
        if kind == "broken":
            raise ModelError(news)
        if kind == "unwritable":
            raise StorageError(news)
        if kind == "ready":
            worker.weights, self._lost = news, 0
            if not self._begun:
                self.begun(news)
                self._begun = True
            elif any(w.weights not in (None, news) for w in self._workers):
                raise ModelError("The model comes out otherwise in each process: seed what is random in its making.")
        elif kind == "at":
            worker.at = frozenset(news)
        else:
            worker.chunk = None
            if news is not None:
                self.done(news)

    def _bury(self, worker: Worker) -> None:
        """A worker is gone: what it had is done again, the inputs it died at one by one."""
        worker.process.join()
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.loading:
            self._lost += 1
            if self._lost >= TRIES:
                raise ModelError(
                    f"The process that loads the model died ({_ending(worker.process.exitcode)}): there may be too "
                    "little memory for it (try fewer --workers), or a script of yours runs a batch outside of "
                    "`if __name__ == '__main__':`, which each process reads again."
                )
            return
        if worker.chunk is None:
            return
        suspects = [item for item in worker.chunk if item.key in worker.at] or worker.chunk[:1]
        if not worker.at and len(worker.chunk) > 1:  # while it decoded one of them: which one is found by halves
            half = len(worker.chunk) // 2
            self._again += [("explain", worker.chunk[:half]), ("explain", worker.chunk[half:])]
            return
        if others := [item for item in worker.chunk if item not in suspects]:
            self._again.append(("explain", others))
        self.died([item.key for item in suspects])
        alone = len(suspects) == 1
        for item in suspects:
            self.tries[item.key] = self.tries.get(item.key, 0) + 1
            doomed = alone and self.tries[item.key] >= TRIES
            self._again.append(("set aside" if doomed else "explain", [item]))

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the work once what is begun is written; a second one ends it at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stops += 1
            if self._stops > 1:
                raise KeyboardInterrupt
            for worker in self._workers:
                with suppress(OSError):
                    worker.pipe.send(None)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _end(self) -> None:
        for worker in self._workers:
            with suppress(OSError):
                worker.pipe.send(None)
            worker.process.join(timeout=0.2 if worker.chunk or worker.loading else 5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers.clear()


class _Next(Iterator[tuple[str, Chunk]]):
    """What is to be done next; `next` may be asked again after it ran out, since a dead worker leaves work behind."""

    def __init__(self, again: deque[tuple[str, Chunk]], chunks: Iterator[Chunk]) -> None:
        self._again, self._chunks = again, chunks

    def __next__(self) -> tuple[str, Chunk]:
        if self._again:
            return self._again.popleft()
        return "explain", next(self._chunks)


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Environment of a child: as many threads as it is meant to have, from its first import on."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


__all__ = ["FAILED", "Pool", "work_forever", "written"]
