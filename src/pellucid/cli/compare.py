"""`pellucid compare`: what changed from one model to another, on the same pictures."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say


class FailIf(StrEnum):
    """What makes the command exit with 1."""

    WORSE = "worse"
    CHANGED = "changed"


def compare(
    first: Annotated[str, typer.Argument(metavar="BEFORE", help=options.A_MODEL)],
    second: Annotated[str, typer.Argument(metavar="NOW", help="Another, of the same classes.")],
    pictures: Annotated[str, typer.Argument(metavar="FOLDER", help="Pictures (sub-folders or labels.csv: classes).")],
    fail_if: Annotated[
        FailIf | None,
        typer.Option("--fail-if", help="Exit with 1 if it is worse, or if any answer has changed: for releases."),
    ] = None,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    device: options.Device = None,
) -> None:
    """Say what changed from one model to another: answers, slices, calibration, evidence; paired, and tested."""
    with console.report(as_json, out, pictures) as report:
        from pellucid.verbs.compare import compare as run

        models = [options.ModelOptions(device).load(name) for name in (first, second)]
        with console.progress():
            found = run(models[0], models[1], pictures, keep=out / "work", seed=seed)
            saved = [str(path) for path in found.save(out)]
        report["results"].append(
            {
                "input": found.record.input["source"] or found.name,
                "models": list(found.names),
                "pictures": len(found.first),
                "verdict": found.paired.verdict,
                "changed": len(found.paired.changed),
                "lines": list(found.lines()),
                "notes": found.notes,
                "files": saved,
            }
        )
        failed = dict.fromkeys([*found.first.failed, *found.second.failed])
        report["failed"] += [{"error": sentence} for sentence in failed]
        if not as_json:
            console.tell(f"{found.caption}, {len(found.first)} pictures", found)
            say(f"  page: {saved[-1]}")
    bad = found.paired.verdict == "worse" or (fail_if is FailIf.CHANGED and found.paired.changed)
    if fail_if is not None and bad:
        raise typer.Exit(1)
