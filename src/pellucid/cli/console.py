"""Progress bars on a terminal, a line for what takes long elsewhere; JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import typer

from pellucid.cli.interrupts import came, raise_lost
from pellucid.language import printable

T = TypeVar("T")


def say(text: str, *, aside: bool = False) -> None:
    """Print a text in the reader's language; `aside`: on stderr, where a program's input does not look."""
    stream = sys.stderr if aside else sys.stdout
    print(printable(text, stream), file=stream)


class Lines(Protocol):
    """A result that says what it is in lines."""

    notes: list[str]

    def lines(self) -> Iterable[str]:
        """A finding each."""


def tell(head: str, found: Lines) -> None:
    """Print what a result says, and its notes, under a head."""
    for line in (head, *(f"  {line}" for line in found.lines()), *(f"  note: {note}" for note in found.notes)):
        say(line)


@contextmanager
def progress() -> Iterator[None]:
    """Draw the progress of long work on stderr, if that is a terminal; else say there how much is left."""
    from pellucid.progress import Log, reporting

    if not sys.stderr.isatty():
        with reporting(Log(lambda line: say(line, aside=True))):
            yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        class Bars:
            def start(self, label: str, total: int | None) -> int:
                return bars.add_task(printable(label, sys.stderr), total=total)

            def advance(self, task: int, steps: int) -> None:
                bars.advance(TaskID(task), steps)

            def stop(self, task: int) -> None:
                bars.remove_task(TaskID(task))

        with reporting(Bars()):
            yield


def with_progress(steps: Iterator[T]) -> Iterator[T]:
    """Yield from `steps` with progress drawn while each is made, and gone while it is used (and printed)."""
    while True:
        raise_lost()
        with progress():
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


@contextmanager
def report(wanted: bool, out: Path | None = None, *folders: str) -> Iterator[dict[str, Any]]:
    """What a command tells programs, as a `document`: its `results`, and what `failed`.

    What cannot be done is said before anything heavy is loaded.

    Args:
        wanted: whether it is printed.
        out: the folder that results are written to.
        folders: of pictures that are read.

    Raises:
        MediaError: there is no picture in a folder, and no clip or volume.
        StorageError: nothing can be written to `out`.
    """
    told: dict[str, Any] = {"format": "pellucid-report/1", "results": [], "failed": []}
    with document(told, wanted):
        for folder in folders:
            _check_folder(folder)
        if out is not None:
            from pellucid.keep.files import check_writable

            check_writable(out)
        yield told


def _check_folder(folder: str) -> None:
    """Whether there is anything in it that some model takes: which one is not known yet."""
    from pellucid.errors import MediaError
    from pellucid.media import CLIP, PICTURE, VOLUME, read_folder

    errors = []
    for medium in (PICTURE, CLIP, VOLUME):
        try:
            read_folder(folder, medium, absent=True)
        except MediaError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


@contextmanager
def document(report: dict[str, Any], wanted: bool) -> Iterator[None]:
    """At the end print `report` on stdout as one JSON document, if `wanted`; what ended the work is its `error`."""
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        cancelled = came() or isinstance(error, KeyboardInterrupt)
        said = "" if came() else str(error)
        report["error"] = said or ("cancelled" if cancelled else type(error).__name__)
        raise
    finally:
        if wanted:
            from pellucid.keep.artefact import strict

            print(json.dumps(strict(report), indent=2, ensure_ascii=False, allow_nan=False))
