"""`Activations`: what layers make of one input, with its verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from pellucid import storage
from pellucid.explanation import Brief, Prediction
from pellucid.features.activations import ActivationMaps, InputActivations, Ranking
from pellucid.media import Geometry
from pellucid.models.layers import Layer
from pellucid.models.layouts import Layout
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "pellucid-activations/1"


@dataclass(repr=False)
class Activations(Brief, InputActivations, Result):
    """What some layers answer to one input: `result["layer"]` gives a layer's maps."""

    def figure(self) -> Figure:
        """The input, and a row a layer: summary pictures and the leading channels."""
        from pellucid.render.activations import activation_sheet

        return activation_sheet(self)

    @property
    def caption(self) -> str:
        """What it shows, of what."""
        return f"{self.name}: activations"

    def save(self, folder: str | Path) -> list[Path]:
        """Write the maps (.npz), the record (.json) and the sheet (.png) into `folder`, together; returns the files."""
        folder = Path(folder)
        taken = names_of_inputs(folder, [str(self.record.input.get("source") or "")])
        layer = f".{slug(self.maps[0].layer.name)}" if len(self.maps) == 1 else ""
        stem = unused(f"{slug(self.name)}{layer}.activations", taken)
        files = {folder / f"{stem}.png": self.png()}
        return storage.write_artefact(folder / f"{stem}.npz", FORMAT, arrays(self), _meta(self), files)


def arrays(found: Activations) -> dict[str, NDArray[Any]]:
    """What is stored, and compared by `verify`."""
    made = {f"maps.{m.layer.name}": m.values.float().numpy() for m in found.maps}
    return made | {f"ranking.{m.layer.name}": m.ranking.float().numpy() for m in found.maps}


def _meta(found: Activations) -> dict[str, Any]:
    return {
        "layers": [dataclasses.asdict(m.layer) | {"ranked_by": m.ranked_by} for m in found.maps],
        "target": found.target,
        "prediction": [dataclasses.asdict(p) for p in found.prediction],
        "geometry": found.geometry.as_dict(),
        "record": dataclasses.asdict(found.record),
    }


def read_activations(artefact: storage.Artefact) -> Activations:
    """An artefact as the activations that it holds."""
    with storage.reading(artefact):
        held, meta = {name: torch.from_numpy(a) for name, a in artefact.arrays.items()}, artefact.meta
        maps = []
        for about in meta["layers"]:
            layout: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["layout"].items()}
            layer = Layer(about["name"], about["kind"], Layout(**layout), float("nan"))
            by: Ranking = about["ranked_by"]
            maps.append(ActivationMaps(layer, held[f"maps.{layer.name}"], by, held[f"ranking.{layer.name}"]))
        return Activations(
            maps,
            meta["target"],
            [Prediction.from_dict(p) for p in meta["prediction"]],
            Geometry.from_dict(meta["geometry"]),
            storage.record_from(meta),
        )
