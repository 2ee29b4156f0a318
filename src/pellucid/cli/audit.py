"""`pellucid audit`: where a model goes wrong on many pictures, and on what evidence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say
from pellucid.cli.of_batch import given_batch
from pellucid.keep.journal import Journal

if TYPE_CHECKING:
    from pellucid.results.audit import Audit


class FailIfFound(StrEnum):
    """What makes the command exit with 1."""

    REASON = "reason"
    SLICE = "slice"
    ANY = "any"


@dataclass(frozen=True)
class AuditOptions:
    """What is known besides, and who else reads what is found."""

    metadata: Annotated[
        Path | None,
        typer.Option("--metadata", help="A CSV of what else is known: the picture's file first, then named columns."),
    ] = None
    export: Annotated[
        str | None,
        typer.Option("--export", help="For other tools, with commas: csv, parquet, coco, fiftyone, junit."),
    ] = None
    fail_if: Annotated[
        FailIfFound | None,
        typer.Option("--fail-if", help="Exit with 1 if a wrong reason, a weak slice, or any of them is found."),
    ] = None

    @property
    def kinds(self) -> list[str]:
        """Formats of `export`."""
        return [kind.strip() for kind in (self.export or "").split(",") if kind.strip()]

    def fails(self, found: Audit) -> bool:
        """Whether the command exits with 1."""
        reasons, weak = bool(found.wrong_reasons), bool(found.sure_slices)
        bad = {None: False, FailIfFound.REASON: reasons, FailIfFound.SLICE: weak, FailIfFound.ANY: reasons or weak}
        return bad[self.fail_if]


PLAIN = AuditOptions()


@options.spelled_out
def audit(
    pictures: Annotated[
        str,
        typer.Argument(metavar="FOLDER", help="Pictures (sub-folders or labels.csv: classes), or a batch of them."),
    ],
    model: options.ModelName = options.DEFAULT_MODEL,
    layer: options.LayerWithPlaces = None,
    beside: AuditOptions = PLAIN,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
    seed: options.Seed = 0,
    of: options.ModelOptions = options.PLAIN,
) -> None:
    """Find where a model goes wrong and on what evidence: slices, wrong reasons tested by exchange, doubtful data."""
    batch = Journal(pictures).exists
    with console.report(as_json, out, *([] if batch else [pictures])) as report:
        of_batch = given_batch([pictures], model)
        from pellucid.results.audit_exports import require_formats
        from pellucid.verbs.audit import audit as run

        require_formats(beside.kinds)
        vision = of.load(model) if of_batch is None else of_batch.load()
        looked = pictures if of_batch is None else of_batch.pictures()
        with console.progress():
            found = run(vision, looked, layer=layer, given=beside.metadata, keep=out / "work", seed=seed)
            saved = [str(path) for path in found.save(out)]
            exported = [str(path) for kind in beside.kinds for path in found.export(kind, out)]
        report["results"].append(_entry(found, [*saved, *exported]))
        report["failed"] += [{"error": sentence} for sentence in found.samples.failed]
        if not as_json:
            console.tell(f"{found.name}: {len(found.samples)} pictures, layer {found.samples.layer}", found)
            say(f"  page: {saved[-1]}")
    if beside.fails(found):
        raise typer.Exit(1)


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
