"""`pellucid distill`: a model that a person can read, with how far to believe it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say

if TYPE_CHECKING:
    from pellucid.models.model import VisionModel


def distill(
    pictures: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Sub-folders are classes; or with labels.csv; or digits:.")
    ],
    into: Annotated[
        str,
        typer.Option(
            "--into",
            help="tree, linear, additive, rules, prototypes, nearest, neighbours, bottleneck, hierarchy, bcos.",
        ),
    ] = "tree",
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="The model to imitate; cnn trains a small one; default: the classes."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The network whose layer gives the words; default: the teacher.")
    ] = None,
    concepts: Annotated[
        str,
        typer.Option(
            "--concepts", help="auto, none, attributes, properties, nmf, semi-nmf, pca, ica, kmeans, sae, batch-sae."
        ),
    ] = "auto",
    count: Annotated[int | None, typer.Option("--count", help="How many concepts, or parts a class.")] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="Of a tree, at most.")] = None,
    features: Annotated[int | None, typer.Option("--features", help="Words a class, curves or rules, at most.")] = None,
    layer: options.Layer = None,
    picture: Annotated[
        str | None, typer.Option("--explain", help="Say why for this picture, and show its way through a tree.")
    ] = None,
    out: options.Out = options.OUT,
    name: Annotated[str | None, typer.Option("--name", help="Of the files; default: data and kind.")] = None,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    scores: options.Scores = None,
    output: options.Output = None,
) -> None:
    """Learn a model that a person can read, and measure how far it can be believed."""
    with console.report(as_json) as report:
        from pellucid.errors import MethodError
        from pellucid.interpretable.learn import KINDS
        from pellucid.keep.files import check_writable
        from pellucid.verbs.distill import distill as learn

        if depth is not None and features is not None:
            raise MethodError("Give --depth (of a tree) or --features (of all others), not both.")
        named = KINDS[into].limit if into in KINDS else ""
        given = "depth" if depth is not None else "features" if features is not None else named
        if into in KINDS and given != named:
            raise MethodError(f"{into} has no --{given}" + (f": give --{named}." if named else ": leave it out."))
        check_writable(out)
        if not as_json and sys.stderr.isatty():
            say("one forward a picture, then minutes of fitting at the most", aside=True)
        taught, network = _declared(teacher, model, scores, output)
        with console.progress():
            found = learn(
                pictures,
                into,
                taught,
                model=network,
                concepts=concepts,
                count=count,
                limit=depth if depth is not None else features,
                layer=layer,
                seed=seed,
            )
            saved = [str(path) for path in found.save(out, name)]
        report["results"].append(
            {
                "into": into,
                "card": found.card.as_dict(),
                "text": str(found.head),
                "notes": [*found.notes, *found.card.notes],
                "files": saved,
            }
        )
        if not as_json:
            say(f"{into} learned from {found.name}")
            say(f"  {found.card.line}")
            for note in [*found.notes, *found.card.notes]:
                say(f"  note: {note}")
        if picture is not None:
            from pellucid.keep.files import write_bytes
            from pellucid.render import figure_png

            evidence = found.explain(picture)
            drawn = Path(saved[0]).with_suffix("")
            drawn = write_bytes(drawn.with_name(f"{drawn.name}.why.png"), figure_png(found.evidence(picture)))
            report["results"][0]["explained"] = {"picture": picture, "text": str(evidence), "file": str(drawn)}
            if not as_json:
                say(f"  {picture}: " + str(evidence).replace("\n", "\n  "))
                say(f"  why: {drawn}")
        if not as_json:
            page = next(path for path in saved if path.endswith(".html"))
            say(f"  page: {page}")


def _declared(
    teacher: str | None, model: str | None, scores: str | None, output: str | None
) -> tuple[VisionModel | str | None, VisionModel | str | None]:
    """The teacher and the network; what is said of a model's output is said of the teacher where there is one."""
    from pellucid.errors import ModelError
    from pellucid.interpretable import small_cnn
    from pellucid.models.sources import is_entry, model_of

    named = teacher if teacher != small_cnn.NAME else None
    if scores is None and output is None:
        first, second = (model_of(name, Path.cwd()) if name and is_entry(name) else name for name in (teacher, model))
        return first, second
    if named is not None:
        return model_of(named, Path.cwd(), scores=scores, output=output), model
    if model is not None:
        return teacher, model_of(model, Path.cwd(), scores=scores, output=output)
    raise ModelError("--scores and --output are of a model: name it with --teacher or --model, or leave them out.")
