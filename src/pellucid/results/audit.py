"""What `audit` found, as people hold it: in words, as a page, as a table, on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pellucid import storage
from pellucid.audit.cases import Case
from pellucid.audit.failures import FailureScore
from pellucid.audit.findings import Findings
from pellucid.audit.objects import on_object
from pellucid.audit.odd import OddPictures
from pellucid.audit.reasons import Reliance
from pellucid.audit.review import Calibration, Confusion, Review
from pellucid.audit.samples import SampleTable, arrays
from pellucid.audit.slices import WeakSlice
from pellucid.keep.files import comma_separated
from pellucid.results import audit_exports
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

FORMAT = "pellucid-audit/1"
ODD_NAMES = {"far": "unlike all others", "blurred": "blurred beside the others"}


@dataclass(repr=False)
class Audit(Findings, Result):
    """What `audit` found: see `Findings`."""

    def table(self) -> list[dict[str, Any]]:
        """One row a picture: its source, truth, answer, confidence, chance of being wrong, slices and reasons."""
        rows = []
        groups = {f"slice: {s.name}": set(s.members) for s in self.sure_slices}
        groups |= {f"rests on {r.name}: {r.label}": set(r.members) for r in self.wrong_reasons}
        groups |= {ODD_NAMES[o.kind]: set(o.members) for o in self.odd}
        suspects, (on_it, _) = set(self.review.mislabelled), on_object(self.samples)
        for i, source in enumerate(self.sources):
            truth = int(self.samples.truth[i])
            rows.append(
                {
                    "source": source,
                    "truth": self.labels[truth] if truth >= 0 else "",
                    "answer": self.labels[int(self.samples.answers[i])],
                    "confidence": float(self.samples.confidence[i]),
                    **({} if self.failure is None else {"chance of being wrong": float(self.failure.values[i])}),
                    **({} if self.samples.objects is None else {"evidence on the object": float(on_it[i])}),
                    "label looks wrong": int(i in suspects),
                    **({"among training pictures": int(i in self.leaked)} if self.leaked else {}),
                    **{name: int(i in members) for name, members in groups.items()},
                }
            )
        return rows

    def csv(self) -> str:
        """The table as comma-separated values."""
        return comma_separated(self.table(), nan="")

    @property
    def caption(self) -> str:
        """What was audited, on what."""
        return f"Audit of {self.record.model['name']} on {self.name}"

    def figure(self) -> Figure:
        """The summary as a sheet."""
        from pellucid.render.audit import draw

        return draw(self, self.caption)

    def on_page(self, file: str = "") -> Card:
        """Findings with their pictures, then the review."""
        from pellucid.render.pages.audit import audit_card

        return audit_card(self, self.caption, file=file)

    def _stem(self, folder: str | Path) -> Path:
        return Path(folder) / unused(f"{slug(self.name)}.audit", names_of_inputs(folder, self.sources))

    def export(self, kind: str, folder: str | Path) -> list[Path]:
        """Write the findings for another tool into `folder`: see `audit_exports.FORMATS`.

        Args:
            kind: `csv` or `parquet` (ids of each finding), `coco` (tags), `fiftyone` (a data set's folder), `junit`.
            folder: is made if it is not there.

        Raises:
            PellucidError: no such kind; a package that it needs is missing.
        """
        return audit_exports.write(self, kind, self._stem(folder))

    def save(self, folder: str | Path) -> list[Path]:
        """Write values (.npz), record (.json), table (.csv) and page (.html) into `folder`; the page comes last."""
        stem = self._stem(folder)
        further = {
            stem.with_name(f"{stem.name}.csv"): self.csv().encode(),
            stem.with_name(f"{stem.name}.html"): self.html().encode(),
        }
        regions = {f"region.{i}": r.region.astype(np.uint8) for i, r in enumerate(self.reasons) if r.region is not None}
        meta = {
            "sources": self.sources,
            "labels": self.labels,
            "layer": self.samples.layer,
            "failed": list(self.samples.failed),
            "reasons": [{**asdict(replace(r, region=None)), "region": None} for r in self.reasons],
            "slices": [asdict(s) for s in self.slices],
            "review": asdict(self.review),
            "record": asdict(self.record),
            "notes": self.notes,
            "cases": [asdict(c) for c in self.cases],
            "leaked": list(self.leaked),
            "odd": [asdict(o) for o in self.odd],
            "facts": [] if self.failure is None else list(self.failure.facts),
        }
        values = {**arrays(self.samples), **regions, **({} if self.failure is None else self.failure.arrays())}
        return storage.write_artefact(stem.with_name(f"{stem.name}.npz"), FORMAT, values, meta, further)


def read_audit(artefact: storage.Artefact) -> Audit:
    """An artefact as the audit that it holds."""
    with storage.reading(artefact):
        meta, found = artefact.meta, artefact.arrays
        named = {f.name for f in fields(SampleTable)} & set(found)
        samples = SampleTable(**{n: found[n] for n in named}, layer=meta["layer"], failed=tuple(meta["failed"]))
        reasons = [
            Reliance(**{**r, "members": tuple(r["members"]), "region": _region(found, i)})
            for i, r in enumerate(meta["reasons"])
        ]
        slices = [
            WeakSlice(**{**s, "members": tuple(s["members"]), "literals": tuple(s["literals"])}) for s in meta["slices"]
        ]
        return Audit(
            samples, meta["sources"], meta["labels"], reasons, slices, _review(meta["review"]),
            storage.record_from(meta), meta["notes"], FailureScore.read(found, meta.get("facts", ())),
            [Case.read(c) for c in meta.get("cases", ())], tuple(meta.get("leaked", ())),
            [OddPictures.read(o) for o in meta.get("odd", ())],
        )  # fmt: skip


def _region(found: dict[str, NDArray[Any]], index: int) -> NDArray[np.bool_] | None:
    kept = found.get(f"region.{index}")
    return None if kept is None else kept.astype(bool)


def _review(meta: dict[str, Any]) -> Review:
    return Review(
        accuracy=float("nan") if meta["accuracy"] is None else meta["accuracy"],
        calibration=Calibration.read(meta["calibration"]),
        confusions=tuple(Confusion(c["truth"], c["answer"], tuple(c["members"])) for c in meta["confusions"]),
        duplicates=tuple((a, b) for a, b in meta["duplicates"]),
        contradicting=tuple((a, b) for a, b in meta["contradicting"]),
        mislabelled=tuple(meta["mislabelled"]),
        astray=tuple(meta["astray"]),
        undoubted=tuple(meta.get("undoubted", ())),
    )
