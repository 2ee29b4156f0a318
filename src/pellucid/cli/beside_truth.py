"""`pellucid explain --truth`: a detector's hits, misses and false boxes, explained apart; other maps beside masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pellucid.cli.console import say, with_progress

if TYPE_CHECKING:
    from pellucid.errors import PellucidError
    from pellucid.models.model import VisionModel
    from pellucid.results.judged import JudgedPicture
    from pellucid.truth import Truth
    from pellucid.verbs.located import Located


def boxes_first(
    vision: VisionModel,
    files: Sequence[str],
    truth: Path,
    explained: Callable[..., Iterator[tuple[str, JudgedPicture | PellucidError]]],
    redact: str | None,
    report: dict[str, Any],
    out: Path,
    as_json: bool,
) -> Located | None:
    """Explain a detector beside the truth, in whole; of any other model what lays its maps beside the truth.

    Args:
        explained: `explain_beside` of all but the truth.
        redact: what is to be hidden.
        report, out: what programs are told, and where it is written.
    """
    from pellucid.models.tasks import BoxTask
    from pellucid.results import names_of_inputs
    from pellucid.truth import read_truth
    from pellucid.verbs.beside_truth import task_beside
    from pellucid.verbs.located import Located
    from pellucid.verbs.redaction import without

    task = task_beside(vision, files)
    if not isinstance(task, BoxTask):
        return Located(truth, task, vision.labels or (), vision.medium)
    known = read_truth(truth, vision.labels or ())
    judged = without(redact, explained(truth=known))
    beside_truth(judged, known, report, out, names_of_inputs(out, files), as_json)
    return None


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
            if not why or f"{why}." not in remark:  # a figure has no such line above it
                say(f"    {remark}")
    for remark in found.remarks:
        say(f"  note: {remark}")
    for panel in panels:
        say(f"  picture: {panel}")


def _between(figure: tuple[float, float, float, int], form: str) -> str:
    """A mean with the ends of its interval, which one map has none of."""
    mean, low, high, count = figure
    return form.format(mean) + (f" ({form.format(low)} to {form.format(high)})" if count > 1 else "")


def end_of_truth(located: Located, report: dict[str, Any], out: Path, *, quiet: bool) -> None:
    """Write the figures of maps beside the truth as a table, and say their means and what is not judged.

    Args:
        located: what became of each map.
        report: what programs are told; gets `truth`.
        quiet: nothing is printed.
    """
    for name in located.unknown:
        say(f"note: the truth says nothing of {name}: its map is saved, and not judged.", aside=True)
    if not quiet:
        for name, label in located.missed:
            say(f"{name}: missed: {label} truly is there, and the network gives it no place.")
    if not located.rows:
        return
    means, table = located.means(), str(located.save(out))
    report["truth"] = {"means": means, "missed": [list(one) for one in located.missed], "table": table}
    if quiet:
        return
    for method, found in means.items():
        said = {name: _between(found[name], "{:.0%}") for name in found}
        count = found["pointing"][3]
        inside = f"peak inside {said['pointing']}, evidence inside {said.get('energy', 'unknown')}"
        if "dice" in found:
            overlap = (
                f"Dice {_between(found['dice'], '{:.2f}')}, peak {_between(found['distance_mm'], '{:.1f}')} mm away"
            )
        else:
            overlap = f"overlap {said['mask_iou']}"
        say(
            f"{method} beside the truth, means of {count} map{'s' * (count != 1)}: {inside}, {overlap}; the truth "
            f"takes {said['share']} of a {located.medium.name}"
        )
    kinds = [row["kind"] for row in located.rows]
    if any(kinds):
        hits, misses, false = (kinds.count(kind) for kind in ("hit", "miss", "false"))
        say(f"regions: {hits} found, {misses} missed, {false} false")
    say(f"  table: {table}")
