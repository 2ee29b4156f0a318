"""`pellucid verify`: recompute a saved explanation from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import options


def verify(
    file: Annotated[Path, typer.Argument(help="The .json or .npz of a saved explanation.")],
    tolerance: Annotated[float, typer.Option(help="Largest relative difference still called the same.")] = 1e-3,
    as_json: options.Json = False,
) -> None:
    """Recompute a saved explanation from its record: same, within tolerance, or different (exit code 1)."""
    from pellucid.cli.console import progress
    from pellucid.verbs import verify as recompute

    with progress():
        found = recompute(file, tolerance=tolerance)
    if as_json:
        number = found.difference if found.difference == found.difference else None
        print(json.dumps({"status": found.status, "difference": number, "reasons": found.reasons}, indent=2))
    else:
        print(f"{file}: {found}")
    if found.status == "different":
        raise typer.Exit(1)
