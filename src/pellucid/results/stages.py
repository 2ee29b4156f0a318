"""`Stages`: one method's maps at several stages of a network, with its verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid import storage
from pellucid.errors import LayerError
from pellucid.explanation import Brief, Explanation, Prediction, Record
from pellucid.media import Geometry
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "pellucid-stages/1"


@dataclass(frozen=True)
class StageMap:
    """A method's map at one stage.

    Attributes:
        layer: the layer's name; `input` at the input.
        layout: how its axes read, in words; empty at the input.
        values: raw values `(*grid)`.
        flow: how much of the score flows through the stage: `sum x g` over all of its values.
        absorbed: what rules between the stage and the score kept for themselves.
        geometry: where the map lies on the original.
    """

    layer: str
    layout: str
    values: Tensor
    flow: float
    absorbed: float
    geometry: Geometry


@dataclass(repr=False)
class Stages(Brief, Result):
    """One method's maps from the input to the score, all out of one pass: `result["layer4"]` is a stage.

    Attributes:
        maps: one a stage, from the input on.
        method: the method's name; target: as people call it.
        score: of the target.
        signed: whether negative values are evidence against it.
        conserving: whether flow and what is absorbed are meant to sum to the score.
        prediction: the model's top classes.
        geometry: where the model looked on the original picture.
        record: provenance.
        notes: what a reader must know.
        picture: the original, while in memory; not stored.
    """

    maps: list[StageMap]
    method: str
    target: str
    score: float
    signed: bool
    conserving: bool
    prediction: list[Prediction]
    geometry: Geometry
    record: Record
    notes: list[str] = field(default_factory=list)
    picture: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the input."""
        return str(self.record.input.get("name") or "input")

    def __getitem__(self, layer: str) -> StageMap:
        """The map at a layer, by its name; `input` at the input.

        Raises:
            LayerError: it was not read.
        """
        found = next((m for m in self.maps if m.layer == layer), None)
        if found is None:
            raise LayerError(f"There is no map at layer {layer!r}, only at {', '.join(m.layer for m in self.maps)}.")
        return found

    def gap(self, stage: StageMap) -> float:
        """`|flow + absorbed - score| / |score|` at a stage: how much of the score is found in neither."""
        return abs(stage.flow + stage.absorbed - self.score) / max(abs(self.score), 1e-12)

    def table(self) -> list[dict[str, Any]]:
        """The trace: a row a stage, from the input on."""
        return [
            {"layer": m.layer, "flow": m.flow, "absorbed": m.absorbed, "score": self.score, "gap": self.gap(m)}
            for m in self.maps
        ]

    def at(self, stage: StageMap) -> Explanation:
        """A stage as an explanation of its own, to be drawn or mapped to the original."""
        return Explanation(
            stage.values[None], self.method, self.target, self.prediction, stage.geometry, self.record,
            layer=stage.layout or None, signed=self.signed, picture=self.picture,
        )  # fmt: skip

    @property
    def caption(self) -> str:
        """What it shows, of what."""
        return f"{self.name}: {self.method} for {self.target} at {len(self.maps)} stages"

    def figure(self) -> Figure:
        """The input, a map a stage, and below them how much of the score flows through each."""
        from pellucid.render.stages import stage_sheet

        return stage_sheet(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the maps (.npz), the record (.json) and the sheet (.png) into `folder`; returns the files."""
        folder = Path(folder)
        taken = names_of_inputs(folder, [str(self.record.input.get("source") or "")])
        stem = unused(f"{slug(self.name)}.{slug(self.method)}.stages", taken)
        files = {folder / f"{stem}.png": self.png()}
        return storage.write_artefact(folder / f"{stem}.npz", FORMAT, arrays(self), _meta(self), files)


def arrays(found: Stages) -> dict[str, NDArray[Any]]:
    """What is stored, and compared by `verify`."""
    flows = torch.tensor([[m.flow, m.absorbed] for m in found.maps], dtype=torch.float64)
    return {f"maps.{m.layer}": m.values.float().numpy() for m in found.maps} | {"trace": flows.numpy()}


def _meta(found: Stages) -> dict[str, Any]:
    return {
        "stages": [{"layer": m.layer, "layout": m.layout, "geometry": m.geometry.as_dict()} for m in found.maps],
        "prediction": [dataclasses.asdict(p) for p in found.prediction],
        "geometry": found.geometry.as_dict(),
        "record": dataclasses.asdict(found.record),
        **{name: getattr(found, name) for name in ("method", "target", "score", "signed", "conserving", "notes")},
    }


def read_stages(artefact: storage.Artefact) -> Stages:
    """An artefact as the maps that it holds."""
    with storage.reading(artefact):
        held, meta = {name: torch.from_numpy(a) for name, a in artefact.arrays.items()}, artefact.meta
        maps = []
        for about, (flow, absorbed) in zip(meta["stages"], held["trace"].tolist(), strict=True):
            values, geometry = held[f"maps.{about['layer']}"], Geometry.from_dict(about["geometry"])
            maps.append(StageMap(about["layer"], about["layout"], values, flow, absorbed, geometry))
        return Stages(
            maps,
            prediction=[Prediction.from_dict(p) for p in meta["prediction"]],
            geometry=Geometry.from_dict(meta["geometry"]),
            record=storage.record_from(meta),
            **{name: meta[name] for name in ("method", "target", "score", "signed", "conserving", "notes")},
        )
