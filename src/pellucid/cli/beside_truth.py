"""`pellucid explain --truth`: a detector's hits, misses and false boxes, explained apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pellucid.cli.console import say, with_progress

if TYPE_CHECKING:
    from pellucid.heatmaps import Method
    from pellucid.models.model import VisionModel
    from pellucid.results.judged import JudgedPicture


def beside_truth(
    model: VisionModel,
    files: list[str],
    methods: list[Method],
    truth: Path,
    report: dict[str, Any],
    out: Path,
    *,
    seed: int,
    as_json: bool,
) -> None:
    """Explain what was found, missed and imagined in each file; write it, and say how many there are."""
    from pellucid.results import names_of_inputs
    from pellucid.results.judged import counted, write_judged
    from pellucid.truth import read_truth
    from pellucid.verbs.beside_truth import explain_beside

    known = read_truth(truth, model.labels or ())
    for note in known.notes:
        say(f"note: {note}", aside=True)
    taken, done = names_of_inputs(out, files), []
    for name, found in with_progress(explain_beside(model, files, known, methods, seed=seed)):
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
