"""`pellucid evaluate`: which explanation to believe, measured on the user's own model and inputs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say
from pellucid.cli.of_batch import given_batch

if TYPE_CHECKING:
    from pellucid.results.scoreboard import Scoreboard

METHODS = "grad-cam,layer-cam,integrated-gradients"
_OF_INPUTS = "mosaic"  # the suite that is made of the user's own inputs


@options.spelled_out
def evaluate(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Pictures, clips, folders, globs, sample:NAME, samples:; or a batch."),
    ] = None,
    model: options.ModelName = options.DEFAULT_MODEL,
    methods: Annotated[
        str, typer.Option("--methods", help="With commas; auto: of each family; name=FOLDER: .npy maps. See `methods`.")
    ] = METHODS,
    metrics: Annotated[
        str, typer.Option("--metrics", help="Names or categories with commas, default, all. See docs/evaluate.md.")
    ] = "default",
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", help="Masks named after the inputs, boxes.csv, COCO, VOC or YOLO; see docs/evaluate.md."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", help="A label or class number; `a>b`: why a rather than b.")
    ] = "top",
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="What shows where something is hidden: blur (usual), zero, mean, time-mean (of suites) ...",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="Known truth, in place of inputs and model: single, texture, scene, motion ...; of both: mosaic.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Methods in their cheaper versions: fewer samples and steps.")
    ] = False,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
    frames: options.Frames = None,
) -> None:
    """Say which explanation to believe on these inputs: measured, ranked beside blind anchors, with error bars."""
    with console.report(as_json, out) as report:
        settings: dict[str, Any] = {
            "baseline": baseline,
            "seed": seed,
            "quick": quick,
            "say": lambda text: say(text, aside=True),
        }
        if suite is not None and suite != _OF_INPUTS:
            found = _on_a_suite(suite, [*(inputs or []), *([masks] if masks else [])], methods, metrics, **settings)
        else:
            from pellucid.errors import MediaError
            from pellucid.media import SCHEMES, VOLUMES, expand

            if not inputs:
                raise MediaError("Name inputs, or a suite: --suite single.")
            batch = given_batch(inputs, model)
            if batch is None:
                files = expand(inputs, clips=None, schemes={*SCHEMES, *VOLUMES})  # what is missing is said at once
            asked: Any = _methods(methods)

            from pellucid.verbs.evaluate import evaluate as run

            given: str | list[str]
            if batch is None:
                vision = of.load(options.fitting_model(model, files), frames=frames)
                given = inputs[0] if len(inputs) == 1 else vision.medium.expand(inputs)
            else:
                vision, given = batch.load(), batch.inputs()
                asked, settings["target"] = batch.asked(target) if methods == METHODS else (asked, target)
            settings = {"target": target, "masks": masks, "keep": out / "work"} | settings
            settings["baseline"] = baseline or "blur"
            with console.progress():
                if suite is None:
                    found = run(vision, given, asked, metrics, **settings)
                else:
                    found = _on_mosaics(vision, given, asked, metrics, **settings)
        saved = [str(path) for path in found.save(out)]
        report["results"].append(_entry(found, saved))
        if not as_json:
            _tell(found, saved)


def _on_a_suite(suite: str, besides: list[Any], methods: str, metrics: str, **settings: Any) -> Scoreboard:
    """The methods on a suite's own pictures.

    Raises:
        MediaError: inputs or masks are named beside it.
    """
    from pellucid.errors import MediaError
    from pellucid.verbs.evaluate_suite import evaluate_suite

    if besides:
        raise MediaError("A suite brings its own inputs, model and masks: leave them out.")
    with console.progress():
        return evaluate_suite(suite, methods, metrics, **settings)


def _on_mosaics(vision: Any, given: Any, methods: Any, metrics: str, **settings: Any) -> Scoreboard:
    """The methods on mosaics of the inputs.

    Raises:
        MediaError: masks or a target are named beside them.
    """
    from pellucid.errors import MediaError
    from pellucid.verbs import evaluate_mosaics as mosaics

    if settings.pop("masks") is not None or settings.pop("target") != "top":
        raise MediaError("A mosaic brings its own target and masks: leave them out.")
    asked = mosaics.METHODS if methods == METHODS else methods
    read = mosaics.METRICS if metrics == "default" else metrics
    return mosaics.evaluate_mosaics(vision, given, asked, read, **settings)


def _methods(text: str) -> Any:
    """Names with commas; `name=FOLDER` is a folder of maps."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not any("=" in part for part in parts):
        return text
    pairs = [part.partition("=") for part in parts]
    return {name: Path(folder) if equals else None for name, equals, folder in pairs}


def _entry(found: Scoreboard, saved: list[str]) -> dict[str, Any]:
    best = found.recommended
    return {
        "inputs": found.samples,
        "recommended": best.name if best is not None else "",
        "lines": list(found.lines()),
        "table": found.table(),
        "said": [{"method": m, "input": s, "error": text} for m, s, text in found.said],
        "notes": found.notes,
        "files": saved,
    }


def _tell(found: Scoreboard, saved: list[str]) -> None:
    """The table on the terminal, and what follows from it."""
    say(found.title)
    for line in _table(found):
        say(line)
    for line in found.lines():
        say(f"  {line}")
    for method, sentence, count in _failures(found):
        more = f" ({count} inputs)" if count > 1 else ""
        say(f"  {method}: {sentence}{more}")
    for note in found.notes:
        say(f"  note: {note}")
    say(f"  page: {saved[-1]}")


def _failures(found: Scoreboard) -> list[tuple[str, str, int]]:
    """What went wrong, each sentence once a method."""
    counted: dict[tuple[str, str], int] = {}
    for method, sample, sentence in found.said:
        plain = sentence.replace(sample, "the input")
        counted[method, plain] = counted.get((method, plain), 0) + 1
    return [(method, sentence, count) for (method, sentence), count in counted.items()]


def _table(found: Scoreboard) -> list[str]:
    """Metrics down, methods across, best first; half of a 95 % interval behind each mean."""
    order = found.order
    rows = [["", *(found.methods[c] for c in order)]]
    standings = {s.name: s.rank for s in found.rank().standings}
    rows.append(["mean rank", *(f"{standings[found.methods[c]]:.2f}" for c in order)])
    for k, m in enumerate(found.metrics):
        cells = []
        for c in order:
            mean, half = found.interval(c, k)
            told = f"{mean:.3g}" if isfinite(mean) else ""
            cells.append(told + (f" ± {half:.1g}" if told and isfinite(half) else ""))
        rows.append([f"{m.name} {'↑' if m.better == 'higher' else '↓'}", *cells])
    for k, name in enumerate(("forwards a map", "backwards a map", "seconds a map")):
        values = [found.price_of(found.methods[c])[k] for c in order]
        rows.append([name, *(f"{v:.3g}" if isfinite(v) else "" for v in values)])
    return _fitted(rows, shutil.get_terminal_size((120, 24)).columns)


def _fitted(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Rows of cells as lines that fit into a width: as many columns at a time as there is room for."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines: list[str] = []
    columns = list(range(1, len(wide)))
    while columns:
        shown = [columns.pop(0)]
        while columns and 2 + wide[0] + sum(2 + wide[i] for i in (*shown, columns[0])) <= width:
            shown.append(columns.pop(0))
        lines += [""] if lines else []
        lines += ["  " + "  ".join(row[i].ljust(wide[i]) for i in (0, *shown)).rstrip() for row in rows]
    return lines
