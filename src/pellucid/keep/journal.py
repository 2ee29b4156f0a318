"""A folder of work: what was asked, a journal of what is done, and a lock, so that one driver writes at a time.

    batch.json      what is done to what; another request is refused
    journal.jsonl   a line for each finished shard; what has no line was never finished
    shards/         the rows, in files that are never changed
    lock            held by the driver at work
    ray-inputs/     what a cluster is given to do, while it works

A line is written after its shard lies safely on disk. So after a crash at any point the lines and the shards that they
name are whole, and a shard without a line is thrown away.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pellucid.errors import StorageError
from pellucid.keep.files import unwritable, write_text_durably
from pellucid.keep.lock import taken

_SHARD = re.compile(r"\.?(part|merged)-[0-9a-f]{16}\.parquet(\.[0-9a-f]{8}\.tmp)?")
_HALF = re.compile(r"\.(batch|progress)\.json\.[0-9a-f]{8}\.tmp")


HANDED_OUT = "ray-inputs"


class Journal:
    """The folder's files, as they are found and written."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.shards = self.folder / "shards"
        self._about, self._lines = self.folder / "batch.json", self.folder / "journal.jsonl"

    @property
    def exists(self) -> bool:
        """Whether there is such work in the folder."""
        return self._about.is_file()

    def about(self) -> dict[str, Any]:
        """What was asked.

        Raises:
            StorageError: the folder holds no such work.
        """
        try:
            found = json.loads(self._about.read_bytes())
            if not isinstance(found, dict):
                raise ValueError
        except OSError as error:
            raise StorageError(f"{self.folder} holds no batch ({error.strerror}): name the --out of one.") from error
        except ValueError as error:
            raise StorageError(f"{self._about} is damaged: the request of the batch can't be read.") from error
        return found

    def begin(self, about: Mapping[str, Any], *, fixed: tuple[str, ...]) -> list[str]:
        """Note what is asked; of work that goes on, what has changed, one sentence each.

        Args:
            about: plain values.
            fixed: those that may not change from run to run.

        Raises:
            StorageError: the folder holds the work of another request.
        """
        changed: list[str] = []
        if self.exists:
            before = self.about()
            other = [name for name in fixed if before.get(name) != about.get(name)]
            if other:
                name = other[0]
                raise StorageError(
                    f"{self.folder} holds the batch of another request: its {name} is {_short(before.get(name))}, not "
                    f"{_short(about.get(name))}. Choose another --out."
                )
            changed = [f"the {n} is not as it was" for n in about if n not in fixed and before.get(n) != about[n]]
            if not changed:
                return []
        write_text_durably(self._about, json.dumps(about, indent=2, ensure_ascii=False))
        return changed

    def lines(self) -> list[dict[str, Any]]:
        """What was noted; a line that a crash cut off is none.

        Raises:
            StorageError: it was changed by something else.
        """
        try:
            data = self._lines.read_bytes()
        except FileNotFoundError:
            return []
        try:
            return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines() if line.strip()]
        except ValueError as error:
            raise StorageError(
                f"{self._lines} is damaged: put back the one that was written, or begin anew."
            ) from error

    def append(self, line: Mapping[str, Any]) -> None:
        """Note something, so that it survives a power cut.

        Raises:
            StorageError: it cannot be written.
        """
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        try:
            with open(self._lines, "ab") as file:
                end = file.tell()
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), end)  # no half line stands in front of the next
                    raise
        except OSError as error:
            raise unwritable(self._lines, error) from error

    def finished(self) -> list[dict[str, Any]]:
        """The lines of the shards that count, in the order in which they were finished."""
        found: dict[str, dict[str, Any]] = {}
        for line in self.lines():
            for name in line.get("drops", ()):
                found.pop(name, None)
            if "shard" in line:
                found[line["shard"]] = line
        return list(found.values())

    def paths(self) -> list[Path]:
        """The files of the shards that count.

        Raises:
            StorageError: one of them is gone.
        """
        paths = [self.shards / line["shard"] for line in self.finished()]
        for path in paths:
            if not path.is_file():
                raise StorageError(f"{path} is gone, though the batch has finished it: put it back, or begin anew.")
        return paths

    def clean(self) -> None:
        """Throw away what a crash left: half lines, half files, and shards without a line. What has another name than
        those that are given here stays, whosever it is."""
        if self._lines.exists():
            data = self._lines.read_bytes()
            if not data.endswith(b"\n") and data:
                with open(self._lines, "rb+") as file:
                    file.truncate(data.rfind(b"\n") + 1)
        counted = {line["shard"] for line in self.finished()}
        for folder, named in ((self.shards, _SHARD), (self.folder, _HALF)):
            for path in folder.iterdir() if folder.is_dir() else ():
                if named.fullmatch(path.name) and path.name not in counted:
                    path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / HANDED_OUT, ignore_errors=True)

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Be the only one who writes.

        Raises:
            StorageError: another driver is at work, or the folder holds files of these names that are no batch's.
        """
        if not self.exists:
            others = [p.name for p in (self.shards, self._lines, self.folder / HANDED_OUT) if p.exists()]
            with suppress(OSError):
                held = (self.folder / "lock").read_bytes()
                others += ["lock"] if held and not held.startswith(b"process ") else []
            if others:
                raise StorageError(
                    f"{self.folder} holds {others[0]}, but no batch that it would belong to: choose another --out."
                )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / "lock", "a+")  # noqa: SIM115 - held as long as the lock
        except OSError as error:
            raise unwritable(self.folder / "lock", error) from error
        with file:
            if not taken(file.fileno()):
                file.seek(0)
                raise StorageError(
                    f"{self.folder} is being written to by another run ({file.read().strip() or 'unknown'}): wait for "
                    "it, or choose another --out."
                )
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename if hasattr(os, 'uname') else 'this machine'}")
            file.flush()
            yield

    @property
    def driven(self) -> bool:
        """Whether a driver is at work."""
        try:
            with open(self.folder / "lock") as file:
                return not taken(file.fileno())
        except OSError:
            return False


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
