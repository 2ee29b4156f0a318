"""What `compare` found of two models, as people hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pellucid import storage
from pellucid.audit.paired import Paired, WorseSlice
from pellucid.audit.proof import Proof
from pellucid.audit.review import Calibration
from pellucid.audit.samples import SampleTable, arrays
from pellucid.explanation import Brief, Record
from pellucid.keep.files import comma_separated
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

FORMAT = "pellucid-comparison/1"


@dataclass(repr=False)
class Comparison(Brief, Result):
    """Two models on the same pictures.

    Attributes:
        first, second: their tables.
        sources: what opens each picture.
        labels: names of the classes.
        names: of the two models.
        paired: what changed.
        record: provenance of the first model and of all else; the second is in `record.method`.
        notes: what a reader must know.
        proof: of a repair that made the second of the first.
    """

    first: SampleTable
    second: SampleTable
    sources: list[str]
    labels: list[str]
    names: tuple[str, str]
    paired: Paired
    record: Record
    notes: list[str]
    proof: Proof | None = None

    @property
    def name(self) -> str:
        """Of the pictures."""
        return str(self.record.input.get("name") or "pictures")

    def lines(self) -> Iterator[str]:
        """The summary, a sentence each; the verdict first. Of a repair that is what it proves, and no second one."""
        verdict, *rest = self.paired.lines()
        if self.proof is None:
            yield verdict
        else:
            yield from self.proof.lines()
            yield "Both models on pictures as they are, where what a part tells counts as right:"
        yield from rest

    def table(self) -> list[dict[str, Any]]:
        """One row a picture: its truth, both answers, how alike the maps are."""
        rows = []
        for i, source in enumerate(self.sources):
            truth = int(self.first.truth[i])
            rows.append(
                {
                    "source": source,
                    "truth": self.labels[truth] if truth >= 0 else "",
                    "before": self.labels[int(self.first.answers[i])],
                    "now": self.labels[int(self.second.answers[i])],
                    "confidence before": float(self.first.confidence[i]),
                    "confidence now": float(self.second.confidence[i]),
                    "maps correlate": float(self.paired.agreement[i]),
                }
            )
        return rows

    def csv(self) -> str:
        """The table as comma-separated values."""
        return comma_separated(self.table())

    @property
    def caption(self) -> str:
        """What was compared, on what."""
        if self.proof is not None:
            return f"Repair of {self.names[0]} on {self.name}"
        return f"{self.names[0]} and {self.names[1]} on {self.name}"

    def figure(self) -> Figure:
        """The summary as a sheet."""
        from pellucid.render.audit import draw_lines

        return draw_lines(self.caption, list(self.lines()), self.notes, self.paired.calibrations[1])

    def on_page(self, file: str = "") -> Card:
        """The summary, and the pictures that got lost, were won, and whose evidence moved."""
        from pellucid.render.pages.audit import comparison_card

        return comparison_card(self, self.caption, file=file)

    def save(self, folder: str | Path) -> list[Path]:
        """Write values (.npz), record (.json), table (.csv) and page (.html) into `folder`; the page comes last."""
        name = f"{slug(self.name)}.comparison"
        stem = Path(folder) / unused(name, names_of_inputs(folder, self.sources))
        further = {
            stem.with_name(f"{stem.name}.csv"): self.csv().encode(),
            stem.with_name(f"{stem.name}.html"): self.html().encode(),
        }
        values = {f"first.{n}": v for n, v in arrays(self.first).items()}
        values |= {f"second.{n}": v for n, v in arrays(self.second).items()}
        paired = {f.name: getattr(self.paired, f.name) for f in fields(Paired) if f.name != "agreement"}
        meta = {
            "sources": self.sources,
            "labels": self.labels,
            "names": list(self.names),
            "layers": [self.first.layer, self.second.layer],
            "paired": {
                **paired,
                "slices": [asdict(s) for s in self.paired.slices],
                "calibrations": [asdict(c) if c else None for c in self.paired.calibrations],
            },
            "record": asdict(self.record),
            "notes": self.notes,
        }
        if self.proof is not None:
            meta["proof"] = self.proof.as_dict()
        values["agreement"] = self.paired.agreement
        return storage.write_artefact(stem.with_name(f"{stem.name}.npz"), FORMAT, values, meta, further)


def read_comparison(artefact: storage.Artefact) -> Comparison:
    """An artefact as the comparison that it holds."""
    with storage.reading(artefact):
        meta, found = artefact.meta, artefact.arrays
        tables = [_table(found, which, k, meta["layers"]) for k, which in enumerate(("first", "second"))]
        told = meta["paired"]
        before, now = map(Calibration.read, told["calibrations"])
        nan = float("nan")
        a, b = (nan if v is None else v for v in told["accuracies"])
        paired = Paired(
            accuracies=(a, b),
            changed=tuple(told["changed"]),
            lost=tuple(told["lost"]),
            won=tuple(told["won"]),
            p=told["p"],
            calibrations=(before, now),
            slices=tuple(WorseSlice(**{**s, "members": tuple(s["members"])}) for s in told["slices"]),
            agreement=found["agreement"],
            border=tuple(nan if v is None else v for v in told["border"]),  # type: ignore[arg-type]
        )
        return Comparison(
            tables[0], tables[1], meta["sources"], meta["labels"], (meta["names"][0], meta["names"][1]), paired,
            storage.record_from(meta), meta["notes"], Proof.read(meta.get("proof")),
        )  # fmt: skip


def _table(found: Mapping[str, NDArray[Any]], which: str, number: int, layers: Sequence[str]) -> SampleTable:
    rows: dict[str, Any] = {n.partition(".")[2]: a for n, a in found.items() if n.startswith(f"{which}.")}
    return SampleTable(**rows, layer=layers[number])
