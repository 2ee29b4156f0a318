"""`pellucid repair`: a model's last layer learned anew without the wrong reasons that an audit found."""

from __future__ import annotations

from pellucid.cli import console, options
from pellucid.cli.console import say


@options.spelled_out
def repair(
    pictures: options.Pictures,
    model: options.ModelName = options.DEFAULT_MODEL,
    layer: options.LayerWithPlaces = None,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
) -> None:
    """Learn the last layer anew without the wrong reasons that an audit finds, and prove it on other pictures."""
    with console.report(as_json, out, pictures) as report:
        from pellucid.verbs.repair import repair as run

        vision = of.load(model)
        with console.progress():
            found = run(vision, pictures, out, layer=layer, keep=out / "work", seed=seed)
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
