"""Progress bars on a terminal, silence elsewhere; JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

from pellucid.language import printable

T = TypeVar("T")


def say(text: str, *, aside: bool = False) -> None:
    """Print a text in the reader's language; `aside`: on stderr, where a program's input does not look."""
    stream = sys.stderr if aside else sys.stdout
    print(printable(text, stream), file=stream)


@contextmanager
def progress() -> Iterator[None]:
    """Draw the progress of long work on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from pellucid.progress import reporting

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
        with progress():
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


@contextmanager
def document(report: dict[str, Any], wanted: bool) -> Iterator[None]:
    """At the end print `report` on stdout as one JSON document, if `wanted`; what ended the work is its `error`."""
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        report["error"] = str(error) or ("cancelled" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
        raise
    finally:
        if wanted:
            from pellucid.storage import strict

            print(json.dumps(strict(report), indent=2, ensure_ascii=False, allow_nan=False))
