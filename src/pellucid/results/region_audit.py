"""What `audit_regions` found, as people hold it: that of boxes, in words of regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pellucid.audit.boxes import VERDICTS
from pellucid.audit.slices import told
from pellucid.language import counted
from pellucid.results.box_audit import FAULT_NAMES, BoxAudit
from pellucid.truth.matching import FAULTS

FORMAT = "pellucid-audit-regions/1"


@dataclass(repr=False)
class RegionAudit(BoxAudit):
    """Which regions a segmentation network misses and which it imagines, and what those have in common.

    `table` has one row a true region, a connected piece of one class, and one for each that is answered.
    """

    format: ClassVar[str] = FORMAT
    ending: ClassVar[str] = "regions"
    kinds: ClassVar[tuple[str, str]] = ("true region", "answered region")
    fault_names: ClassVar[Mapping[str, str]] = FAULT_NAMES | {"place": "too much of it lies beside"}

    def lines(self) -> Iterator[str]:
        """The summary, a sentence each."""
        t = self.table
        found, missed, misplaced, right, false = (t.count(verdict) for verdict in VERDICTS)
        regions = counted(found + missed + misplaced, "true region")
        yield (
            f"{regions} in {counted(len(self.sources), 'picture')}: {found} found, {missed} missed, {misplaced} "
            "misplaced."
        )
        yield f"{counted(right + false, 'answered region')}: {right} right, {false} false."
        if false:
            _, other, placed, both, nothing = (int((t.faults == k).sum()) for k in range(len(FAULTS)))
            yield (
                f"Of the false regions {nothing} lie where nothing was annotated, {other} on another class; "
                f"{placed} lie too much beside their own class, {both} beside it and on another class."
            )
        if self.sure_slices:
            yield from told(self.sure_slices)
        else:
            yield "No slice of regions is missed or misplaced, and none of those answered false, beyond chance."

    @property
    def caption(self) -> str:
        """What was audited, on what."""
        return f"Audit of the regions of {self.record.model['name']} on {self.name}"
