"""`pellucid more`: a saved explanation from a larger budget, without asking again for what the model has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli import console, options


def more(
    file: Annotated[Path, typer.Argument(help="The .json or .npz of a saved explanation.")],
    samples: Annotated[int | None, typer.Option("--samples", help="How many the method shall have drawn.")] = None,
    max_samples: Annotated[
        int | None, typer.Option("--max-samples", help="The most that a method may draw that stops by itself.")
    ] = None,
    max_evaluations: Annotated[
        int | None, typer.Option("--max-evaluations", help="The most forward passes that it may spend.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="The relative standard error at which it stops by itself.")
    ] = None,
    model: options.ModelOfRecord = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the result; default: it takes the place of the old.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Continue a saved explanation of a sampling method: the longer run's result, at the price of the rest."""
    folder = file.parent if out is None else out
    with console.report(as_json, folder) as report:
        from pellucid.cli.explain import entry, tell
        from pellucid.keep.files import write_bytes
        from pellucid.results import Heatmaps
        from pellucid.storage import save
        from pellucid.verbs.more import more as go_on

        given: dict[str, Any] = {
            "samples": samples,
            "max_samples": max_samples,
            "max_evaluations": max_evaluations,
            "tolerance": tolerance,
        }
        with console.progress():
            vision = options.model_of_record(model)
            found = Heatmaps([go_on(file, model=vision, **{k: v for k, v in given.items() if v is not None})])
        picture = found.png()
        files = [*save(found[0], folder / file.stem), write_bytes(folder / f"{file.stem}.png", picture)]
        saved = [str(path) for path in files]
        report["results"].append(entry(found[0], saved))
        if not as_json:
            tell(found, saved)
