"""`pellucid verify`: recompute a saved explanation from its record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.console import say


def verify(
    file: Annotated[Path, typer.Argument(help="The .json or .npz of a saved result, or a report.")],
    tolerance: Annotated[float, typer.Option(help="Largest relative difference still called the same.")] = 5e-3,
    model: options.ModelOfRecord = None,
    as_json: options.Json = False,
) -> None:
    """Recompute a saved result, or all in a report, from its record; where one differs the exit code is 1."""
    if file.suffix == ".html":
        _page(file, tolerance, model, as_json)
        return
    from pellucid.cli.console import document, progress

    report: dict[str, Any] = {}
    with document(report, as_json):
        from pellucid.verbs.verify import verify as recompute

        with progress():
            found = recompute(file, model=options.model_of_record(model), tolerance=tolerance)
        report.update(status=found.status, difference=found.difference, reasons=found.reasons)
    if not as_json:
        say(f"{file}: {found}")
    if found.status == "different":
        raise typer.Exit(1)


def _page(file: Path, tolerance: float, model: str | None, as_json: bool) -> None:
    from pellucid.cli.console import document, with_progress

    report: dict[str, Any] = {"results": []}
    with document(report, as_json):
        from pellucid.verbs.verify_report import verify_report

        vision = options.model_of_record(model)
        for checked in with_progress(verify_report(file, model=vision, tolerance=tolerance)):
            found = checked.found
            entry = {"name": checked.name, "status": found.status, "difference": found.difference}
            report["results"].append(entry | {"reasons": found.reasons})
            if not as_json:
                say(f"{checked.name}: {found}")
    if any(r["status"] in ("different", "not verified") for r in report["results"]):
        raise typer.Exit(1)
