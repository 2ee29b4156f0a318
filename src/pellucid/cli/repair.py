"""`pellucid repair`: a model learns anew without the wrong reasons that an audit found."""

from __future__ import annotations

from typing import Annotated

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say

Seconds = Annotated[
    float,
    typer.Option("--seconds", help="Of processor time, to teach the whole network; 0 learns its last layer alone."),
]


@options.spelled_out
def repair(
    pictures: options.Pictures,
    model: options.ModelName = options.DEFAULT_MODEL,
    layer: options.LayerWithPlaces = None,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seconds: Seconds = 30.0,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
) -> None:
    """Learn anew without the wrong reasons that an audit finds, and prove it on other pictures."""
    with console.report(as_json, out, pictures) as report:
        from pellucid.verbs.repair import repair as run

        vision = of.load(model)
        with console.progress():
            found = run(vision, pictures, out, layer=layer, keep=out / "work", seconds=seconds, seed=seed)
            saved = [str(path) for path in found.save(out)]
        report["results"].append(
            {
                "input": str(pictures),
                "verdict": found.verdict,
                "lines": list(found.lines()),
                "groups": found.table(),
                "files": saved,
            }
        )
        if not as_json:
            console.tell(found.caption, found)
            say(f"  weights: {saved[0]}")
            say(f"  page: {saved[-1]}")
