"""`FeatureImage` and `FeatureImages`: what units have learned, with their verbs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from PIL import Image

from pellucid import storage
from pellucid.explanation import Brief
from pellucid.features.exemplars import Exemplar, UnitExemplars
from pellucid.features.feature_image import FeatureQuality, UnitPicture
from pellucid.media import Geometry, Origin
from pellucid.results.base import Result
from pellucid.results.shown import slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

FORMAT = "pellucid-feature/1"


@dataclass(repr=False)
class FeatureImage(Brief, UnitPicture):
    """What a unit has learned: a picture made for it, natural pictures that excite it, and how far to believe them."""

    def image(self, variant: int = 0) -> Image.Image:
        """The made picture; of a clip some frames."""
        from pellucid.render.paper.rgb import rgb

        return Image.fromarray(rgb(self.pictures[variant]))

    def figure(self) -> Figure:
        """The sheet of this unit, as a matplotlib figure."""
        return FeatureImages([self]).figure()

    def show(self) -> None:
        """Show the sheet: in the notebook, or in the system's picture viewer."""
        FeatureImages([self]).show()

    def save(self, folder: str | Path) -> list[Path]:
        """Write values, record, sheet and page into `folder`; returns the files."""
        return FeatureImages([self]).save(folder)

    def _repr_html_(self) -> str:
        return FeatureImages([self])._repr_html_()


class FeatureImages(list[FeatureImage], Result):
    """Units visualised in one run; they make one sheet."""

    @property
    def name(self) -> str:
        """What its files are called: the layer with its channels, or the objective."""
        first = self[0]
        if first.layer is None or first.channel is None:
            return slug(first.objective)
        channels = [u.channel for u in self if u.channel is not None]
        whole = channels == list(range(channels[0], channels[0] + len(channels)))
        told = f"{channels[0]}-{channels[-1]}" if whole and len(channels) > 1 else "-".join(map(str, channels[:8]))
        return f"{slug(first.layer.replace('.', '-'))}.{told}"

    def about(self) -> str:
        """How the pictures were made, in a line."""
        run, asked = self[0].record.run, self[0].record.method["parameters"]
        settings = asked["settings"]
        said = [f"made by {settings['parametrisation']['name']} in {run['steps']} steps, seed {run['seed']}"]
        if run.get("pictures"):
            by = "" if asked["by"] == "activation" else f", ranked by relevance to {asked['target']}"
            said.append(f"{run['pictures']} natural pictures{by}")
        said += [note.rstrip(".") for note in run["notes"]]
        return " · ".join(said)

    def figure(self) -> Figure:
        """A card a unit: the made picture, natural exemplars, scores, and what they mean."""
        from pellucid.render.features import feature_sheet

        return feature_sheet(self, self.about())

    def on_page(self, file: str = "") -> Card:
        """All units as a part of a page."""
        from pellucid.render.pages.features import feature_card

        return feature_card(self, self.about(), file)

    @property
    def caption(self) -> str:
        """What it shows, of what."""
        return f"{self[0].objective}: what it has learned"

    def save(self, folder: str | Path) -> list[Path]:
        """Write the values (.npz), the record (.json), the page (.html) and the sheet (.png) into `folder`, together.

        Returns:
            The files; the sheet comes last.
        """
        folder = Path(folder)
        stem = folder / unused(f"{self.name}.features", set())
        page, sheet = stem.with_name(f"{stem.name}.html"), stem.with_name(f"{stem.name}.png")
        files = {page: self.html().encode(), sheet: self.png()}
        return storage.write_artefact(stem.with_name(f"{stem.name}.npz"), FORMAT, arrays(self), _meta(self), files)


def arrays(units: Sequence[UnitPicture]) -> dict[str, NDArray[Any]]:
    """What is stored, and compared by `verify`."""
    found: dict[str, NDArray[Any]] = {}
    for i, unit in enumerate(units):
        found[f"pictures.{i}"] = unit.pictures.numpy()
        if unit.alphas is not None:
            found[f"alphas.{i}"] = unit.alphas.numpy()
        if unit.fires is not None:
            found[f"fires.{i}"] = unit.fires.numpy()
        if unit.natural is not None:
            found[f"percentiles.{i}"] = unit.natural.percentiles.numpy()
            for role in ("top", "bottom", "middle"):
                for k, e in enumerate(getattr(unit.natural, role)):
                    found[f"{role}.{i}.{k}"] = e.map.numpy()
    return found


def _meta(units: Sequence[UnitPicture]) -> dict[str, Any]:
    return {
        "units": [
            {
                "objective": u.objective,
                "spec": u.spec,
                "layer": u.layer,
                "channel": u.channel,
                "reached": u.reached,
                "history": u.history,
                "quality": u.quality.as_dict(),
                "natural": _natural(u.natural),
                "notes": u.notes,
                "facts": u.facts,
            }
            for u in units
        ],
        "record": dataclasses.asdict(units[0].record),
    }


def _natural(natural: UnitExemplars | None) -> dict[str, Any] | None:
    if natural is None:
        return None
    about = {"unit": natural.unit, "mean": natural.mean, "std": natural.std, "count": natural.count}
    return about | {
        role: [
            {
                "origin": dataclasses.asdict(e.origin),
                "cell": list(e.cell),
                "box": [list(span) for span in e.box],
                "geometry": e.geometry.as_dict(),
                "rank": e.rank,
                "score": e.score,
            }
            for e in getattr(natural, role)
        ]
        for role in ("top", "bottom", "middle")
    }


def read_features(artefact: storage.Artefact) -> FeatureImages:
    """An artefact as the feature images that it holds."""
    with storage.reading(artefact):
        held = {name: torch.from_numpy(a) for name, a in artefact.arrays.items()}
        record = storage.record_from(artefact.meta)
        return FeatureImages(
            FeatureImage(
                objective=u["objective"],
                spec=u["spec"],
                layer=u["layer"],
                channel=u["channel"],
                pictures=held[f"pictures.{i}"],
                alphas=held.get(f"alphas.{i}"),
                reached=math.nan if u["reached"] is None else u["reached"],
                history=u["history"],
                quality=FeatureQuality.from_dict(u["quality"]),
                record=record,
                natural=_natural_from(u["natural"], i, held),
                fires=held.get(f"fires.{i}"),
                notes=u["notes"],
                facts=u["facts"],
            )
            for i, u in enumerate(artefact.meta["units"])
        )


def _natural_from(about: dict[str, Any] | None, i: int, held: dict[str, torch.Tensor]) -> UnitExemplars | None:
    if about is None:
        return None
    roles = {
        role: tuple(
            Exemplar(
                Origin(**e["origin"]),
                tuple(e["cell"]),
                tuple((start, stop) for start, stop in e["box"]),
                Geometry.from_dict(e["geometry"]),
                role,
                e["rank"],
                e["score"],
                held[f"{role}.{i}.{k}"],
            )
            for k, e in enumerate(about[role])
        )
        for role in ("top", "bottom", "middle")
    }
    levels = held[f"percentiles.{i}"]
    return UnitExemplars(
        about["unit"], **roles, percentiles=levels, mean=about["mean"], std=about["std"], count=about["count"]
    )
