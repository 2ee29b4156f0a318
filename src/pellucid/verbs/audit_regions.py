"""`audit_regions`: which regions a segmentation network misses or imagines, and what those have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pellucid.audit.metadata import Given
from pellucid.audit.regions import SMALLEST, Segmentation, answered, judged_regions
from pellucid.engine.trace import interruptible
from pellucid.errors import ModelError
from pellucid.language import counted
from pellucid.media import Shown
from pellucid.models.dense import dense_scores
from pellucid.models.feed import Prepared
from pellucid.models.model import VisionModel
from pellucid.models.tasks import RegionTask
from pellucid.results.region_audit import FORMAT, RegionAudit
from pellucid.truth import Annotated, Truth
from pellucid.truth.matching import LEAST
from pellucid.verbs.beside_truth import size_of
from pellucid.verbs.inputs import ModelLike
from pellucid.verbs.judging import Judge, JudgedView, Judging
from pellucid.verbs.request import REQUESTS, Maker, Request

__all__ = ["RegionAudit", "audit_regions", "opened", "recompute"]


@dataclass(frozen=True, kw_only=True)
class RegionAuditRequest(Request):
    """What `audit_regions` is asked; its settings are those of the verb."""

    verb: ClassVar[str] = "audit_regions"

    truth: str | Path | None = None
    given: Given = None
    least: float = LEAST
    smallest: float = SMALLEST
    seed: int = 0


@interruptible
def audit_regions(
    model: ModelLike,
    pictures: Shown,
    truth: str | Path | Truth | None = None,
    *,
    given: Given = None,
    least: float = LEAST,
    smallest: float = SMALLEST,
    keep: str | Path | None = None,
    seed: int = 0,
) -> RegionAudit:
    """Which regions does a segmentation network miss, which does it imagine, and what have those in common?

    A region is a connected piece of one class, true or answered.

    Args:
        model: a segmentation network of pictures: a `VisionModel`, a model's name for `load`, or a bare module.
        pictures: a folder, a glob, or a list; or a COCO file that lies beside its pictures.
        truth: what is truly there: a folder of masks (PNG, each pixel's number is its class, 0 the background, 255 what
            nobody judged), or a COCO file with segmentations; None where `pictures` are the annotations.
        given: what is known of the pictures besides, by name a text for each; or a CSV whose first column is the file.
        least: adjusted overlap from which a true region is found, and share from which an answered one is right.
        smallest: share of the picture below which a piece is a speck, and left out.
        keep: folder where judged pictures are kept, so that a run goes on where it stopped.
        seed: of the halves on which slices are searched and tested.

    Returns:
        `RegionAudit`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    asked = {"least": least, "smallest": smallest}
    return _REGIONS.audit(model, (pictures, truth, given), asked, keep, seed)


class _RegionJudge(Judge):
    """A segmentation network beside true masks."""

    kind = "regions"

    def seen(self, item: Prepared, there: Annotated) -> JudgedView:
        x = item.x[None].to(self.model.device, self.model.dtype)
        output = self.model.outputs(x)
        task = self.model.settled(x, output).answering
        if not isinstance(task, RegionTask):
            raise ModelError(
                f"Regions are judged of a class at each place, and the model answers {task.name}: give a segmentation "
                "network, or say what it answers (--task regions)."
            )
        scores = dense_scores(output, task.part or None)[0].detach().cpu()
        classes, lead = answered(scores, item.geometry)
        truth = Segmentation.true(there, size_of(item))
        truth.unjudged[classes < 0] = True  # the model did not see it
        numbers = self._numbers(len(scores))
        masks = {name: classes == number for number, name in numbers.items()}
        parts, specks = judged_regions(truth, masks, lead, self.asked["least"], self.asked["smallest"])
        untold = [self.model.label(int(k)) for k in np.unique(classes[classes >= 0]) if int(k) not in numbers]
        return JudgedView(parts, sorted(set(truth.masks) - set(self.classes)), untold, specks)

    def _numbers(self, columns: int) -> dict[int, str]:
        """The name of each class that is judged; a single column is the logit of the only one."""
        if columns == 1 and len(self.labels) == 1:
            return {1: self.labels[0]}
        return {number: label for label, number in reversed(self.classes.items())}

    def notes(self) -> list[str]:
        notes = super().notes()
        if self.untold:
            names = ", ".join(sorted(set(self.untold)))
            notes.append(f"What the model gives to classes that the masks do not tell of is not judged: {names}.")
        if self.left_out:
            share = self.asked["smallest"]
            specks = counted(self.left_out, "answered region")
            notes.append(f"{specks} smaller than {share:.3%} of the picture are specks, and are left out.")
        return notes


_REGIONS = Judging(_RegionJudge, RegionAudit)
opened, recompute = RegionAudit.read, _REGIONS.recompute


def requested(model: VisionModel, pictures: Any, asked: RegionAuditRequest) -> RegionAudit:
    """`audit_regions` as it was requested."""
    return audit_regions(model, pictures, **vars(asked))


REQUESTS[FORMAT] = Maker(RegionAuditRequest, requested, opened, recompute)
