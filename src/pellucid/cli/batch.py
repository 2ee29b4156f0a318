"""`pellucid batch`: a folder or a manifest of any length, explained row by row; continued, looked after, exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pellucid.cli import options
from pellucid.cli.console import say
from pellucid.language import counted, printable

if TYPE_CHECKING:
    from pellucid.runs.batch import BatchJob, Progress

_RUN = "run"


class Commands(TyperGroup):
    """`pellucid batch FOLDER ...` runs; `pellucid batch status DIR` and the like look after what ran."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is no command's name is an input of `run`."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    help="Explain a whole data set: `pellucid batch FOLDER --method grad-cam --out DIR`. It can be stopped and resumed "
    "at any point; `status`, `resume`, `retry-failed`, `merge` and `export` look after what ran.",
)


def _engine(name: str) -> str:
    if name not in ("local", "ray"):
        raise typer.BadParameter("local or ray")
    return name


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a batch.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that explain.")]
Engine = Annotated[str, typer.Option("--engine", callback=_engine, help="local, or ray: a cluster that shares DIR.")]


@app.command(_RUN, help="Explain all inputs that have no row yet (the word `run` may be left out).")
@options.spelled_out
def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Folders (with all below), globs, a manifest: .parquet, .csv, .tsv, COCO."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the rows.")],
    verb: Annotated[
        str, typer.Option("--verb", help="explain; importance; evaluate: explain, and measure.")
    ] = "explain",
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model's name; or module:function, which builds it.")
    ] = options.DEFAULT_MODEL,
    method: options.Methods = "grad-cam",
    target: Annotated[str, typer.Option("--target", help="One or several, with commas, or the manifest's.")] = "top",
    settings: options.Settings = None,
    features: Annotated[str, typer.Option("--features", help="Of importance: the players.")] = "superpixels",
    by: Annotated[str, typer.Option("--by", help="Of importance: the estimator.")] = "shapley",
    layer: options.Layer = None,
    seed: options.Seed = 0,
    engine: Engine = "local",
    workers: Workers = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many inputs.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="Of maps: float16, with a scale; float32.")] = "float16",
    as_json: options.Json = False,
    of: options.ModelOptions = options.PLAIN,
    per_frame: options.PerFrame = None,
    frames: options.Frames = None,
    redact: options.Redact = None,
    root: Annotated[
        str | None, typer.Option("--root", help="Where a manifest's paths start; default: its own folder.")
    ] = None,
) -> None:
    """Explain all inputs that have no row yet."""
    from pellucid.models.sources import is_entry
    from pellucid.runs.batch import BatchJob
    from pellucid.runs.manifest import Manifest
    from pellucid.verbs.redaction import known_elsewhere

    asked = _requests(verb, method, target, settings or [], features=features, by=by, layer=layer, seed=seed)
    said = {**of.as_dict(), "per_frame": per_frame, "frames": frames}
    spec: dict[str, Any] = {"name": model, **said}
    if is_entry(model):
        spec = {"entry": model, "path": str(Path.cwd()), **{k: v for k, v in said.items() if v is not None}}
    if precision not in ("float16", "float32"):
        raise typer.BadParameter("float16 or float32", param_hint="--precision")
    spec |= {"precision": precision, "redact": None if redact is None else known_elsewhere(redact)}
    _drive(BatchJob.of(out, asked, Manifest.of(inputs, limit, root), **spec), workers, as_json, engine)


def _requests(verb: str, method: str, target: str, settings: list[str], **how: Any) -> list[Any]:
    """The requests of each input.

    Raises:
        PellucidError: there is no such verb, method, target or setting.
    """
    from pellucid.errors import MethodError
    from pellucid.verbs.choices import as_methods, as_targets, with_settings
    from pellucid.verbs.explain import ExplainRequest
    from pellucid.verbs.importance_request import ImportanceRequest

    if verb == "importance":
        targets = as_targets(target)
        return [
            ImportanceRequest.of(how["features"], how["by"], t, seed=how["seed"], layer=how["layer"]) for t in targets
        ]
    if verb not in ("explain", "evaluate"):
        raise MethodError(f"There is no verb {verb!r} of a batch: choose explain, importance or evaluate.")
    methods = with_settings(as_methods(method, layer=how["layer"], seed=how["seed"]), settings)
    return [
        ExplainRequest(method=m, target=t, seed=how["seed"], check=verb == "evaluate")
        for t in as_targets(target)
        for m in methods
    ]


@app.command("resume")
def resume(folder: Folder, workers: Workers = 1, engine: Engine = "local", as_json: options.Json = False) -> None:
    """Go on where a batch stopped, with either engine."""
    from pellucid.runs.batch import BatchJob

    _drive(BatchJob.opened(folder), workers, as_json, engine)


@app.command("retry-failed")
def retry_failed(folder: Folder, workers: Workers = 1, engine: Engine = "local", as_json: options.Json = False) -> None:
    """Try again what failed, and go on."""
    from pellucid.runs.batch import BatchJob, retry_failed

    batch = BatchJob.opened(folder)
    say(f"{retry_failed(folder)} inputs are tried again.", aside=True)
    _drive(batch, workers, as_json, engine)


@app.command("status")
def status(folder: Folder, as_json: options.Json = False) -> None:
    """Say how far a batch is."""
    from pellucid.runs.batch import status

    found = status(folder)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _told(found)


@app.command("merge")
def merge(
    folder: Folder, rows: Annotated[int, typer.Option("--rows", min=1, help="At most, in a file.")] = 100_000
) -> None:
    """Put many small files of rows together into few."""
    from pellucid.runs.batch import merge

    say(counted(merge(folder, rows), "file"))


@app.command("export")
def export(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="A .parquet, .csv or .jsonl file.")],
    where: Annotated[str | None, typer.Option("--where", help="A condition in SQL on the columns.")] = None,
    maps: Annotated[bool, typer.Option("--maps", help="With the maps and full records (.parquet only).")] = False,
) -> None:
    """Write the rows of a batch, or some of them, into one file."""
    from pellucid.runs.export import export

    say(f"{counted(export(folder, file, where=where, maps=maps), 'row')}: {file}")


def _told(found: Progress) -> None:
    """How far it is, with what must be known."""
    say(found.line)
    for note in found.notes:
        say(f"  note: {note}")
    if found.error:
        say(f"  failed: {found.error}")


def _drive(batch: BatchJob, workers: int, as_json: bool, engine: str) -> None:
    """Run, with a line now and then; exit code 1 where rows failed, 130 where it was stopped."""
    terminal = sys.stderr.isatty()

    def tell(progress: Progress) -> None:
        if terminal and not as_json:
            print(f"\r\033[K{printable(progress.line, sys.stderr)}", end="", file=sys.stderr, flush=True)

    found = batch.run(workers, tell, engine)
    if terminal and not as_json:
        print(file=sys.stderr)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _told(found)
        say(f"  rows: {batch.folder}")
    if not found.complete:
        say(f"pellucid: stopped; `pellucid batch resume {batch.folder}` goes on.", aside=True)
        raise typer.Exit(130)
    if found.failed:
        raise typer.Exit(1)
