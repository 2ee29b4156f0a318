"""`pellucid visualize`: what the units of a model have learned, and what its layers make of a picture."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say

if TYPE_CHECKING:
    from pellucid.models.model import VisionModel
    from pellucid.results.features import FeatureImages

SAMPLES = "sample:*"


@options.spelled_out
def visualize(
    picture: Annotated[
        str | None, typer.Argument(metavar="[INPUT]", help="A picture on which the units' maps are shown too.")
    ] = None,
    model: options.ModelName = options.DEFAULT_MODEL,
    layer: Annotated[str | None, typer.Option("--layer", help="Module path: see `layers`.")] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", help="3, 3,5 or 0:16; without it all of the layer (DeepDream).")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="The class to visualise; with --layer: what relevance is to.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="Other units: neuron:LAYER:CHANNEL, token:LAYER:CHANNEL, layer:NAME."),
    ] = None,
    parametrization: Annotated[
        str | None, typer.Option("--parametrization", help="fourier (default), maco, pixel or cppn.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="fast, standard or fine: steps and views.")] = "fast",
    size: Annotated[int | None, typer.Option("--size", help="Longer side of the made picture, in pixels.")] = None,
    exemplars: Annotated[
        str, typer.Option("--exemplars", help="Natural pictures: a folder or a glob; none for none.")
    ] = SAMPLES,
    by: Annotated[
        str,
        typer.Option("--by", help="Rank natural pictures or channels by activation, or by relevance to the target."),
    ] = "activation",
    activations: Annotated[
        str | None, typer.Option("--activations", metavar="INPUT", help="Show what layers make of this picture.")
    ] = None,
    atlas: Annotated[
        str | None, typer.Option("--atlas", metavar="FOLDER", help="Lay out a layer's activations over these pictures.")
    ] = None,
    projection: Annotated[str, typer.Option("--projection", help="Of the atlas: tsne, pca or umap.")] = "tsne",
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", help="Make pictures from so many seeds and compare them; 1 for fast, else 2."),
    ] = None,
    of: options.ModelOptions = options.PLAIN,
) -> None:
    """Show what units have learned: a picture made for each, natural exemplars, and how far to believe them."""
    told: list[str] = []
    with console.report(as_json) as report:
        from pellucid.errors import MethodError
        from pellucid.keep.files import check_writable
        from pellucid.media import expand

        if sum(given is not None for given in (activations, atlas)) > 1:
            raise MethodError("--activations and --atlas are two different sheets: ask for one.")
        for given in (picture, activations, atlas, None if exemplars == "none" else exemplars):
            if given is not None:
                expand([given])  # fails before a model is loaded
        check_writable(out)

        vision = of.load(model)
        if activations is None and picture is not None and layer is target is objective is None:
            activations = picture
        with console.progress():
            if activations is not None:
                told = _activations(report, vision, activations, layer, by, target, out)
            elif atlas is not None:
                told = _atlas(report, vision, atlas, layer, projection, seed, out)
            else:
                from pellucid.results.features import FeatureImage, FeatureImages
                from pellucid.verbs.visualize import visualize as make

                found = make(
                    vision,
                    picture,
                    layer=layer,
                    channel=channel,
                    target=target,
                    objective=objective,
                    parametrization=parametrization,
                    preset=preset,
                    size=size,
                    exemplars=None if exemplars == "none" else exemplars,
                    by=by,  # type: ignore[arg-type]
                    seed=seed,
                    seeds=seeds,
                    say=None if as_json or not sys.stderr.isatty() else partial(say, aside=True),
                )
                told = _units(report, FeatureImages([found]) if isinstance(found, FeatureImage) else found, out)
    if not as_json:
        say("\n".join(told))


def _units(report: dict[str, Any], found: FeatureImages, out: Path) -> list[str]:
    saved = [str(path) for path in found.save(out)]
    told = [f"{found[0].record.model['name']}: {found.about()}"]
    for unit in found:
        told += [f"  {unit.objective}", f"    {unit.quality.line}"]
        told += [f"    note: {note}" for note in unit.notes]
        top = unit.natural.top if unit.natural else ()
        report["results"].append(
            {
                "objective": unit.objective,
                "layer": unit.layer,
                "channel": unit.channel,
                "reached": unit.reached,
                "quality": unit.quality.as_dict(),
                "exemplars": [{"input": e.origin.source, "score": e.score, "box": e.source_box()} for e in top],
                "notes": unit.notes,
                "facts": unit.facts,
                "files": saved,
            }
        )
    return [*told, f"  page: {saved[-2]}", f"  sheet: {saved[-1]}"]


def _activations(
    report: dict[str, Any], vision: VisionModel, given: str, layer: str | None, by: str, target: str | None, out: Path
) -> list[str]:
    from pellucid.verbs.activations import activations

    names = layer.split(",") if layer else None
    found = activations(vision, given, layer=names, by=by, target=target)  # type: ignore[arg-type]
    saved = [str(path) for path in found.save(out)]
    told = [f"{found.record.input['source'] or found.name}: what the layers of {vision.name} make of it"]
    for maps in found.maps:
        order = maps.order()[:5]
        channels = ", ".join(f"#{c} {float(maps.ranking[c]):.3g}" for c in order)
        told.append(f"  {maps.layer.name} ({maps.layer.layout}): {channels}")
        report["results"].append(
            {
                "input": found.record.input["source"] or found.name,
                "layer": maps.layer.name,
                "ranked by": maps.ranked_by,
                "target": found.target or None,
                "channels": [{"channel": c, "value": float(maps.ranking[c])} for c in maps.order()],
                "files": saved,
            }
        )
    return [*told, f"  sheet: {saved[-1]}"]


def _atlas(
    report: dict[str, Any], vision: VisionModel, given: str, layer: str | None, projection: str, seed: int, out: Path
) -> list[str]:
    from pellucid.verbs.atlas import atlas

    found = atlas(vision, given, layer=layer, projection=projection, seed=seed)  # type: ignore[arg-type]
    saved = [str(path) for path in found.save(out)]
    report["results"].append(
        {"layer": found.layer, "pictures": found.count, "cells": len(found.cells), "kept": found.kept,
         "chance": found.chance, "files": saved}
    )  # fmt: skip
    return [
        f"atlas of {found.layer} over {found.count} pictures, {len(found.cells)} cells",
        f"  {found.line}",
        f"  sheet: {saved[-1]}",
    ]
