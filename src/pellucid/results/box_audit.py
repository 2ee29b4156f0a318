"""What `audit_boxes` found, as people hold it: in words, as a page, as a table, on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pellucid import storage
from pellucid.audit.boxes import BOX_PROPERTIES, OBJECTS, VERDICTS, BoxTable
from pellucid.audit.slices import WeakSlice, sure, told
from pellucid.errors import PellucidError
from pellucid.explanation import Brief, Record
from pellucid.keep.files import comma_separated, write_together
from pellucid.language import counted
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused
from pellucid.truth import Annotated, Annotation, Truth, coco_text
from pellucid.truth.annotations import numbered
from pellucid.truth.matching import FAULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

FORMAT = "pellucid-audit-boxes/1"
FAULT_NAMES = dict(
    zip(
        FAULTS,
        (
            "a second box of one object", "of another class", "badly placed", "badly placed and of another class",
            "where nothing was annotated",
        ),
        strict=True,
    )
)  # fmt: skip


@dataclass(repr=False)
class BoxAudit(Brief, Result):
    """Which objects a detector misses and which boxes it imagines, and what those have in common.

    Attributes:
        table: one row an object, and one a box that is answered.
        sources: what opens each picture.
        labels: of the classes.
        slices: objects that are missed or misplaced, and boxes that are false, more often than others.
        record: provenance.
        notes: what a reader must know.
    """

    table: BoxTable
    sources: list[str]
    labels: list[str]
    slices: list[WeakSlice]
    record: Record
    notes: list[str]

    format: ClassVar[str] = FORMAT
    ending: ClassVar[str] = "boxes"  # of the files' names
    kinds: ClassVar[tuple[str, str]] = ("object", "box")  # what a row is: what is there, what is answered
    fault_names: ClassVar[Mapping[str, str]] = FAULT_NAMES

    @property
    def name(self) -> str:
        """Of the pictures."""
        return str(self.record.input.get("name") or "pictures")

    @property
    def sure_slices(self) -> list[WeakSlice]:
        """Slices that err more often beyond chance; of those that are nearly the same the first."""
        return sure(self.slices)

    def lines(self) -> Iterator[str]:
        """The summary, a sentence each."""
        t = self.table
        found, missed, misplaced, right, false = (t.count(verdict) for verdict in VERDICTS)
        objects = counted(found + missed + misplaced, "object")
        yield (
            f"{objects} in {counted(len(self.sources), 'picture')}: {found} found, {missed} missed, {misplaced} "
            "misplaced."
        )
        yield f"{counted(right + false, 'box')} answered: {right} right, {false} false."
        if false:
            second, other, placed, both, nothing = (int((t.faults == k).sum()) for k in range(len(FAULTS)))
            yield (
                f"Of the false boxes {nothing} lie where nothing was annotated, {other} on an object of another class; "
                f"{placed} are badly placed, {both} badly placed and of another class, {second} a second box of one "
                "object."
            )
        if self.sure_slices:
            yield from told(self.sure_slices)
        else:
            yield "No slice of objects is missed or misplaced, and none of boxes false, more often beyond chance."

    def rows(self) -> list[dict[str, Any]]:
        """One row an object or box: picture, class, verdict, place, properties, slices."""
        t, groups = self.table, {f"{s.fault}: {s.name}": set(s.members) for s in self.sure_slices}
        is_object = t.are(*OBJECTS)
        return [
            {
                "source": self.sources[int(t.pictures[i])],
                "what": self.kinds[int(not is_object[i])],
                "class": self.labels[int(t.classes[i])],
                "verdict": VERDICTS[int(t.verdicts[i])],
                "fault": self.fault_names[FAULTS[int(t.faults[i])]] if t.faults[i] >= 0 else "",
                "score": float(t.scores[i]) if t.scores[i] >= 0 else float("nan"),
                "overlap": float(t.overlaps[i]),
                **dict(zip(("x0", "y0", "x1", "y1"), map(float, t.boxes[i]), strict=True)),
                "cut off": int(t.cut[i]),
                **dict(zip(BOX_PROPERTIES, map(float, t.properties[i]), strict=True)),
                **{name: int(i in members) for name, members in groups.items()},
            }
            for i in range(len(t))
        ]

    def by_class(self) -> list[dict[str, Any]]:
        """Of each class how many rows have each verdict."""
        t = self.table
        return [
            {"class": label, **{v: int(((t.classes == k) & t.are(v)).sum()) for v in VERDICTS}}
            for k, label in enumerate(self.labels)
            if (t.classes == k).any()
        ]

    def csv(self) -> str:
        """The rows as comma-separated values."""
        return comma_separated(self.rows(), nan="")

    @property
    def caption(self) -> str:
        """What was audited, on what."""
        return f"Audit of the boxes of {self.record.model['name']} on {self.name}"

    def figure(self) -> Figure:
        """The summary as a sheet."""
        from pellucid.render.audit import draw_lines

        return draw_lines(self.caption, list(self.lines()), self.notes, None)

    def on_page(self, file: str = "") -> Card:
        """The summary, then slices, misses and false boxes with their pictures."""
        from pellucid.render.pages.box_audit import box_audit_card

        return box_audit_card(self, self.caption, file=file)

    def _stem(self, folder: str | Path) -> Path:
        return Path(folder) / unused(f"{slug(self.name)}.{self.ending}", names_of_inputs(folder, self.sources))

    def annotated(self) -> Truth:
        """Objects and boxes as annotations, each with its verdict, score and slices."""
        keys = ("verdict", "fault", "score", "overlap")
        rows, numbers = self.rows(), numbered(self.labels)
        slices = [[f"{s.fault}: {s.name}" for s in self.sure_slices if i in set(s.members)] for i in range(len(rows))]
        objects: list[list[Annotation]] = [[] for _ in self.sources]
        for i, row in enumerate(rows):
            facts = {k: row[k] for k in keys if row[k] == row[k] and row[k] != ""} | {"slices": slices[i]}
            x0, y0, x1, y1 = (float(v) for v in self.table.boxes[i])
            objects[int(self.table.pictures[i])].append(Annotation(row["class"], (x0, y0, x1, y1), facts=facts))
        return Truth("", tuple(Annotated(s, tuple(o)) for s, o in zip(self.sources, objects, strict=True)), numbers)

    def export(self, kind: str, folder: str | Path) -> list[Path]:
        """Write objects and boxes with their verdicts for another tool into `folder`.

        Args:
            kind: `coco`.
            folder: is made if it is not there.

        Raises:
            PellucidError: no such kind.
        """
        if kind != "coco":
            raise PellucidError(
                f"An audit of boxes or regions is exported as coco, not as {kind}; its table (.csv) is always written."
            )
        stem = self._stem(folder)
        return write_together({stem.with_name(f"{stem.name}.coco.json"): coco_text(self.annotated()).encode()})

    def save(self, folder: str | Path) -> list[Path]:
        """Write values (.npz), record (.json), table (.csv) and page (.html) into `folder`; the page comes last."""
        stem = self._stem(folder)
        further = {
            stem.with_name(f"{stem.name}.csv"): self.csv().encode(),
            stem.with_name(f"{stem.name}.html"): self.html().encode(),
        }
        meta = {
            "sources": self.sources,
            "labels": self.labels,
            "slices": [asdict(s) for s in self.slices],
            "record": asdict(self.record),
            "notes": self.notes,
        }
        return storage.write_artefact(
            stem.with_name(f"{stem.name}.npz"), self.format, self.table.arrays(), meta, further
        )

    @classmethod
    def read(cls, artefact: storage.Artefact) -> Self:
        """An artefact as the audit that it holds."""
        with storage.reading(artefact):
            meta = artefact.meta
            slices = [
                WeakSlice(**{**s, "members": tuple(s["members"]), "literals": tuple(s["literals"])})
                for s in meta["slices"]
            ]
            table = BoxTable.stored(artefact.arrays)
            return cls(table, meta["sources"], meta["labels"], slices, storage.record_from(meta), meta["notes"])
