"""`pellucid audit`: where a model goes wrong on many pictures, and on what evidence."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import console, options
from pellucid.cli.console import say
from pellucid.cli.of_batch import given_batch
from pellucid.keep.journal import Journal
from pellucid.language import counted

if TYPE_CHECKING:
    from pellucid.media import Pictures
    from pellucid.models.model import VisionModel
    from pellucid.models.task import Task
    from pellucid.results.audit import Audit
    from pellucid.results.box_audit import BoxAudit


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

    training: Annotated[
        str | None,
        typer.Option("--training", help="Pictures that were learned from: similar ones beside errors, and leaks."),
    ] = None
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", help="What is truly there: COCO, VOC or YOLO files, a table of boxes, a folder of mask PNGs."
        ),
    ] = None
    score: Annotated[float, typer.Option("--score", help="Of a detector: from which score on its boxes count.")] = 0.0

    @property
    def kinds(self) -> list[str]:
        """Formats of `export`."""
        return [kind.strip() for kind in (self.export or "").split(",") if kind.strip()]

    def fails(self, found: Audit | BoxAudit) -> bool:
        """Whether the command exits with 1."""
        reasons, weak = bool(getattr(found, "wrong_reasons", ())), bool(found.sure_slices)
        bad = {None: False, FailIfFound.REASON: reasons, FailIfFound.SLICE: weak, FailIfFound.ANY: reasons or weak}
        return bad[self.fail_if]


PLAIN = AuditOptions()


@options.spelled_out
def audit(
    pictures: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="Pictures (sub-folders or labels.csv: classes), a batch, a COCO file beside its pictures, or a CSV.",
        ),
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
    batch, listing = Journal(pictures).exists, Path(pictures).suffix.lower() in (".json", ".xml", ".csv")
    with console.report(as_json, out, *([] if batch or listing else [pictures])) as report:
        of_batch = given_batch([pictures], model)
        from pellucid.audit.reasons import PAIRS
        from pellucid.results.audit_exports import require_formats
        from pellucid.verbs.audit import audit as run
        from pellucid.verbs.labelled import labelled

        vision = of.load(model) if of_batch is None else of_batch.load()
        looked = pictures if of_batch is None else of_batch.pictures()
        shown = labelled(looked, vision.medium, beside.truth, vision.labels or ())
        if shown.truth is not None and (task := _placing(vision, shown.pictures)):
            boxes = _beside_truth(replace(vision, task=task), pictures, beside, (out, seed), report, quiet=as_json)
            if beside.fails(boxes):
                raise typer.Exit(1)
            return
        require_formats(beside.kinds)
        if not as_json and sys.stderr.isatty():
            total = len(shown.pictures)
            say(
                f"{total} inputs: a forward and a backward each (none if they are kept from a run before), then 10 to "
                f"30 forwards for each of up to {PAIRS} of a class, to test what it rests on",
                aside=True,
            )
        with console.progress():
            given: dict[str, Any] = {"truth": beside.truth, "given": beside.metadata, "training": beside.training}
            found = run(vision, looked, layer=layer, keep=out / "work", seed=seed, **given)
            saved = [str(path) for path in found.save(out)]
            exported = [str(path) for kind in beside.kinds for path in found.export(kind, out)]
        report["results"].append(_entry(found, [*saved, *exported]))
        report["failed"] += [{"error": sentence} for sentence in found.samples.failed]
        if not as_json:
            looked = counted(len(found.samples), "clip" if vision.takes_clips else "picture")
            console.tell(f"{found.name}: {looked}, layer {found.samples.layer}", found)
            say(f"  page: {saved[-1]}")
    if beside.fails(found):
        raise typer.Exit(1)


def _placing(model: VisionModel, pictures: Pictures) -> Task | None:
    """What a detector or segmentation network answers; None of any other model."""
    from pellucid.audit.metadata import source_in
    from pellucid.models.tasks import BoxTask, RegionTask
    from pellucid.verbs.beside_truth import task_beside

    if model.medium.moving:
        return None
    task = task_beside(model, [source_in(pictures, i) for i in range(len(pictures))])
    return task if isinstance(task, BoxTask | RegionTask) else None


def _beside_truth(
    model: VisionModel,
    pictures: str,
    beside: AuditOptions,
    how: tuple[Path, int],
    report: dict[str, Any],
    *,
    quiet: bool,
) -> BoxAudit:
    """A model of places audited beside the truth; `how`: the folder that is written to, and the seed."""
    from pellucid.models.tasks import RegionTask
    from pellucid.verbs.audit_boxes import audit_boxes
    from pellucid.verbs.audit_regions import audit_regions

    out, seed = how
    common: dict[str, Any] = {"given": beside.metadata, "keep": out / "work", "seed": seed}
    with console.progress():
        if isinstance(model.task, RegionTask):
            found: BoxAudit = audit_regions(model, pictures, beside.truth, **common)
        else:
            found = audit_boxes(model, pictures, beside.truth, score=beside.score, **common)
        exported = [str(path) for kind in beside.kinds for path in found.export(kind, out)]
        saved = [*map(str, found.save(out)), *exported]
    page = next(path for path in saved if path.endswith(".html"))
    slices = [
        {"fault": s.fault, "name": s.name, "gap": s.gap, "low": s.low, "high": s.high, "p": s.p}
        for s in found.sure_slices
    ]
    entry = {"input": pictures, "pictures": len(found.sources), "lines": list(found.lines()), "slices": slices}
    report["results"].append(entry | {"notes": found.notes, "files": saved})
    if not quiet:
        console.tell(f"{found.name}: {counted(len(found.sources), 'picture')}", found)
        say(f"  page: {page}")
    return found


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
