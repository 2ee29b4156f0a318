"""`AtlasSheet`: a layer's activations over a folder, laid out and drawn, with its verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from pellucid import storage
from pellucid.explanation import Brief
from pellucid.features.atlas import AtlasCell, DrawnAtlas
from pellucid.features.folder import Patch
from pellucid.media import Geometry, Origin
from pellucid.results.base import Result
from pellucid.results.shown import slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "pellucid-atlas/1"


@dataclass(repr=False)
class AtlasSheet(Brief, DrawnAtlas, Result):
    """A layer's activations over a folder: neighbours on the sheet are neighbours in the layer."""

    def figure(self) -> Figure:
        """Two grids: made pictures, and the natural crops nearest to them."""
        from pellucid.render.atlas import atlas_sheet

        return atlas_sheet(self)

    @property
    def caption(self) -> str:
        """What it shows, of what."""
        return f"activation atlas of {self.layer}"

    def save(self, folder: str | Path) -> list[Path]:
        """Write values (.npz), record (.json) and sheet (.png) into `folder`, together; returns the files."""
        stem = Path(folder) / f"{slug(self.layer.replace('.', '-'))}.atlas"
        files = {stem.with_name(f"{stem.name}.png"): self.png()}
        return storage.write_artefact(stem.with_name(f"{stem.name}.npz"), FORMAT, arrays(self), _meta(self), files)


def arrays(atlas: DrawnAtlas) -> dict[str, NDArray[Any]]:
    """What is stored, and compared by `verify`."""
    return {
        "points": atlas.points.numpy(),
        "directions": torch.stack([c.direction for c in atlas.cells]).numpy(),
        "pictures": atlas.pictures.numpy(),
    }


def _meta(atlas: DrawnAtlas) -> dict[str, Any]:
    return {
        "layer": atlas.layer,
        "projection": atlas.projection,
        "size": list(atlas.size),
        "count": atlas.count,
        "kept": atlas.kept,
        "chance": atlas.chance,
        "cells": [
            {
                "position": list(c.position),
                "count": c.count,
                "origin": dataclasses.asdict(c.nearest.origin),
                "cell": list(c.nearest.cell),
                "box": [list(span) for span in c.nearest.box],
                "geometry": c.nearest.geometry.as_dict(),
            }
            for c in atlas.cells
        ],
        "record": dataclasses.asdict(atlas.record),
    }


def read_atlas(artefact: storage.Artefact) -> AtlasSheet:
    """An artefact as the atlas that it holds."""
    with storage.reading(artefact):
        meta, held = artefact.meta, {name: torch.from_numpy(a) for name, a in artefact.arrays.items()}
        cells = tuple(
            AtlasCell(
                (c["position"][0], c["position"][1]),
                direction,
                c["count"],
                Patch(
                    Origin(**c["origin"]),
                    tuple(c["cell"]),
                    tuple((start, stop) for start, stop in c["box"]),
                    Geometry.from_dict(c["geometry"]),
                ),
            )
            for c, direction in zip(meta["cells"], held["directions"], strict=True)
        )
        return AtlasSheet(
            meta["layer"],
            meta["projection"],
            (meta["size"][0], meta["size"][1]),
            held["points"],
            cells,
            meta["count"],
            meta["kept"],
            meta["chance"],
            held["pictures"],
            storage.record_from(meta),
        )
