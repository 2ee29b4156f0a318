"""`audit_boxes`: which objects a detector misses, which boxes it imagines, and what those have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pellucid.audit.boxes import judged_parts
from pellucid.audit.metadata import Given
from pellucid.engine.trace import interruptible
from pellucid.language import counted
from pellucid.media import Shown
from pellucid.models.feed import Prepared
from pellucid.models.model import VisionModel
from pellucid.results.box_audit import FORMAT, BoxAudit
from pellucid.truth import Annotated, Truth
from pellucid.truth.matching import LEAST
from pellucid.verbs.beside_truth import UNKNOWN, answers_beside
from pellucid.verbs.inputs import ModelLike
from pellucid.verbs.judging import Judge, JudgedView, Judging
from pellucid.verbs.request import REQUESTS, Maker, Request

__all__ = ["BoxAudit", "audit_boxes", "opened", "recompute"]

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
    keep: str | Path | None = None,
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
        keep: folder where judged pictures are kept, so that a run goes on where it stopped.
        seed: of the halves on which slices are searched and tested.

    Returns:
        `BoxAudit`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    return _BOXES.audit(model, (pictures, truth, given), {"least": least, "score": score}, keep, seed)


class _BoxJudge(Judge):
    """A detector beside the truth."""

    kind = "boxes"

    def seen(self, item: Prepared, there: Annotated) -> JudgedView:
        objects, answers = answers_beside(self.model, item, there, self.classes)
        unknown = {o.label for o in objects if o.ignored == UNKNOWN}
        sure = [a for a in answers if a.score >= self.asked["score"]]
        told = [a for a in sure if a.label in self.labels]
        untold = [a.label for a in sure if a.label not in self.labels]
        return JudgedView(judged_parts(objects, told, self.asked["least"]), sorted(unknown), untold)

    def notes(self) -> list[str]:
        notes = super().notes()
        if self.untold:
            boxes = counted(len(self.untold), "box")
            notes.append(f"{boxes} of classes that the annotations do not tell of are left out.")
        return [*notes, _UNANNOTATED] if self.rows.count("false") else notes


_BOXES = Judging(_BoxJudge, BoxAudit)
opened, recompute = BoxAudit.read, _BOXES.recompute


def requested(model: VisionModel, pictures: Any, asked: BoxAuditRequest) -> BoxAudit:
    """`audit_boxes` as it was requested."""
    return audit_boxes(model, pictures, **vars(asked))


REQUESTS[FORMAT] = Maker(BoxAuditRequest, requested, opened, recompute)
