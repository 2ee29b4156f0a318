"""`ConceptTests`: does the answer depend on concepts shown by examples; with its verbs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from pellucid import storage
from pellucid.concepts.tcav import Tested, lines_of
from pellucid.explanation import Brief, Record
from pellucid.importance.result import Table
from pellucid.results.base import Result
from pellucid.results.shown import slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "pellucid-tests/1"
_NUMBERS = ("score", "effect", "p", "adjusted", "separation", "detectable")


@dataclass(repr=False)
class ConceptTests(Brief, Sequence[Tested], Result):
    """The tests of all concepts on all classes, made together.

    Attributes:
        tests: one for each concept and class.
        layer: whose activations were looked at.
        level: chance of any false discovery (or the share of false ones, by the correction).
        record: provenance.
    """

    tests: list[Tested]
    layer: str
    level: float
    record: Record

    @overload
    def __getitem__(self, i: int) -> Tested: ...

    @overload
    def __getitem__(self, i: slice) -> list[Tested]: ...

    def __getitem__(self, i: int | slice) -> Tested | list[Tested]:
        return self.tests[i]

    def __len__(self) -> int:
        return len(self.tests)

    def __str__(self) -> str:
        return "\n".join(lines_of(self.tests))

    def table(self) -> Table:
        """A row a test, for CSV or Parquet."""
        return Table({k: v for k, v in dataclasses.asdict(t).items() if k != "notes"} for t in self.tests)

    def figure(self) -> Figure:
        """The effects as bars, beside what had to be exceeded."""
        from pellucid.render.tcav import draw

        return draw(self.tests, self.layer, self.level, self.record.model_name)

    @property
    def caption(self) -> str:
        """What it shows, of what."""
        return str(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write values (.npz), record (.json), table (.csv) and figure (.png) into `folder`, together; the files."""
        stem = Path(folder) / f"{slug(str(self.record.input['name']))}.tcav"
        files = {
            stem.with_name(f"{stem.name}.csv"): self.table().csv().encode(),
            stem.with_name(f"{stem.name}.png"): self.png(),
        }
        return storage.write_artefact(
            stem.with_name(f"{stem.name}.npz"), FORMAT, arrays(self.tests), _meta(self), files
        )


def arrays(tests: Sequence[Tested]) -> dict[str, NDArray[np.float64]]:
    """What is stored as numbers, and compared by `verify`."""
    return {name: np.array([getattr(t, name) for t in tests], np.float64) for name in _NUMBERS}


def _meta(found: ConceptTests) -> dict[str, Any]:
    plain = [{k: v for k, v in dataclasses.asdict(t).items() if k not in _NUMBERS} for t in found.tests]
    return {
        "layer": found.layer,
        "level": found.level,
        "tests": plain,
        "record": dataclasses.asdict(found.record),
    }


def read_tests(artefact: storage.Artefact) -> ConceptTests:
    """An artefact as the tests that it holds."""
    with storage.reading(artefact):
        meta, held = artefact.meta, artefact.arrays
        tests = []
        for i, about in enumerate(meta["tests"]):
            numbers: dict[str, Any] = {name: float(held[name][i]) for name in _NUMBERS}
            tests.append(Tested(**(about | numbers | {"notes": tuple(about["notes"])})))
        return ConceptTests(tests, meta["layer"], meta["level"], storage.record_from(meta))
