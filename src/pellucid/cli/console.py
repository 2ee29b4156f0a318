"""Progress bars on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def progress() -> Iterator[None]:
    """Draw the progress of long work on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from pellucid.engine import reporting

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        class Bars:
            def start(self, label: str, total: int | None) -> int:
                return bars.add_task(label, total=total)

            def advance(self, task: int, steps: int) -> None:
                bars.advance(TaskID(task), steps)

            def stop(self, task: int) -> None:
                bars.remove_task(TaskID(task))

        with reporting(Bars()):
            yield
