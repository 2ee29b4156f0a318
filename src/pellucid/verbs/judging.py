"""Answers that have a place beside the truth, picture by picture, with rows that are kept: boxes and regions alike."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.audit.boxes import OBJECTS, BoxTable, JudgedPart, find, rows_of
from pellucid.audit.kept import KeptRows
from pellucid.audit.metadata import Given, known_of, source_in
from pellucid.audit.truth import unusable
from pellucid.errors import DataError, MediaError, PellucidError, StorageError
from pellucid.keep.artefact import Artefact, strict
from pellucid.media import Picture, Pictures, Shown, address, as_pictures
from pellucid.models.feed import Prepared, feed_of
from pellucid.models.model import VisionModel
from pellucid.progress import task
from pellucid.results.box_audit import BoxAudit
from pellucid.truth import Annotated, Truth, listed, read_truth
from pellucid.verbs.beside_truth import classes_beside, size_of
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.records import opening, record, reloaded, reopened
from pellucid.verbs.request import Again

FEW = "With fewer than 100 objects slices can hardly be told from chance: no slice found is no proof."
_VERSION = 1
_SIDE = ("unknown", "untold", "left_out")  # of a picture, besides its rows: see `JudgedView`

A = TypeVar("A", bound=BoxAudit)


@dataclass(frozen=True)
class JudgedView:
    """One picture judged.

    Attributes:
        parts: objects and answers.
        unknown: classes of the truth that the model does not know.
        untold: classes of answers that the truth does not tell of, one for each answer that is left out.
        left_out: answers that are too small to be judged.
    """

    parts: list[JudgedPart]
    unknown: Sequence[str] = ()
    untold: Sequence[str] = ()
    left_out: int = 0


class Judge(ABC):
    """A model beside the truth, picture by picture.

    Args:
        model: that answers places.
        truth: what is there.
        asked: by name whatever else decides.
        keep: folder where judged pictures are kept; None keeps none.
    """

    kind: ClassVar[str]

    def __init__(self, model: VisionModel, truth: Truth, asked: Mapping[str, float], keep: Path | None) -> None:
        self.model, self.truth, self.asked = model, truth, dict(asked)
        self.classes = classes_beside(model, truth)
        self.labels = list(dict.fromkeys({number: label for label, number in reversed(self.classes.items())}.values()))
        about = [_VERSION, self.kind, model.fingerprint(), strict(model.preprocess.as_dict()), model.declared]
        self._kept = KeptRows(keep, [*about, self.asked, self.classes])
        self.rows = BoxTable.of([])
        self.judged: list[int] = []
        self.failed: list[str] = []
        self.unknown: set[str] = set()
        self.untold: list[str] = []
        self.left_out = 0

    @abstractmethod
    def seen(self, item: Prepared, there: Annotated) -> JudgedView:
        """One picture judged."""

    def table(self, looked: Pictures) -> Judge:
        """All pictures judged.

        Raises:
            DataError: none of them could be.
        """
        tables: list[BoxTable] = []
        with task("pictures", len(looked)) as advance:
            for i in range(len(looked)):
                try:
                    tables.append(self._of(looked, i))
                    self.judged.append(i)
                except (MediaError, DataError) as error:
                    self.failed.append(str(error))
                advance(1)
        if not self.judged:
            raise DataError(f"None of the pictures can be judged; the first: {self.failed[0]}")
        self.rows = BoxTable.joined(tables)
        return self

    def _of(self, looked: Pictures, i: int) -> BoxTable:
        picture = looked.read(i)
        item = feed_of(self.model).ready(self.model, picture)
        there = self.truth.of(source_in(looked, i)).on(size_of(item))
        rows = self._kept.rows(
            f"{picture.sha256} {there!r}", (*BoxTable.of([]).arrays(), *_SIDE), lambda: self._rows(item, there, picture)
        )
        self.unknown |= set(rows["unknown"].tolist())
        self.untold += rows["untold"].tolist()
        self.left_out += int(rows["left_out"])
        table = BoxTable.stored(rows)
        table.pictures[:] = i
        return table

    def _rows(self, item: Prepared, there: Annotated, picture: Picture) -> dict[str, NDArray[Any]]:
        seen = self.seen(item, there)
        side = {
            "unknown": np.array(sorted(seen.unknown), str),
            "untold": np.array(seen.untold, str),
            "left_out": np.array(seen.left_out),
        }
        return BoxTable.of(rows_of(0, picture, seen.parts, self.labels)).arrays() | side

    def notes(self) -> list[str]:
        """What a reader must know."""
        notes = unusable(self.failed)
        if self.unknown:
            names = ", ".join(sorted(self.unknown))
            notes.append(f"The model knows no {names}: such objects are left out.")
        if self.rows.count(*OBJECTS) < 100:
            notes.append(FEW)
        return notes


@dataclass(frozen=True)
class Judging(Generic[A]):
    """What one verb judges by, and what it answers with."""

    judge: type[Judge]
    result: type[A]

    def audit(
        self, model: ModelLike, given: tuple[Shown, str | Path | Truth | None, Given], asked: Mapping[str, float],
        keep: str | Path | None, seed: int,
    ) -> A:  # fmt: skip
        """The audit of a model beside the truth.

        Args:
            model: as the verb takes it.
            given: pictures, truth, and what is known besides.
            asked: by name whatever else decides.
            keep: folder where judged pictures are kept.
            seed: of the halves on which slices are searched and tested.
        """
        pictures, truth, further = given
        loaded = as_model(model)
        if truth is None and not isinstance(pictures, str | Path):
            raise DataError("What is truly in the pictures is not said: give truth=..., such as a COCO file.")
        known = truth if isinstance(truth, Truth) else read_truth(truth or str(pictures), loaded.labels or ())
        shown: Shown = [*listed(known)] if truth is None else pictures
        looked = as_pictures(shown, loaded.medium)
        begun, weights = time.perf_counter(), loaded.fingerprint()
        table = self.judge(loaded, known, asked, Path(keep) if keep is not None else None).table(looked)
        beside = known_of(further, looked, shown)
        told = {name: [str(texts[int(i)]) for i in table.rows.pictures] for name, texts in beside.columns.items()}
        slices = find(table.rows, table.labels, told, seed)
        about = {
            **opening(shown),
            "name": looked.name,
            "sha256": hashlib.sha256(" ".join(looked.digest(i) for i in table.judged).encode()).hexdigest(),
            "count": len(table.judged),
        }
        parameters = {"truth": address(known.source) if known.source else "", **asked}
        run = {"seed": seed, "seconds": round(time.perf_counter() - begun, 3)}
        provenance = record(loaded, weights, about, f"audit_{self.judge.kind}", parameters, None, run)
        sources = [source_in(looked, i) for i in range(len(looked))]
        notes = [*known.notes, *beside.notes, *table.notes()]
        return self.result(table.rows, sources, table.labels, slices, provenance, notes)

    def recompute(self, artefact: Artefact, model: ModelLike | None, given: Any) -> Again:
        """The stored table made again from its record: see `verify`."""
        told = list[str]()
        about = self.result.read(artefact).record
        pictures = reopened(about, given)
        loaded = reloaded(about, model, pictures, told)
        asked = {name: value for name, value in about.method["parameters"].items() if name != "truth"}
        try:
            truth = read_truth(about.method["parameters"]["truth"], loaded.labels or ())
            found = self.judge(loaded, truth, asked, None).table(as_pictures(pictures, loaded.medium))
        except PellucidError as error:
            raise StorageError(f"{error} What was audited is not at hand.") from error
        return Again({name: torch.from_numpy(value) for name, value in found.rows.arrays().items()}, told)
