"""What `repair` did to a model, in words and as a table; what is saved is its comparison, beside the new weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.audit.proof import Proof, ProvenGroup, Try
from pellucid.explanation import Brief
from pellucid.models.model import VisionModel
from pellucid.results.base import Result
from pellucid.results.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card


@dataclass(repr=False)
class Repair(Brief, Result):
    """A model that learned anew.

    Attributes:
        model: the repaired one.
        layer: that was learned anew; empty where the whole network was taught.
        strength: inverse of the layer's penalty, chosen for the worst group; NaN for the whole network.
        reasons, slices: what was found, in words.
        groups: each class in each form, on the pictures that prove.
        comparison: both models on these pictures, with the proof.
        files: the weights, and the tables of the pictures that teach, choose and prove.
        notes: what a reader must know.
        tries: the ways of learning anew, of which one was chosen.
    """

    model: VisionModel
    layer: str
    strength: float
    reasons: list[str]
    slices: list[str]
    groups: list[ProvenGroup]
    comparison: Comparison
    files: list[Path]
    notes: list[str]
    tries: list[Try] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.comparison = replace(self.comparison, proof=self.proof)

    @property
    def proof(self) -> Proof:
        """What the groups prove."""
        return Proof((*self.reasons, *self.slices), tuple(self.groups), tuple(self.tries))

    @property
    def caption(self) -> str:
        """What was repaired."""
        return self.comparison.caption

    @property
    def worst(self) -> tuple[ProvenGroup, ProvenGroup]:
        """The group with the lowest accuracy before, and the one with the lowest now."""
        return self.proof.worst

    @property
    def fallen(self) -> list[ProvenGroup]:
        """Classes that got worse beyond chance (Holm): see `Proof.fallen`."""
        return self.proof.fallen

    @property
    def verdict(self) -> str:
        """`repaired`: the worst group has gained beyond chance, and no class has fallen; `worse`; `no better`."""
        return self.proof.verdict

    def lines(self) -> Iterator[str]:
        """The summary, a sentence each; the verdict first."""
        yield from self.proof.lines()
        a, b = self.comparison.paired.accuracies
        yield f"Of pictures as they are {a:.1%} were right before and {b:.1%} are now."

    def table(self) -> list[dict[str, Any]]:
        """One row a group."""
        return self.proof.table()

    def figure(self) -> Figure:
        """The summary as a sheet."""
        from pellucid.render.audit import draw_lines

        return draw_lines(self.caption, list(self.lines()), self.notes, self.comparison.paired.calibrations[1])

    def on_page(self, file: str = "") -> Card:
        """The summary, the groups, and the comparison of both models."""
        return self.comparison.on_page(file)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the groups (.csv) and the comparison into `folder`, whose page comes last (see `Comparison.save`)."""
        from pellucid.keep.files import comma_separated, write_bytes

        home = Path(folder)
        groups = home / "repair.csv"
        write_bytes(groups, comma_separated(self.table()).encode())
        return [*self.files, groups, *self.comparison.save(home)]
