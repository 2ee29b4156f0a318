"""`Importance`: how much each part of an input, or of a model, matters; with its verbs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid import storage
from pellucid.errors import MediaError
from pellucid.explanation import REDACTED, Prediction
from pellucid.importance.result import Answer, Share
from pellucid.media.geometry import Geometry
from pellucid.media.redaction import check_hideable, coarse_on_input, redacted
from pellucid.numerics.presence_tree import PresenceTree
from pellucid.results.base import Result
from pellucid.results.shown import names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "pellucid-importance/1"


@dataclass(repr=False)
class Importance(Answer, Result):
    """How much each player matters: to one picture, or to each group of pictures of a folder.

    `table()` gives plain rows, `figure()` and `show()` draw it, `save()` stores it.
    """

    def figure(self) -> Figure:
        """Ranked bars with their intervals, each beside its picture, as a matplotlib figure."""
        from pellucid.render.importance import draw

        return draw(self)

    plot = figure

    @property
    def caption(self) -> str:
        """What it shows, of what."""
        return f"{self.name}: importance of {self.features} for {self.target}"

    def stem(self, folder: str | Path = ".") -> str:
        """What its files in `folder` are called, such as `cat.superpixels.shapley`."""
        name = f"{slug(self.name)}.{slug(self.features)}.{slug(self.by)}"
        return unused(name, names_of_inputs(folder, [str(self.record.input.get("source") or "")]))

    def redact(self, boxes: Sequence[Sequence[float]]) -> Importance:
        """Hide boxes `(x0, y0, x1, y1)` of the original in all that is shown and written; the values stay as they are.

        What is read back from disk is hidden too. It is for one picture or clip: of many, `importance` redacts each
        before it becomes an example.

        Raises:
            MediaError: a box is none, it is of a volume or of many pictures, or the model's transform has no known
                way back to the picture.
        """
        if self.of_a_set:
            raise MediaError(f"{self.name} is many pictures: say what is to be hidden in each when they are measured.")
        check_hideable(self.name, self.geometry)
        if self.picture is not None:
            self.picture = redacted(self.picture, boxes)
        self.pictures = hidden_looks(self.pictures, self.geometry, boxes)
        self.hidden = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return self

    def save(self, folder: str | Path) -> list[Path]:
        """Write the values (.npz), the record (.json), the table (.csv) and the figure (.png) into `folder`, together.

        Returns:
            The files; the figure comes last.
        """
        stem = Path(folder) / self.stem(folder)
        table, picture = stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.png")
        files = {table: self.table().csv().encode(), picture: self.png()}
        return storage.write_artefact(stem.with_name(f"{stem.name}.npz"), FORMAT, *parts(self), files)


def hidden_looks(
    looks: Mapping[str, Tensor], geometry: Geometry, boxes: Sequence[Sequence[float]]
) -> dict[str, Tensor]:
    """What players look like (see `Game`), nothing fine of the boxes `(x0, y0, x1, y1)` of the original left in it.

    Whole inputs go, since a band of frequencies spreads a face over everything around it.
    """
    if not boxes:
        return dict(looks)
    shown = {name: value for name, value in looks.items() if name != "inputs"}
    if "frames" in shown:  # (K, C, h, w)
        coarse = coarse_on_input(shown["frames"].movedim(1, -1).numpy(), geometry, boxes)
        shown["frames"] = torch.from_numpy(coarse).movedim(-1, 1).contiguous()
    if "maps" in shown and shown["maps"].ndim > 2:  # (K, h, w), of a clip (K, T, h, w); large cells are coarse already
        coarse = coarse_on_input(shown["maps"][..., None].numpy(), geometry, boxes)
        shown["maps"] = torch.from_numpy(coarse[..., 0])
    return shown


def parts(answer: Answer) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of an importance by name, and all else as plain values."""
    return _arrays(answer), _meta(answer)


def _meta(answer: Answer) -> dict[str, Any]:
    return {
        "features": answer.features,
        "by": answer.by,
        "target": answer.target,
        "layer": answer.layer,
        "names": answer.names,
        "groups": [{"group": s.group, "count": s.count} for s in answer.shares],
        "difference": None if answer.difference is None else {
            "group": answer.difference.group, "count": answer.difference.count,
        },
        "full": answer.full,
        "empty": answer.empty,
        "interactions": [list(pair) for pair in answer.interactions],
        "notes": answer.notes,
        "prediction": [dataclasses.asdict(p) for p in answer.prediction],
        "geometry": answer.geometry.as_dict(),
        "record": dataclasses.asdict(answer.record),
    }  # fmt: skip


def _arrays(answer: Answer) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    rows = [*answer.shares, *([answer.difference] if answer.difference is not None else [])]
    for name in ("values", "low", "high"):
        arrays[name] = torch.stack([getattr(s, name) for s in rows]).numpy()
    for g, share in enumerate(answer.shares):
        if share.changed is not None:
            arrays[f"changed.{g}"] = share.changed.numpy()
        if share.single is not None:
            arrays[f"single.{g}"] = share.single.numpy()
        arrays |= {f"example.{g}.{k}": picture for k, picture in share.examples.items()}
    if answer.tree is not None:
        arrays |= {f"tree.{f.name}": getattr(answer.tree, f.name) for f in dataclasses.fields(answer.tree)}
    if answer.hidden is not None:
        arrays[REDACTED] = answer.hidden.numpy()
    return arrays | {f"picture.{name}": value.numpy() for name, value in answer.pictures.items()}


def read_importance(artefact: storage.Artefact) -> Importance:
    """An artefact as the importance that it holds."""
    with storage.reading(artefact):
        meta, arrays = artefact.meta, artefact.arrays
        shares = [_share(g, about, arrays) for g, about in enumerate(meta["groups"])]
        return Importance(
            features=meta["features"],
            by=meta["by"],
            target=meta["target"],
            names=meta["names"],
            shares=shares,
            prediction=[Prediction.from_dict(p) for p in meta["prediction"]],
            record=storage.record_from(meta),
            geometry=Geometry.from_dict(meta["geometry"]),
            layer=meta["layer"],
            full=math.nan if meta["full"] is None else meta["full"],
            empty=math.nan if meta["empty"] is None else meta["empty"],
            pictures={k.removeprefix("picture."): torch.from_numpy(a) for k, a in arrays.items()
                      if k.startswith("picture.")},
            interactions=[(int(i), int(j), float(v)) for i, j, v in meta["interactions"]],
            difference=_share(len(shares), meta["difference"], arrays) if meta["difference"] else None,
            notes=meta["notes"],
            tree=PresenceTree(**{f.name: arrays[f"tree.{f.name}"] for f in dataclasses.fields(PresenceTree)})
                 if "tree.player" in arrays else None,
            hidden=torch.from_numpy(arrays[REDACTED]) if REDACTED in arrays else None,
        )  # fmt: skip


def _share(g: int, about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Share:
    values, low, high = (torch.from_numpy(arrays[name][g]) for name in ("values", "low", "high"))
    start = f"example.{g}."
    examples: dict[int, NDArray[np.uint8]] = {
        int(name.removeprefix(start)): picture for name, picture in arrays.items() if name.startswith(start)
    }
    single, changed = (
        torch.from_numpy(arrays[f"{name}.{g}"]) if f"{name}.{g}" in arrays else None for name in ("single", "changed")
    )
    return Share(about["group"], values, low, high, about["count"], single, examples, changed)
