"""What a studio is started with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class StudioSettings:
    """How a studio runs.

    Attributes:
        home: the folder of results.
        models: what may be asked; nothing else is ever loaded.
        devices: one worker each; an empty name chooses cuda if there is one.
        port: of 127.0.0.1.
        token: who knows it may come in.
        share: whether a single result may be shown by a link of its own.
        upload: bytes of an upload, at most.
        stored: bytes of all uploads of one visitor, at most.
        waiting: jobs of one visitor that wait or run, at most.
        grace: seconds that a cancelled job has to end by itself.
        worker: what Python runs as a worker.
    """

    home: Path
    models: tuple[str, ...] = ("efficientnet-lite0",)
    devices: tuple[str, ...] = ("",)
    port: int = 8760
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    share: bool = False
    upload: int = 256 * MEGABYTE
    stored: int = 2048 * MEGABYTE
    waiting: int = 20
    grace: float = 5.0
    worker: tuple[str, ...] = ("-m", "pellucid.studio.worker")

    @property
    def inner(self) -> Path:
        """Where jobs, uploads and the secret of links are kept."""
        return self.home / ".studio"

    def page(self, id: str, language: str) -> Path:
        """Where the page of a job's results is kept, in a language, which names its folder."""
        return self.inner / "pages" / language / f"{id}.html"

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which it may be asked for."""
        return frozenset(f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]"))
