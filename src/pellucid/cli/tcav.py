"""`pellucid tcav`: does the answer depend on concepts that are given by example pictures?"""

from __future__ import annotations

from typing import Annotated

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say


@options.spelled_out
def tcav(
    concepts: Annotated[str, typer.Argument(metavar="CONCEPTS", help="A sub-folder of pictures for each concept.")],
    pictures: Annotated[str, typer.Argument(metavar="PICTURES", help="Pictures of the class that is asked about.")],
    random: Annotated[str, typer.Option("--random", help="Pictures without the concepts, else alike.")],
    model: options.ModelName = options.DEFAULT_MODEL,
    target: Annotated[str, typer.Option("--target", help="A label or class number; default: the top class.")] = "top",
    layer: options.LayerWithPlaces = None,
    by: Annotated[
        str, typer.Option("--by", help="How a concept's direction is found: pattern or logistic.")
    ] = "pattern",
    match: Annotated[
        int, typer.Option("--match", help="Choose this many random pictures, those most like the concepts'.")
    ] = 0,
    level: Annotated[float, typer.Option("--level", help="Chance of any false discovery.")] = 0.05,
    correction: Annotated[str, typer.Option("--correction", help="For many tests: holm, bh, none.")] = "holm",
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
) -> None:
    """Test whether a class's score rises towards concepts, more than towards random pictures."""
    with console.report(as_json) as report:
        from dataclasses import asdict

        from pellucid.concepts.tcav import lines_of
        from pellucid.errors import MethodError
        from pellucid.keep.files import check_writable
        from pellucid.models.targets import parse_target
        from pellucid.verbs.tcav import tcav as run

        if by not in ("pattern", "logistic") or correction not in ("holm", "bh", "none"):
            raise MethodError("--by is pattern or logistic, and --correction is holm, bh or none.")
        check_writable(out)
        vision = of.load(model)
        with console.progress():
            found = run(
                vision,
                concepts,
                pictures,
                random,
                parse_target(target),
                layer=layer,
                by=by,  # type: ignore[arg-type]
                match=match,
                level=level,
                correction=correction,  # type: ignore[arg-type]
                seed=seed,
            )
        saved = [str(path) for path in found.save(out)]
        report["results"] = [asdict(t) for t in found]
        report["files"] = saved
        if not as_json:
            for line, t in zip(lines_of(found), found, strict=True):
                say(line)
                for note in t.notes:
                    say(f"  note: {note}")
            say(f"picture: {saved[-1]}, table: {saved[-2]}")
