"""`pellucid explain --truth`: a detector's hits, misses and false boxes, explained apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pellucid.cli.console import say, with_progress

if TYPE_CHECKING:
    from pellucid.errors import PellucidError
    from pellucid.results.judged import JudgedPicture
    from pellucid.truth import Truth


def beside_truth(
    outcomes: Iterator[tuple[str, JudgedPicture | PellucidError]],
    known: Truth,
    report: dict[str, Any],
    out: Path,
    taken: set[str],
    as_json: bool,
) -> None:
    """Write what was found, missed and imagined in each picture, and say how many there are.

    Args:
        outcomes: of `explain_beside`.
        taken: names of files that panels must not be written over.
    """
    from pellucid.results.judged import counted, write_judged

    for note in known.notes:
        say(f"note: {note}", aside=True)
    done = []
    for name, found in with_progress(outcomes):
        if isinstance(found, Exception):
            report["failed"].append({"input": name, "error": str(found)})
            say(f"pellucid: {found}", aside=True)
            continue
        saved = found.save(out, taken)
        done.append(found)
        report["results"] += found.rows()
        if not as_json:
            _tell(found, [str(path) for path in saved if path.suffix == ".png"])
    if done:
        table = [str(path) for path in write_judged(done, known, out)]
        report["files"] = table
        report["counts"] = counted(box for picture in done for box in picture.boxes)
        if not as_json:
            say(f"{len(done)} picture{'s' * (len(done) != 1)}: {report['counts']}")
            say(f"  boxes: {', '.join(table)}")
    if report["failed"]:
        raise typer.Exit(1)


def _tell(found: JudgedPicture, panels: list[str]) -> None:
    say(f"{found.source or found.truth.name}: {found.line}")
    for box in found.boxes:
        about = box.about
        why = f": {about['why']}" if about["why"] else ""
        sure = "" if about["score"] is None else f" {about['score']:.2f}"
        say(f"  {about['kind']}: {about['label']}{sure}{why}")
        for remark in dict.fromkeys(remark for e in box.maps for remark in e.remarks):
            say(f"    {remark}")
    for remark in found.remarks:
        say(f"  note: {remark}")
    for panel in panels:
        say(f"  picture: {panel}")
