"""`pellucid importance`: what matters most, to one picture or to a folder of them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say
from pellucid.language import printable
from pellucid.language.breaks import cells, padded

if TYPE_CHECKING:
    from pellucid.results import Importance


_GROUPS, _OF_A_GROUP = 12, 3  # groups printed, and players of each


@options.spelled_out
def importance(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="A picture; or a folder (subfolders are groups), a glob, several."),
    ],
    features: Annotated[
        str,
        typer.Option(
            "--features",
            "-f",
            help="superpixels, patches, regions, channels, tokens, layers, colours, frequencies, properties; "
            "of clips frames, segments, tubes.",
        ),
    ] = "superpixels",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="ablation, shapley, kernel, owen, lime, tree, gradient, conductance; of a folder also permutation.",
        ),
    ] = "shapley",
    model: options.ModelName = options.DEFAULT_MODEL,
    target: Annotated[
        str, typer.Option("--target", help="A label or class number; `a>b`: why a rather than b.")
    ] = "top",
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Module path, for channels and tokens; several with commas for layers."),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option("--regions", help="A label image, or a .json of named boxes, in the picture's pixels."),
    ] = None,
    removal: Annotated[
        str | None, typer.Option("--removal", help="What stands in for parts of a model: zero, mean, resample, bypass.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="What shows where a region is out: zero, mean, blur, uniform, inpaint, noisy-linear, dropped.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="About how many superpixels, patches or bands.")] = None,
    segments: Annotated[
        str | None, typer.Option("--segments", help="How superpixels are cut: slic, felzenszwalb, grid.")
    ] = None,
    samples: Annotated[
        str, typer.Option("--samples", help="A number; auto: until the error is small; exact, for shapley.")
    ] = "auto",
    group: Annotated[str, typer.Option("--group", help="Of a folder: auto, predicted, folder.")] = "auto",
    compare: Annotated[
        str | None, typer.Option("--compare", help="Of a folder: `a>b`, two groups, the first less the second.")
    ] = None,
    order: Annotated[
        bool, typer.Option("--order", help="Of a clip: is the order of its frames needed, and how few are enough?")
    ] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Players printed.")] = 10,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
    runtime: options.Runtime = "auto",
    precision: options.Precision = "f32",
    redact: options.Redact = None,
) -> None:
    """Say how much each part of a picture, or of the model, matters."""
    with console.report(as_json) as report, options.running(runtime, precision):
        from pellucid.errors import MethodError
        from pellucid.keep.files import check_writable
        from pellucid.media.pictures import is_collection

        given = inputs[0] if len(inputs) == 1 else inputs
        several = is_collection(given, None)
        if not (samples in ("auto", "exact") or samples.isdecimal()):
            raise MethodError(f"{samples!r} is no number of samples: give a number, auto or exact.")
        spend = int(samples) if samples.isdecimal() else samples
        check_writable(out)

        from pellucid.errors import PellucidError
        from pellucid.verbs.importance import importance_of_given
        from pellucid.verbs.importance_request import ImportanceRequest
        from pellucid.verbs.redaction import redaction

        hide = None if redact is None else redaction(redact)

        asked = ImportanceRequest.of(
            features, by, target, samples=spend, seed=seed, regions=regions, layer=layer, removal=removal,
            baseline=baseline, count=count, segments=segments,
            gathered={"group": group, "compare": compare, "order": order},
        )  # fmt: skip
        named = options.fitting_model(model, inputs)
        vision = of.load(named)
        failed: list[PellucidError] = []
        aside = None if as_json or not sys.stderr.isatty() else partial(say, aside=True)
        with console.progress():
            work = out / "work" if several else None
            found = importance_of_given(vision, given, asked, keep=work, say=aside, failed=failed, hide=hide)
        saved = [str(path) for path in found.save(out)]
        report["results"].append(_entry(found, saved))
        report["failed"] += [{"error": str(error)} for error in failed]
        for error in failed:
            say(f"pellucid: {error}", aside=True)
        if not as_json:
            _tell(found, saved, top)
    if failed:
        raise typer.Exit(1)


def _entry(found: Importance, saved: list[str]) -> dict[str, Any]:
    return {
        "input": found.record.input["source"] or found.name,
        "prediction": [asdict(p) for p in found.prediction],
        "target": found.target,
        "features": found.features,
        "by": found.by,
        "layer": found.layer,
        "full": found.full,
        "empty": found.empty,
        "efficiency_gap": found.efficiency_gap,
        "interactions": [
            {"players": [found.names[i], found.names[j]], "value": value} for i, j, value in found.interactions
        ],
        "tree": None if found.tree is None else found.tree.words(found.names),
        "table": list(found.table()),
        "notes": found.notes,
        "files": saved,
    }


def _tell(found: Importance, saved: list[str], top: int) -> None:
    from math import isfinite, isnan

    answers = ", ".join(f"{p.label} {p.said()}" for p in found.prediction[:3])
    source = found.record.input["source"] or found.name
    say(f"{source}: {answers}" if answers else f"{source}: {found.record.input.get('count', 1)} pictures")
    where = f", layer {found.layer}" if found.layer else ""
    say(f"  {found.features} by {found.by} for {found.target}{where}")
    names = [printable(name) for name in found.names]
    wide = max(map(cells, names))
    groups = found.shares[1 : _GROUPS + 1]
    parts = [found.shares[0], *groups, *([found.difference] if found.difference is not None else [])]
    for share in parts:
        if found.of_a_set:
            say(f"  {share.group}: {share.count} picture{'s' * (share.count != 1)}")
        for rank, k in enumerate(share.ranking()[: min(top, _OF_A_GROUP) if any(share is g for g in groups) else top]):
            low, high = float(share.low[k]), float(share.high[k])
            interval = "" if isnan(low) or low == high else f"  [{low:+.3g}, {high:+.3g}]"
            changed = "" if share.changed is None else f"  changes {float(share.changed[k]):.0%} of the answers"
            name = padded(names[k], wide)
            say(f"  {rank + 1:4d}. {name}  {float(share.values[k]):+9.3g}{interval}{printable(changed)}")
    if len(found.shares) - 1 > len(groups):
        say(f"  and {len(found.shares) - 1 - len(groups)} more groups, in the table")
    if isfinite(found.full):
        gap = found.efficiency_gap
        say(
            f"    score {found.full:.3g} = {found.empty:.3g} without any + {float(found.values.sum()):.3g} from all "
            f"{len(found.names)} (gap {gap:.2g})"
        )
    for i, j, value in found.interactions:
        say(f"    {found.names[i]} with {found.names[j]}: {value:+.3g} beyond what each adds")
    if found.tree is not None:
        say("    the score in words:")
        say("\n".join(f"      {line}" for line in found.tree.words(found.names)))
    for note in found.notes:
        say(f"    note: {note}")
    table = next(path for path in saved if path.endswith(".csv"))
    say(f"  picture: {saved[-1]}, table: {table}")
