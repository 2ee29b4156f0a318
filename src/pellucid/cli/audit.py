"""`pellucid audit`: where a model goes wrong on many pictures, and on what evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.console import say

if TYPE_CHECKING:
    from pellucid.results.audit import Audit


def audit(
    pictures: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Pictures (sub-folders or labels.csv: classes); sample:*, digits:.")
    ],
    model: options.ModelName = options.DEFAULT_MODEL,
    layer: Annotated[str | None, typer.Option("--layer", help="Module path; default: the last with places.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for page, table, values and record.")] = Path(
        "pellucid-out"
    ),
    as_json: options.Json = False,
    seed: Annotated[int, typer.Option("--seed", help="Of whatever is random.")] = 0,
    device: options.Device = None,
    weights: options.Weights = None,
    random_weights: options.RandomWeights = False,
    labels: options.Labels = None,
    scores: options.Scores = None,
    output: options.Output = None,
    task: options.Task = None,
) -> None:
    """Find where a model goes wrong and on what evidence: slices, wrong reasons tested by exchange, doubtful data."""
    from pellucid.cli.console import document, progress

    report: dict[str, Any] = {"format": "pellucid-report/1", "results": [], "failed": []}
    with document(report, as_json):
        from pellucid.media import read_folder
        from pellucid.storage import check_writable

        read_folder(pictures)
        check_writable(out)

        from pellucid.verbs.audit import audit as run

        vision = options.load_model(
            model, weights, random_weights, labels, device, scores=scores, output=output, task=task
        )
        with progress():
            found = run(vision, pictures, layer=layer, keep=out / "work", seed=seed)
            saved = [str(path) for path in found.save(out)]
        report["results"].append(_entry(found, saved))
        report["failed"] += [{"error": sentence} for sentence in found.samples.failed]
        if not as_json:
            say(f"{found.name}: {len(found.samples)} pictures, layer {found.samples.layer}")
            for line in found.lines():
                say(f"  {line}")
            for note in found.notes:
                say(f"  note: {note}")
            say(f"  page: {saved[-1]}")


def _entry(found: Audit, saved: list[str]) -> dict[str, Any]:
    return {
        "input": found.record.input["source"] or found.name,
        "pictures": len(found.samples),
        "lines": list(found.lines()),
        "wrong reasons": [
            {"class": r.label, "part": r.name, "drop": r.drop, "low": r.low, "high": r.high, "rise": r.rise, "p": r.p}
            for r in found.wrong_reasons
        ],
        "slices": [{"name": s.name, "gap": s.gap, "low": s.low, "high": s.high, "p": s.p} for s in found.sure_slices],
        "notes": found.notes,
        "files": saved,
    }
