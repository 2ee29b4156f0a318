"""`pellucid concepts`: which concepts a layer knows, and what each does to the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say

if TYPE_CHECKING:
    from pellucid.verbs.concepts import Concepts


@options.spelled_out
def concepts(
    pictures: options.Pictures,
    model: options.ModelName = options.DEFAULT_MODEL,
    layer: options.LayerWithPlaces = None,
    by: Annotated[
        str, typer.Option("--by", help="nmf, semi-nmf, pca, ica, kmeans, sae, batch-sae, random; auto: by the layer.")
    ] = "auto",
    count: Annotated[int | None, typer.Option("--count", help="Concepts; default: 25, of sae 2 x channels.")] = None,
    crops: Annotated[
        int, typer.Option("--crops", help="Cut each picture into this many squares an axis, as CRAFT does.")
    ] = 0,
    stable: Annotated[
        bool, typer.Option("--stability/--no-stability", help="Whether concepts are found again: two more fits.")
    ] = True,
    limit: Annotated[int, typer.Option("--limit", help="Pictures on which the effect is measured.")] = 200,
    regions: Annotated[
        Path | None, typer.Option("--regions", help="Label images of the pictures, to name concepts by.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", help="Sub-folders of example pictures, to name concepts by.")
    ] = None,
    words: Annotated[
        Path | None, typer.Option("--words", help="Words, one a line, to name concepts by (extra `clip`).")
    ] = None,
    clip: Annotated[str | None, typer.Option("--clip", help="Weights for --words: a file, or a name.")] = None,
    settings: options.Settings = None,
    top: Annotated[int, typer.Option("--top", help="Concepts printed.")] = 10,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
) -> None:
    """Find the concepts of a layer in many pictures, and measure them beside random ones."""
    with console.report(as_json, out, pictures) as report:
        from pellucid.media import read_folder, read_lines
        from pellucid.verbs.choices import parsed
        from pellucid.verbs.concepts import concepts as find

        chosen = dict(parsed(text) for text in settings or [])
        vision = of.load(model)
        if not as_json and sys.stderr.isatty():
            total = len(read_folder(pictures))
            looked = min(limit, total)
            say(
                f"{total} pictures: a forward each (none if their features are known), then {3 * looked} forwards "
                f"and {looked} backwards for what the concepts do",
                aside=True,
            )
        with console.progress():
            found = find(
                vision,
                pictures,
                layer,
                by,
                count=count,
                seed=seed,
                crops=crops,
                stable=stable,
                limit=limit,
                regions=regions,
                examples=examples,
                words=read_lines(words) if words is not None else (),
                clip=clip,
                **chosen,
            )
            saved = [str(path) for path in found.save(out)]
        report["results"].append(_entry(found, saved))
        if not as_json:
            _tell(found, saved, top)


def _entry(found: Concepts, saved: list[str]) -> dict[str, Any]:
    from pellucid.verbs.concepts import standings

    return {
        "input": found.record.input["source"] or found.record.input["name"],
        "by": found.dictionary.name,
        "layer": f"{found.layer} ({found.layout})",
        "pictures": found.count,
        **standings(found),
        "table": found.table(),
        "notes": found.notes,
        "files": saved,
    }


def _tell(found: Concepts, saved: list[str], top: int) -> None:
    from pellucid.render.concepts import facts, leading_groups, summary, what

    say(f"{found.record.input['source'] or found.record.input['name']}:")
    say(f"  {what(found)}")
    for line in summary(found):
        say(f"  {line}")
    for rank, k in enumerate(found.ranking()[: max(1, top)]):
        does = ""
        if found.whole is not None:
            low, high = found.whole.low[k], found.whole.high[k]
            does = f" {found.whole.values[k]:+.3g} [{low:+.3g}, {high:+.3g}]"
        most = leading_groups(found, k)
        say(f"  {rank + 1:3d}. {found.called(k)}{does}, {facts(found, k)}{f'; most for {most}' if most else ''}")
    for note in found.notes:
        say(f"  note: {note}")
    page = next(path for path in saved if path.endswith(".html"))
    say(f"  sheet: {saved[-1]}, all concepts: {page}")
