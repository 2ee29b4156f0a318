"""A worker seen from the studio: it is started, asked one thing at a time, and ended when it does not listen."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

Heard = Callable[[dict[str, Any]], None]


class WorkerGoneError(Exception):
    """The process ended while it was asked."""


class WorkerLine:
    """The way to one worker process.

    Args:
        command: what Python runs.
        device: which it computes on; empty chooses.
        heard: is given each message that is no answer.
    """

    def __init__(self, command: Sequence[str], device: str, heard: Heard) -> None:
        self._command, self._device, self._heard = command, device, heard
        self._process: asyncio.subprocess.Process | None = None
        self.catalogue: dict[str, Any] | None = None

    async def start(self) -> None:
        """Start the process, and wait until it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            self._device,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        self.catalogue = await self._answer(("ready",))

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    async def ask(
        self, verb: str, model: str, given: str, options: dict[str, str], folder: Path, page: Path | None = None
    ) -> dict[str, Any]:
        """Ask for one job, and for its page; wait for its answer: `done`, `failed` or `cancelled`.

        Raises:
            WorkerGoneError: the process ended.
        """
        if self._process is None or self._process.returncode is not None:
            await self.start()
        self._say(
            kind="run", verb=verb, model=model, input=given, options=options, folder=str(folder), page=str(page or "")
        )
        return await self._answer(("done", "failed", "cancelled"))

    def cancel(self) -> None:
        """Ask it to end what it does, between two steps."""
        self._say(kind="cancel")

    def kill(self) -> None:
        """End the process; the next question starts another."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """End the process and wait for its end."""
        self.kill()
        if self._process is not None:
            await self._process.wait()

    def _say(self, **message: Any) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(ConnectionError, RuntimeError):
                self._process.stdin.write((json.dumps(message) + "\n").encode())

    async def _answer(self, kinds: tuple[str, ...]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            text = await self._process.stdout.readline()
            if not text.endswith(b"\n"):  # it ended, perhaps in the middle of a sentence
                await self._process.wait()
                self._process = None
                raise WorkerGoneError
            message: dict[str, Any] = json.loads(text)
            if message["kind"] in kinds:
                return message
            self._heard(message)
