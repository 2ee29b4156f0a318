"""`pellucid explain`: from pictures to heat maps, measured and saved."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import console, options
from pellucid.cli.all_methods import best_of_a_pass, explained_one_by_one, methods_that_suit, named_methods
from pellucid.cli.beside_truth import boxes_first, end_of_truth
from pellucid.cli.console import say
from pellucid.cli.film import films_among, films_first
from pellucid.cli.stages import stage_by_stage, stages_alone

if TYPE_CHECKING:
    from pellucid.heatmaps import Method
    from pellucid.results import Heatmap, Heatmaps
    from pellucid.verbs.located import Located


@options.spelled_out
def explain(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Pictures, clips, folders, globs, sample:NAME.")
    ],
    model: options.ModelName = options.DEFAULT_MODEL,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="One or several, with commas: see `methods`; default: auto for a picture that is measured, else "
            "grad-cam.",
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", help="Labels or class numbers with commas; `a>b`: why a rather than b.")
    ] = "top",
    settings: options.Settings = None,
    many: Annotated[
        int | None, typer.Option("--many", help="Of sufficient: up to so many regions that share no place.")
    ] = None,
    guarantee: Annotated[
        float | None,
        typer.Option("--guarantee", help="Of sufficient: the share of new pictures it may fail for, such as 0.1."),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", metavar="FOLDER", help="Pictures that the guarantee is learned from.")
    ] = None,
    layer: options.Layer = None,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    check: Annotated[
        bool | None,
        typer.Option("--check/--no-check", help="Measure the quality; default: for one picture."),
    ] = None,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
    per_frame: options.PerFrame = None,
    frames: options.Frames = None,
    window: options.Window = None,
    runtime: options.Runtime = "auto",
    precision: options.Precision = "f32",
    per_slice: options.PerSlice = None,
    dicom: options.Dicom = "auto",
    keep_identifiers: options.KeepIdentifiers = False,
    truth: options.Truth = None,
    redact: options.Redact = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Maps at every stage of the network from one pass, and what flows through.")
    ] = False,
) -> None:
    """Show where a model looked, and measure whether the answer can be trusted."""
    with console.report(as_json, out) as report, options.running(runtime, precision):
        from pellucid.media import SCHEMES, VOLUMES, expand

        inputs = options.in_window(inputs, window)
        # what is missing is said before anything heavy is loaded
        files = expand(inputs, clips=None, schemes={*SCHEMES, *VOLUMES})

        from pellucid.results import names_of_inputs
        from pellucid.verbs.beside_truth import explain_beside
        from pellucid.verbs.choices import as_methods, as_targets, with_settings
        from pellucid.verbs.explain import explain_each
        from pellucid.verbs.film import reel
        from pellucid.verbs.guarantee import with_guarantee
        from pellucid.verbs.redaction import without

        targets, asked = as_targets(target), [*(settings or []), *([] if many is None else [f"many={many}"])]
        method, every, unnamed = named_methods(
            method, settled=(check is False, stages, truth, asked, layer, guarantee, len(files) > 1)
        )
        # of stages, the layer says which are shown
        methods = [] if every else with_settings(as_methods(method, layer=None if stages else layer, seed=seed), asked)
        vision = of.load(options.fitting_model(model, files), per_frame=per_frame, frames=frames, per_slice=per_slice)
        beside = {
            "--stages": stages,
            "--method all": every,
            "--truth": truth,
            "--guarantee": guarantee,
            "--check": check,
        }
        files = vision.medium.expand(inputs)
        files = films_first(
            films_among(vision, files, sampled=frames is not None),
            files,
            partial(reel, vision, method=methods, target=targets, frames=frames, seed=seed),
            beside,
            redact,
            out,
            report,
            quiet=as_json,
        )
        if stages:
            stages_alone({"--method all": every, "--truth": truth, "--redact": redact, "--guarantee": guarantee})
            stage_by_stage(vision, files, methods, targets, layer, out, report, quiet=as_json)
            return
        if every:
            method = ",".join(methods_that_suit(vision, files[0], targets[0], report, quiet=as_json))
            methods = with_settings(as_methods(method, layer=layer, seed=seed), asked)
        methods = with_guarantee(
            best_of_a_pass(methods, vision, seed, unnamed=unnamed), vision, calibration, targets[0], guarantee
        )
        located = None
        if truth is not None:
            boxes = partial(explain_beside, vision, files, methods=methods, seed=seed)
            located = boxes_first(vision, files, truth, boxes, redact, report, out, as_json)
            if located is None:
                return
        _tell_costs(methods if files and not as_json else [])
        measured = len(files) == 1 and not vision.medium.moving if check is None else check
        taken = names_of_inputs(out, files)
        explaining = partial(explained_one_by_one, report=report) if every else explain_each
        outcomes = without(redact, explaining(vision, files, methods, targets, seed=seed))
        outcomes = outcomes if located is None else located.beside(outcomes, files, targets)
        for name, found in console.with_progress(outcomes):
            if isinstance(found, Exception):
                report["failed"].append({"input": name, "error": str(found)})
                say(f"pellucid: {found}", aside=True)
                continue
            if measured:
                _measure(found)
            saved = list(map(str, found.save_panel(out, taken, dicom=dicom, keep_identifiers=keep_identifiers)))
            report["results"] += _entries(found, saved, located)
            if not as_json:
                tell(found, saved, measured=check is not None or not vision.medium.moving)
        if located is not None:
            end_of_truth(located, report, out, quiet=as_json)
    _end(files, report, quiet=as_json)


def _end(files: Sequence[str], report: dict[str, Any], *, quiet: bool) -> None:
    """Tell the shell whether an input failed, and people how many pictures did not."""
    failed = report["failed"]
    if failed and len(files) > 1 and not quiet:
        done = len(files) - sum(not each.get("film") for each in failed)
        say(f"{done} of {len(files)} pictures explained; the others are named above.", aside=True)
    if failed:
        raise typer.Exit(1)


def _tell_costs(methods: Sequence[Method]) -> None:
    """What each will cost, to whoever looks on; to a log, of those alone that cost thousands of passes."""
    for m in methods if sys.stderr.isatty() else (m for m in methods if m.dear):
        say(f"{m.name}: {m.cost} a picture{' and target' if m.uses_target else ''}", aside=True)


def _measure(found: Heatmaps) -> None:
    """The quality of explanations; where it cannot be measured, what was found is saved nevertheless."""
    from pellucid.errors import ModelError, UnsteadyError

    try:
        with console.progress():
            found.check()
    except UnsteadyError:
        raise
    except ModelError as failure:
        for e in found:
            e.notes.append(f"Its quality could not be measured ({failure}).")


def entry(e: Heatmap, saved: list[str]) -> dict[str, Any]:
    """An explanation and its files, as `--json` tells of them."""
    return {
        "input": e.record.input["source"] or e.name,
        "prediction": [asdict(p) for p in e.prediction],
        "target": e.target,
        "method": e.method,
        "layer": e.layer,
        "facts": e.facts,
        "notes": e.notes,
        "remarks": e.remarks,
        "quality": None if e.quality is None else e.quality.as_dict(),
        "files": saved,
    }


def _entries(found: Heatmaps, saved: list[str], located: Located | None) -> list[dict[str, Any]]:
    """The explanations of one picture, with their figures beside the truth where that is asked for."""
    entries = [entry(e, saved) for e in found]
    return entries if located is None else located.noted(found, entries)


def tell(found: Heatmaps, saved: list[str], *, measured: bool = True) -> None:
    """Print the explanations of one picture, and which files show them."""
    from pellucid.heatmaps.enough import certificate

    first = found[0]
    answers = ", ".join(f"{p.label} {p.said()}" for p in first.prediction[:3])
    name = first.record.input["source"] or first.name
    say(f"{name}: {answers}" if answers else name)
    for e in found:
        where = f", layer {e.layer}" if e.layer else ""
        say(f"  {e.method} for {e.target}{where}")
        if vouched := certificate(e.facts):
            say(f"    {vouched}")
        if e.quality is not None:
            say(f"    {e.quality.line}")
        for note in e.notes:
            say(f"    note: {note}")
        for remark in e.remarks:
            say(f"    {remark}")
    say(f"  picture: {saved[-1]}")
    for file in saved:
        if file.endswith(".webm"):
            say(f"  video: {file}")
    if not measured:
        say("  not measured: --check does, for about 420 passes of the clip")
