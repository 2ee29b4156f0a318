"""`pellucid report`: saved results as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.console import say
from pellucid.language import counted


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", help="Saved results (.json, .npz), folders of them, and batches."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    title: Annotated[str, typer.Option("--title", help="Its heading; default: made of the results.")] = "",
    limit: Annotated[
        float, typer.Option("--limit", min=0.1, help="Megabytes; above it inputs are pictures without raw values.")
    ] = 40.0,
    worst: Annotated[int, typer.Option("--worst", min=1, help="Rows of a batch: those of the worst verdicts.")] = 12,
    as_json: options.Json = False,
) -> None:
    """Write saved results of every kind into one HTML file that opens anywhere, without a network."""
    from pellucid.cli.console import document

    told: dict[str, Any] = {"format": "pellucid-page/1"}
    with document(told, as_json):
        from pellucid.verbs.report import expected_size
        from pellucid.verbs.report import report as written

        if not as_json:
            size = expected_size(results, worst) / 1e6
            above = f"; above {limit:g} MB the largest are shown as pictures" if size > limit else ""
            say(f"about {size:.1f} MB{above}", aside=True)
        made = written(results, title=title, limit=limit, home=out.parent, worst=worst)
        made.save(out)
        told.update(file=str(out), bytes=len(made.text.encode()), results=made.count)
        told.update(shrunk=made.shrunk, refused=made.refused)
    if as_json:
        return
    for refused in made.refused:
        say(f"pellucid: {refused}", aside=True)
    size = told["bytes"] / 1e6
    say(f"{out}: {counted(made.count, 'result')}, {size:.1f} MB")
