"""Who waits, who runs: jobs go to workers in the order in which they were asked, one at a time each."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from pellucid.language import chosen
from pellucid.studio.jobs import JobFiles, JobRequest, StudioJob
from pellucid.studio.line import WorkerGoneError, WorkerLine
from pellucid.studio.settings import StudioSettings

_ATTEMPTS = 2
_GONE = "The worker ended while it computed this, twice: the machine may be out of memory. Try a smaller input."


class JobQueue:
    """The jobs of a studio and the workers that do them.

    Args:
        settings: of the studio.
        files: where jobs are written down.
    """

    def __init__(self, settings: StudioSettings, files: JobFiles) -> None:
        self._settings, self.files = settings, files
        self.catalogue: dict[str, Any] = {}
        self.described: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Event()
        self._lines: list[WorkerLine] = []
        self._running: dict[str, WorkerLine] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start a worker a device; those that are asked first describe the first model."""
        for device in self._settings.devices:
            self._tasks.append(asyncio.create_task(self._serve(device)))

    async def close(self) -> None:
        """End all workers; what waits stays written down."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(line.close() for line in self._lines))

    async def put(self, owner: str, asked: JobRequest) -> StudioJob:
        """A new job at the end of the queue."""
        job = self.files.new(owner, asked)
        self._tell()
        return job

    async def cancel(self, job: StudioJob) -> None:
        """End a job: at once where it waits; between two steps where it runs, by force after a grace time."""
        if job.state == "queued":
            self._set(job, "cancelled")
        elif job.state == "running":
            self._set(job, "cancelling")
            line = self._running.get(job.id)
            if line is not None:
                line.cancel()
                self._tasks = [t for t in self._tasks if not t.done()]
                self._tasks.append(asyncio.create_task(self._insist(job, line)))
        self._tell()

    async def changed(self, within: float) -> None:
        """Wait until some job changed, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._changed.wait()

    def workers(self) -> list[int]:
        """Process numbers of the workers."""
        return [line.pid for line in self._lines if line.pid is not None]

    async def _insist(self, job: StudioJob, line: WorkerLine) -> None:
        await asyncio.sleep(self._settings.grace)
        if job.state == "cancelling" and self._running.get(job.id) is line:
            line.kill()

    async def _serve(self, device: str) -> None:
        current: list[StudioJob] = []

        def heard(message: dict[str, Any]) -> None:
            if current and message["kind"] == "progress":
                current[0].progress = (message["label"], message["share"])
                self._tell()

        line = WorkerLine(self._settings.worker, device, heard)
        self._lines.append(line)
        with suppress(WorkerGoneError):
            await line.start()
            self.catalogue = line.catalogue or {}
        await self._describe(line, self._settings.models[0])
        while True:
            job = next((j for j in self.files if j.state == "queued"), None)
            if job is None:
                await self.changed(1.0)
                continue
            current[:] = [job]
            await self._run(job, line)
            current.clear()

    async def _run(self, job: StudioJob, line: WorkerLine) -> None:
        job.attempts += 1
        job.started, job.progress = time.time(), ("", 0.0)
        self._set(job, "running")
        self._running[job.id] = line
        try:
            asked = job.asked
            folder = self._settings.home / job.id
            page = None if asked.verb in ("describe", "verify") else self._settings.page(job.id, chosen())
            answer = await line.ask(asked.verb, asked.model, asked.input, asked.options, folder, page)
            job.error = _as_asked(answer.get("error", ""), asked)
            job.said = _as_asked(answer.get("said", ""), asked)
            if asked.verb == "describe" and answer["kind"] == "done":
                self.described[asked.model] = answer
            self._set(job, answer["kind"])
            if answer["kind"] == "done" and asked.model not in self.described:
                await self._describe(line, asked.model)  # it is in memory now
        except WorkerGoneError:
            if job.state == "cancelling":
                self._set(job, "cancelled")
            elif job.attempts < _ATTEMPTS:
                self._set(job, "queued")
            else:
                job.error = _GONE
                self._set(job, "failed")
        finally:
            self._running.pop(job.id, None)
            self._tell()

    async def _describe(self, line: WorkerLine, model: str) -> None:
        """What a model's pages tell, without a job of anyone."""
        with suppress(WorkerGoneError):
            answer = await line.ask("describe", model, "", {}, self._settings.inner)
            if answer["kind"] == "done":
                self.described[model] = answer
        self._tell()

    def _set(self, job: StudioJob, state: Any) -> None:
        job.state = state
        if job.over:
            job.ended = time.time()
        self.files.write(job)
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits for a change."""
        told, self._changed = self._changed, asyncio.Event()
        told.set()


def _as_asked(error: str, asked: JobRequest) -> str:
    """A sentence with the visitor's name for the input in place of the studio's own path."""
    return error.replace(asked.input, asked.shown) if asked.input and asked.shown else error
