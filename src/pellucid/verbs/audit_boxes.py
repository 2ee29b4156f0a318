"""`audit_boxes`: which objects a detector misses, which boxes it imagines, and what those have in common."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from pellucid.audit.boxes import BoxTable, find, judged_rows
from pellucid.audit.metadata import Given, known_of, source_in
from pellucid.audit.truth import unusable
from pellucid.engine.trace import interruptible
from pellucid.errors import DataError, MediaError, PellucidError, StorageError
from pellucid.keep.artefact import Artefact
from pellucid.language import counted
from pellucid.media import Pictures, Shown, address, as_pictures
from pellucid.models.feed import feed_of
from pellucid.models.model import VisionModel
from pellucid.progress import task
from pellucid.results.box_audit import FORMAT, BoxAudit
from pellucid.results.box_audit import read_box_audit as opened
from pellucid.truth import Truth, listed, read_truth
from pellucid.truth.matching import LEAST
from pellucid.verbs.beside_truth import UNKNOWN, answers_beside, classes_beside, size_of
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.records import opening, record, reloaded, reopened
from pellucid.verbs.request import REQUESTS, Again, Maker, Request

__all__ = ["BoxAudit", "audit_boxes", "opened", "recompute"]

_FEW = "With fewer than 100 objects slices can hardly be told from chance: no slice found is no proof."
_UNANNOTATED = "A box where nothing was annotated may be an object that the annotations lack: look at the pictures."


@dataclass(frozen=True, kw_only=True)
class BoxAuditRequest(Request):
    """What `audit_boxes` is asked; its settings are those of the verb."""

    verb: ClassVar[str] = "audit_boxes"

    truth: str | Path | None = None
    given: Given = None
    least: float = LEAST
    score: float = 0.0
    seed: int = 0


@interruptible
def audit_boxes(
    model: ModelLike,
    pictures: Shown,
    truth: str | Path | Truth | None = None,
    *,
    given: Given = None,
    least: float = LEAST,
    score: float = 0.0,
    seed: int = 0,
) -> BoxAudit:
    """Which objects does a detector miss, which boxes does it imagine, and what have those in common?

    Args:
        model: a detector of pictures: a `VisionModel`, a model's name for `load`, or a bare module.
        pictures: a folder, a glob, or a list; or annotations that lie beside their pictures.
        truth: what is truly there: a COCO file, VOC files, YOLO files, a table of boxes (see `truth.read_truth`); None
            where `pictures` are the annotations.
        given: what is known of the pictures besides, by name a text for each; or a CSV whose first column is the file.
        least: overlap from which a box hits an object.
        score: from which on a box counts, among those that the detector answers.
        seed: of the halves on which slices are searched and tested.

    Returns:
        `BoxAudit`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    if truth is None and not isinstance(pictures, str | Path):
        raise DataError("What is truly in the pictures is not said: give truth=..., such as a COCO file.")
    known = truth if isinstance(truth, Truth) else read_truth(truth or str(pictures), loaded.labels or ())
    shown: Shown = [*listed(known)] if truth is None else pictures
    looked = as_pictures(shown, loaded.medium)
    begun, weights = time.perf_counter(), loaded.fingerprint()
    table = _Judge(loaded, known, least, score).table(looked)
    beside = known_of(given, looked, shown)
    told = {name: [str(texts[int(i)]) for i in table.rows.pictures] for name, texts in beside.columns.items()}
    slices = find(table.rows, table.labels, told, seed)
    about = {
        **opening(shown),
        "name": looked.name,
        "sha256": hashlib.sha256(" ".join(looked.digest(i) for i in table.judged).encode()).hexdigest(),
        "count": len(table.judged),
    }
    asked = {"truth": address(known.source) if known.source else "", "least": least, "score": score}
    run = {"seed": seed, "seconds": round(time.perf_counter() - begun, 3)}
    provenance = record(loaded, weights, about, "audit_boxes", asked, None, run)
    sources = [source_in(looked, i) for i in range(len(looked))]
    notes = [*known.notes, *beside.notes, *table.notes()]
    return BoxAudit(table.rows, sources, table.labels, slices, provenance, notes)


class _Judge:
    """A detector beside the truth, picture by picture."""

    def __init__(self, model: VisionModel, truth: Truth, least: float, score: float) -> None:
        self.model, self.truth, self.least, self.score = model, truth, least, score
        self.classes = classes_beside(model, truth)
        self.labels = list(dict.fromkeys({number: label for label, number in reversed(self.classes.items())}.values()))
        self.rows = BoxTable.of([])
        self.judged: list[int] = []
        self.failed: list[str] = []
        self.strange: set[str] = set()
        self.untold = 0

    def table(self, looked: Pictures) -> _Judge:
        """All pictures judged.

        Raises:
            DataError: none of them could be.
        """
        rows: list[dict[str, Any]] = []
        with task("pictures", len(looked)) as advance:
            for i in range(len(looked)):
                try:
                    rows += self._of(looked, i)
                    self.judged.append(i)
                except (MediaError, DataError) as error:
                    self.failed.append(str(error))
                advance(1)
        if not self.judged:
            raise DataError(f"None of the pictures can be judged; the first: {self.failed[0]}")
        self.rows = BoxTable.of(rows)
        return self

    def _of(self, looked: Pictures, i: int) -> list[dict[str, Any]]:
        picture = looked.read(i)
        item = feed_of(self.model).ready(self.model, picture)
        there = self.truth.of(source_in(looked, i)).on(size_of(item))
        objects, answers = answers_beside(self.model, item, there, self.classes)
        self.strange |= {o.label for o in objects if o.ignored == UNKNOWN}
        answers = [a for a in answers if a.score >= self.score]
        told = [a for a in answers if a.label in self.labels]
        self.untold += len(answers) - len(told)
        return judged_rows(i, picture, objects, told, self.labels, self.least)

    def notes(self) -> list[str]:
        """What a reader must know."""
        notes = unusable(self.failed)
        if self.strange:
            names = ", ".join(sorted(self.strange))
            notes.append(f"The model knows no {names}: such objects are left out.")
        if self.untold:
            boxes = counted(self.untold, "box")
            notes.append(f"{boxes} of classes that the annotations do not tell of are left out.")
        if self.rows.count("found", "missed", "misplaced") < 100:
            notes.append(_FEW)
        if self.rows.count("false"):
            notes.append(_UNANNOTATED)
        return notes


def requested(model: VisionModel, pictures: Any, asked: BoxAuditRequest) -> BoxAudit:
    """`audit_boxes` as it was requested."""
    return audit_boxes(model, pictures, **vars(asked))


def recompute(artefact: Artefact, model: ModelLike | None, given: Any) -> Again:
    """The stored table made again from its record: see `verify`."""
    told = list[str]()
    about = opened(artefact).record
    pictures = reopened(about, given)
    loaded = reloaded(about, model, pictures, told)
    asked = about.method["parameters"]
    try:
        truth = read_truth(asked["truth"], loaded.labels or ())
        found = _Judge(loaded, truth, asked["least"], asked["score"]).table(as_pictures(pictures, loaded.medium))
    except PellucidError as error:
        raise StorageError(f"{error} What was audited is not at hand.") from error
    return Again({name: torch.from_numpy(value) for name, value in found.rows.arrays().items()}, told)


REQUESTS[FORMAT] = Maker(BoxAuditRequest, requested, opened, recompute)
