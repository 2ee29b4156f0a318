"""`Concepts`: what users hold of a bank of concepts, with its verbs `encode`, `heatmap`, `table`, `show` and `save`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pellucid import storage
from pellucid.concepts.bank import Bank, BankScores, Group, Showcase
from pellucid.concepts.dictionary import Array, restore
from pellucid.errors import MethodError, StorageError
from pellucid.explanation import Brief, Explanation, Record
from pellucid.keep.files import comma_separated
from pellucid.media import Geometry, Origin
from pellucid.models.features import activations
from pellucid.models.model import VisionModel
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

FORMAT = "pellucid-concepts/1"

_ARRAYS = ("exemplars", "cells", "peaks", "maps", "prevalence", "monosemanticity", "stability")


@dataclass(repr=False)
class Concepts(Brief, Bank, Result):
    """The concepts of one layer, found in many pictures, and what was measured of them.

    `table()` gives plain rows, `figure()` and `show()` the concept sheet, `html()` all concepts in one page, `save()`
    stores everything, `heatmap()` shows a concept in any picture.
    """

    record: Record = field(default_factory=lambda: Record({}, {}, {}, None, {}, {}))

    @property
    def title(self) -> str:
        """What these are the concepts of."""
        return (
            f"Concepts of {self.record.model.get('name') or 'model'} in {self.record.input.get('name') or 'pictures'}"
        )

    def encode(self, model: VisionModel, inputs: torch.Tensor) -> Array:
        """How much of each concept there is at each place of inputs `(N, C, *space)`: `(N, *grid, K)`."""
        rows, _ = activations(model, inputs, self.layer)
        codes = self.dictionary.encode(rows.reshape(-1, rows.shape[-1]).numpy())
        return codes.reshape(*rows.shape[:-1], -1)

    def heatmap(self, model: VisionModel, picture: Any, concept: int) -> Explanation:
        """Where a concept is in a picture (a path, `sample:NAME`, PIL, array), as an explanation that can be drawn.

        Raises:
            MethodError: no such concept.
        """
        import torch

        from pellucid.media import read_image

        if not 0 <= concept < len(self):
            raise MethodError(f"There is no concept {concept}: they run from 0 to {len(self) - 1}.")
        read = read_image(picture)
        x, geometry = model.pictures(read)
        x = x[None].to(model.device, model.dtype)
        codes = torch.from_numpy(self.encode(model, x)[..., concept])
        about = {"source": read.source, "name": read.name, "sha256": read.sha256}
        return Explanation(
            attribution=codes,
            method=f"concept {concept}",
            target=self.names[concept] or f"concept {concept}",
            prediction=model.predict(x)[0],
            geometry=geometry,
            record=dataclasses.replace(self.record, input=about),
            layer=f"{self.layer} ({self.layout})",
            signed=not self.dictionary.nonnegative,
            picture=read if geometry.known else None,
        )

    def table(self) -> list[dict[str, Any]]:
        """One row a concept and group of pictures, the most important concept first."""
        rows = []
        for rank, k in enumerate(self.ranking()):
            row: dict[str, Any] = {"rank": rank + 1, "concept": k, "name": self.names[k], "named by": self.named_by[k]}
            row |= {"prevalence": float(self.prevalence[k]), "monosemanticity": float(self.monosemanticity[k])}
            row |= {"stability": float(self.stability[k]) if len(self.stability) else math.nan}
            if self.whole is None:
                rows.append(row)
                continue
            for group in (self.whole, *self.groups):
                about = {"group": group.name, "pictures": group.count, "importance": float(group.values[k])}
                rows.append({**row, **about, "low": float(group.low[k]), "high": float(group.high[k])})
        return rows

    def csv(self) -> str:
        """The table as comma-separated values; NaN is an empty cell."""
        return comma_separated(self.table(), nan="")

    def figure(self, *, top: int = 12, pictures: int = 6) -> Figure:
        """The concept sheet, as a matplotlib figure."""
        from pellucid.render.concepts import draw

        return draw(self, self.title, top=top, pictures=pictures)

    def on_page(self, file: str = "") -> Card:
        """All concepts as a part of a page."""
        from pellucid.render.pages.concepts import concept_card

        return concept_card(self, self.title, record=self.record, file=file)

    @property
    def caption(self) -> str:
        """What it shows, of what."""
        return self.title

    def save(self, folder: str | Path) -> list[Path]:
        """Write values (.npz), record (.json), table (.csv), all concepts (.html) and the sheet (.png) into `folder`.

        Returns:
            The files; the sheet comes last.
        """
        name = f"{slug(str(self.record.input.get('name') or 'pictures'))}.concepts.{slug(self.dictionary.name)}"
        stem = Path(folder) / unused(name, names_of_inputs(folder, [s.origin.source for s in self.shown.values()]))
        further = {
            stem.with_name(f"{stem.name}.csv"): self.csv().encode(),
            stem.with_name(f"{stem.name}.html"): self.html().encode(),
            stem.with_name(f"{stem.name}.png"): self.png(),
        }
        return storage.write_artefact(stem.with_name(f"{stem.name}.npz"), FORMAT, _arrays(self), _meta(self), further)


def _arrays(found: Concepts) -> dict[str, NDArray[Any]]:
    _, state = found.dictionary.state()
    arrays: dict[str, NDArray[Any]] = {f"dictionary.{name}": value for name, value in state.items()}
    arrays |= {name: getattr(found, name) for name in _ARRAYS}
    groups = [found.whole, *found.groups] if found.whole is not None else []
    for part in ("values", "low", "high"):
        arrays[f"whole.{part}"] = getattr(found.whole, part) if found.whole is not None else np.zeros(0)
        arrays[f"groups.{part}"] = np.stack([getattr(g, part) for g in groups[1:]]) if groups[1:] else np.zeros((0, 0))
    return arrays


def _meta(found: Concepts) -> dict[str, Any]:
    return {
        "dictionary": found.dictionary.state()[0],
        "layer": found.layer,
        "layout": found.layout,
        "grid": list(found.grid),
        "count": found.count,
        "looked": found.looked,
        "names": found.names,
        "named by": found.named_by,
        "notes": found.notes,
        "forwards": found.forwards,
        "backwards": found.backwards,
        "standing": asdict(found.standing),
        "random": asdict(found.random),
        "untouched": found.untouched,
        "whole": [found.whole.name, found.whole.count] if found.whole is not None else None,
        "groups": [[g.name, g.count] for g in found.groups],
        "shown": {
            str(i): {"origin": asdict(s.origin), "geometry": s.geometry.as_dict(), "answer": s.answer}
            for i, s in found.shown.items()
        },
        "record": asdict(found.record),
    }


def read_concepts(artefact: storage.Artefact) -> Concepts:
    """An artefact as the concepts that it holds; their dictionary gives the same codes."""
    with storage.reading(artefact):
        meta, arrays = artefact.meta, artefact.arrays
        state = {n.removeprefix("dictionary."): a for n, a in arrays.items() if n.startswith("dictionary.")}

        def group(name: str, count: int, part: str, row: int | None = None) -> Group:
            values, low, high = (arrays[f"{part}.{p}"] for p in ("values", "low", "high"))
            if row is not None:
                values, low, high = values[row], low[row], high[row]
            return Group(name, count, values, low, high)

        return Concepts(
            dictionary=restore(meta["dictionary"], state),
            **{name: arrays[name] for name in _ARRAYS},
            layer=meta["layer"],
            layout=meta["layout"],
            shown={int(i): _shown(about) for i, about in meta["shown"].items()},
            whole=group(meta["whole"][0], meta["whole"][1], "whole") if meta["whole"] else None,
            groups=[group(name, count, "groups", i) for i, (name, count) in enumerate(meta["groups"])],
            standing=BankScores(**_figures(meta["standing"])),
            random=BankScores(**_figures(meta["random"])),
            untouched=math.nan if meta["untouched"] is None else meta["untouched"],
            names=meta["names"],
            named_by=meta["named by"],
            grid=tuple(meta["grid"]),
            count=meta["count"],
            looked=meta["looked"],
            notes=meta["notes"],
            forwards=meta["forwards"],
            backwards=meta["backwards"],
            record=storage.record_from(meta),
        )


def _shown(about: dict[str, Any]) -> Showcase:
    box = about["origin"]["box"]
    origin = Origin(about["origin"]["source"], about["origin"]["sha256"], None if box is None else tuple(box))
    return Showcase(origin, Geometry.from_dict(about["geometry"]), about["answer"])


def _figures(values: dict[str, float | None]) -> dict[str, float]:
    """Numbers, where JSON's null stands for NaN."""
    return {name: math.nan if value is None else value for name, value in values.items()}


def load_concepts(path: str | Path) -> Concepts:
    """Concepts from disk, by the name of any of their files.

    Raises:
        StorageError: no such files, or they were changed after they were written.
    """
    artefact = storage.read_artefact(path, [FORMAT])
    if artefact.tampered:
        raise StorageError(f"{'; '.join(artefact.tampered)}: find the concepts again, or see `pellucid verify`.")
    return read_concepts(artefact)
