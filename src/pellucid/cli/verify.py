"""`pellucid verify`: recompute a saved explanation from its record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli import options


def verify(
    file: Annotated[Path, typer.Argument(help="The .json or .npz of a saved explanation.")],
    tolerance: Annotated[float, typer.Option(help="Largest relative difference still called the same.")] = 5e-3,
    as_json: options.Json = False,
) -> None:
    """Recompute a saved explanation from its record: same, within tolerance, or different (exit code 1)."""
    from pellucid.cli.console import document, progress

    report: dict[str, Any] = {}
    with document(report, as_json):
        from pellucid.verbs.verify import verify as recompute

        with progress():
            found = recompute(file, tolerance=tolerance)
        report.update(status=found.status, difference=found.difference, reasons=found.reasons)
    if not as_json:
        print(f"{file}: {found}")
    if found.status == "different":
        raise typer.Exit(1)
