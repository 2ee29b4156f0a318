"""What was asked, as files: a job is written down before it waits, and whenever its state changes."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pellucid.keep.files import write_bytes

State = Literal["queued", "running", "cancelling", "cancelled", "done", "failed"]
OVER: frozenset[str] = frozenset(("cancelled", "done", "failed"))

_ID = re.compile(r"[0-9a-f]{16}")


def is_id(text: str) -> bool:
    """Whether a text has the form of an id that this machine makes."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True)
class JobRequest:
    """What a visitor asks, as texts; the worker understands them as the command line does.

    Attributes:
        verb: `explain`, `importance`, `visualize`, `activations`, `distill`, `more` and `verify` (of a saved result),
            or `describe` (a model's layers and labels).
        model: one of the registry.
        input: `sample:NAME`, `suite:NAME`, or a path made by the studio; never one of the visitor's.
        shown: what the visitor calls it.
        options: further settings by the name of their option.
    """

    verb: str
    model: str
    input: str = ""
    shown: str = ""
    options: dict[str, str] = field(default_factory=dict)

    def command(self) -> str:
        """The command that does the same."""
        words = ["pellucid", "visualize" if self.verb == "activations" else self.verb]
        if self.verb == "activations":
            words.append("--activations")
        if self.input:
            words.append(self.shown or self.input)
        if self.verb == "distill" and self.input != "digits:":
            words += ["--teacher", self.model]
        elif self.verb not in ("more", "verify"):
            words += ["--model", self.model]
        for name, value in self.options.items():
            if name == "check":
                words.append("--check" if value else "--no-check")
            elif name in ("order", "stages"):
                words += [f"--{name}"] if value else []
            elif name == "regions":
                words += ["--regions", "regions.json"] if value else []
            elif name == "set":
                words += [part for setting in value.splitlines() for part in ("--set", setting)]
            elif value:
                words += [f"--{name}", value]
        return shlex.join(words)


@dataclass
class StudioJob:
    """A job and what became of it.

    Attributes:
        id: made here.
        owner: whose it is.
        asked: what.
        state: where it stands.
        created, started, ended: seconds since 1970; 0 where it has not come to that.
        error: the sentence of a failure.
        progress: what is being done, and the share that is done, in [0, 1].
        attempts: how often it was begun.
        said: what came out, where that is a sentence.
    """

    id: str
    owner: str
    asked: JobRequest
    state: State = "queued"
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    error: str = ""
    progress: tuple[str, float] = ("", 0.0)
    attempts: int = 0
    said: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in OVER

    def told(self) -> dict[str, Any]:
        """What a page shows of it while it runs."""
        label, share = self.progress
        return {"id": self.id, "state": self.state, "label": label, "share": share, "error": self.error}


class JobFiles:
    """All jobs of a studio, in memory and on disk.

    Args:
        folder: where their files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs: dict[str, StudioJob] = {}
        for file in sorted(folder.glob("*.json")):
            job = _read(file)
            if job is not None:
                self._jobs[job.id] = job
        for job in self._jobs.values():
            if not job.over:  # the studio ended while it ran: nothing of it is lost but time
                job.state = "cancelled" if job.state == "cancelling" else "queued"
                job.attempts = 0
                self.write(job)

    def __iter__(self) -> Iterator[StudioJob]:
        return iter(sorted(self._jobs.values(), key=lambda job: job.created))

    def get(self, id: str) -> StudioJob | None:
        """A job by its id."""
        return self._jobs.get(id)

    def of(self, owner: str) -> list[StudioJob]:
        """One visitor's, the newest first."""
        return [job for job in reversed(list(self)) if job.owner == owner]

    def new(self, owner: str, asked: JobRequest) -> StudioJob:
        """A job that waits."""
        job = StudioJob(secrets.token_hex(8), owner, asked, created=time.time())
        self.write(job)
        self._jobs[job.id] = job
        return job

    def write(self, job: StudioJob) -> None:
        """Write a job down as it stands."""
        write_bytes(self.folder / f"{job.id}.json", json.dumps(asdict(job)).encode())


def _read(file: Path) -> StudioJob | None:
    """A job from its file; None if that is none."""
    try:
        values: Mapping[str, Any] = json.loads(file.read_bytes())
        known = {f.name: values[f.name] for f in fields(StudioJob) if f.name in values or f.name != "said"}
        known["asked"] = JobRequest(**values["asked"])
        known["progress"] = (str(values["progress"][0]), float(values["progress"][1]))
        job = StudioJob(**known)
        return job if is_id(job.id) and job.id == file.stem else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
